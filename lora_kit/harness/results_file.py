"""results.json as several commands share it: who writes a part keeps the parts of the others.

``evaluate`` writes models, metrics and items; a judge adds a section, a comparison a
ranking. What was said about answers is only true of these answers: a section carries a
hash of each system's, and is dropped with a note when it is about others.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_kit.artifacts.disk import disk_errors
from lora_kit.errors import DataError, Problem
from lora_kit.harness.results import RESULTS_VERSION

RESULTS = "results.json"
JUDGMENTS, RANKING, LM_EVAL = "judgments", "ranking", "lm_eval"
REFERENCE = "reference"  # the player whose answers are the suite's own
SHOWN_PROBLEMS = 20
Json = Mapping[str, Any]


def read_results(path: Path, suite: str) -> dict[str, Any]:
    """What results.json holds already; if there is none, what every one begins with.

    Raises:
        DataError: The file is there and is no results.json.
        MachineError: It can't be read.
    """
    if not path.exists():
        return {"results_version": RESULTS_VERSION, "suite": {"name": suite}}
    try:
        with disk_errors(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise DataError("not a results.json", where=str(path), cure="pass another --out") from None


def answer_hashes(items: Iterable[Json], players: Iterable[str], ids: Iterable[str]) -> dict[str, str]:
    """Player -> hash of prompts and answers over some items; a player without an answer to each is left out.

    Args:
        items: Of results.json.
        players: Names of models, or ``reference``.
        ids: Which items.
    """
    by_id = {str(item["id"]): item for item in items}
    wanted = sorted(set(ids))
    found = {}
    for player in players:
        rows = [(name, _prompt_and_answer(by_id.get(name), player)) for name in wanted]
        if all(row is not None for _, row in rows):
            found[player] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return found


def _prompt_and_answer(item: Json | None, player: str) -> tuple[str, str] | None:
    if item is None:
        return None
    answer = item["answers"].get(player)
    if answer is not None:
        return str(item["prompt"]), str(answer["text"])
    return (str(item["prompt"]), str(item["reference"])) if player == REFERENCE else None


def with_answers(results: Json, asked: Sequence[Json]) -> dict[str, Any]:
    """Results that hold these prompts and answers too, so that a page can show what was judged.

    Args:
        results: Content of results.json.
        asked: Items as in results.json, with the answers ``{player: {"text"}}`` of those who are judged.

    Returns:
        The results; older answers of a system are replaced, and sections about them dropped.

    Raises:
        DataError: The evaluation in it is of other prompts, or of other answers under the same name.
    """
    before: list[dict[str, Any]] = list(results.get("items", []))
    evaluated = {str(model["name"]) for model in results.get("models", [])}
    known = {str(item["id"]): item for item in before}
    if evaluated:
        _refuse_others(known, asked, evaluated)
    for item in asked:
        old = known.get(str(item["id"]))
        if old is None or old["prompt"] != item["prompt"]:
            known[str(item["id"])] = dict(item)
        else:
            said = {name: text for name, text in item["answers"].items() if not _same(old, name, text)}
            reference = item["reference"] or old["reference"]
            known[str(item["id"])] = {**old, "reference": reference, "answers": {**old["answers"], **said}}
    return without_stale({**results, "items": list(known.values())})


def _same(item: Json, player: str, answer: Json) -> bool:
    return player in item["answers"] and item["answers"][player]["text"] == answer["text"]


def _refuse_others(known: Mapping[str, Json], asked: Sequence[Json], evaluated: set[str]) -> None:
    cure = "pass another --out"
    problems = []
    for item in asked:
        name, old = str(item["id"]), known.get(str(item["id"]))
        if old is None or old["prompt"] != item["prompt"]:
            wrong = ["no such prompt"]
        else:
            said = {name: text for name, text in item["answers"].items() if name in evaluated}
            wrong = [f"another answer of '{one}'" for one in said if not _same(old, one, said[one])]
            if item["reference"] not in ("", old["reference"]):
                wrong.append("another reference")
        problems += [
            Problem(f"the evaluation in this folder has {what}", key=name, cure=cure) for what in wrong
        ]
    if problems:
        raise DataError.collect(problems[:SHOWN_PROBLEMS])


def carried_over(old: Json, new: Json) -> dict[str, Any]:
    """A new evaluation with what the old file says about the same answers; the rest goes, with a note.

    Args:
        old: Content of results.json before; also one that somebody has edited.
        new: The new evaluation.
    """
    kept = {name: old[name] for name in (JUDGMENTS, RANKING, LM_EVAL) if old.get(name)}
    try:
        if LM_EVAL in kept and _models(old) != _models(new):
            del kept[LM_EVAL]
        before = {(item["id"], item["prompt"]): item["answers"] for item in old.get("items", [])}
        items = [
            {**item, "answers": {**before.get((item["id"], item["prompt"]), {}), **item["answers"]}}
            for item in new["items"]
        ]
        return without_stale({**new, **kept, "items": items}, covers_all=True) if kept else dict(new)
    except (KeyError, TypeError, AttributeError):
        note = "dropped: what was judged before; nobody can say of which answers"
        return {**new, "notes": [*new["notes"], note]}


def _models(results: Json) -> dict[str, str]:
    return {model["name"]: model["fingerprint"] for model in results.get("models", [])}


def without_stale(results: Json, *, covers_all: bool = False) -> dict[str, Any]:
    """Drop sections about other answers than those that the file holds, and say which.

    Args:
        results: Content of results.json.
        covers_all: Also drop sections that are not about every item, and those that don't say what they
            are about.
    """
    items = results.get("items", [])
    ids = {str(item["id"]) for item in items}

    def is_true(section: Json) -> bool:
        asked, said = {str(name) for name in section.get("items", ids)}, section.get("answers") or {}
        if not said:
            return not covers_all
        return answer_hashes(items, said, asked) == said and (asked == ids or not covers_all)

    kept, stale = {**results}, []
    if JUDGMENTS in kept:
        kept[JUDGMENTS] = [section for section in results[JUDGMENTS] if is_true(section)]
        stale = [_title(section) for section in results[JUDGMENTS] if section not in kept[JUDGMENTS]]
    if kept.get(RANKING) and not is_true(kept[RANKING]):
        del kept[RANKING]
        stale.append("the ranking")
    if stale:
        again = [f"dropped: {title}; prompts or answers have changed since" for title in stale]
        kept["notes"] = [*results.get("notes", []), *again]
    return kept


def _title(section: Json) -> str:
    judge = section.get("judge") or {}
    sides = f"{section.get('system')} against {section.get('against')}"
    return f"what {judge.get('model')} judged ({section.get('kind')}, {sides})"
