"""Two sides of a judgment: whose answers, to which prompts; every missing or surplus answer is said at once.

Answers are a JSONL of ``{"id", "answer"}`` (other fields may be there), a run or evaluation
folder with results.json, or the suite's references. Prompts are the suite's, a file of
``{"id", "category", "prompt"}``, or those in the answers' own rows.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.data.format import optional_text, text_field
from lora_kit.data.sources import SUFFIXES, read_rows
from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem, RecipeError
from lora_kit.harness.judging.kind import Prompt
from lora_kit.harness.suite import load_suite
from lora_kit.registry import did_you_mean

REFERENCE = "reference"
RESULTS = "results.json"
SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Side:
    """One system's answers.

    Args:
        name: What to call it.
        answers: By prompt id.
        prompts: The prompts in the same file, if it has them.
        where: File, for messages.
    """

    name: str
    answers: Mapping[str, str]
    prompts: Mapping[str, Prompt]
    where: str


@dataclass(frozen=True)
class Pairing:
    """What is judged.

    Args:
        suite: Name of the suite or file of prompts.
        prompts: In order.
        system: Whose answers are judged.
        against: With whose they are compared.
    """

    suite: str
    prompts: tuple[Prompt, ...]
    system: Side
    against: Side


def read_pairing(answers: str, against: str, suite: str | None) -> Pairing:
    """Read both sides and the prompts.

    Args:
        answers: A file, or a folder with results.json or with ``evaluations/SUITE/results.json``.
        against: A file, ``reference``, or the name of another model in the same results.
        suite: Name or file of a suite, a file of prompts, or None for the prompts in the answers' rows.

    Raises:
        DataError: Something is missing or does not fit (all problems at once).
        RecipeError: There is no way to tell what was asked.
    """
    models = read_models(answers, suite)
    system = models[-1]
    prompts = read_prompts(suite, system)
    other = _against(against, models, prompts)
    if other.name == system.name:
        other, system = (with_folder(side) for side in (other, system))
    require_answers(prompts, (system, other))
    return Pairing(suite or Path(answers).name, tuple(prompts.values()), system, other)


def default_folder(pairing: Pairing) -> Path:
    """Beside the results that the answers came from, or ``evaluations/SYSTEM-against-OTHER`` here."""
    where = Path(pairing.system.where)
    if where.name == RESULTS:
        return where.parent
    names = f"{pairing.system.name}-against-{pairing.against.name}".replace("/", "-")
    return Path("evaluations") / names


def read_models(source: str, suite: str | None) -> list[Side]:
    """The side of a file of answers, or all models of an evaluation, the last of them the one that it is of.

    Raises:
        DataError: There are no answers, or they can't be read.
        RecipeError: There are several evaluations and no suite to choose by.
    """
    path = Path(source)
    if path.is_file() and path.name != RESULTS:
        return [_read_file(path)]
    results = _find_results(path, suite)
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
        return [_model_side(name["name"], found["items"], results) for name in found["models"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise DataError("not the results of an evaluation", where=str(results)) from None


def _find_results(path: Path, suite: str | None) -> Path:
    name = Path(suite).stem if suite else "*"
    places = [path, path / RESULTS, *sorted(path.glob(f"evaluations/{name}/{RESULTS}"))]
    found = [place for place in places if place.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecipeError(
            f"{len(found)} evaluations in this run", where=str(path), cure="choose one: --suite"
        )
    cure = f"give a file of answers ({', '.join(SUFFIXES)}), or run: lora-kit evaluate {path}"
    raise DataError("no answers here", where=str(path), cure=cure)


def _model_side(name: str, items: list[Any], results: Path) -> Side:
    answers = {item["id"]: item["answers"][name]["text"] for item in items}
    prompts = {
        item["id"]: Prompt(item["id"], item["category"], item["id"], item["prompt"], item["reference"])
        for item in items
    }
    return Side(name, answers, prompts, str(results))


def _read_file(path: Path) -> Side:
    answers: dict[str, str] = {}
    prompts: dict[str, Prompt] = {}
    problems: list[Problem] = []
    for row in read_rows(path, on_problem=problems.append):
        try:
            name = _id(row)
            if name in answers:
                problems.append(Problem(f"id '{name}' twice", row.origin, "id"))
            answers[name] = text_field(row, "answer")
            if "prompt" in row.fields:
                prompts[name] = _row_prompt(row, name)
        except DataError as error:
            problems.extend(error.problems)
    _raise(problems)
    return Side(path.name.partition(".")[0], answers, prompts, str(path))


def read_prompts(suite: str | None, system: Side) -> dict[str, Prompt]:
    """The prompts of a suite or file by id; without one, those in the answers' own rows.

    Raises:
        DataError: They can't be read.
        RecipeError: There are none.
    """
    if suite is None:
        if system.prompts and len(system.prompts) == len(system.answers):
            return dict(system.prompts)
        raise RecipeError(
            "what was asked? the answers come without prompts", cure="pass --suite NAME or FILE"
        )
    if suite.lower().endswith(SUFFIXES):
        return _prompt_file(Path(suite))
    return {
        item.id: Prompt(item.id, item.category, item.cluster, item.prompt, item.reference)
        for item in load_suite(suite).items
    }


def _prompt_file(path: Path) -> dict[str, Prompt]:
    prompts: dict[str, Prompt] = {}
    problems: list[Problem] = []
    for row in read_rows(path, on_problem=problems.append):
        try:
            name = _id(row)
            prompts[name] = _row_prompt(row, name)
        except DataError as error:
            problems.extend(error.problems)
    _raise(problems)
    return prompts


def _row_prompt(row: Row, name: str) -> Prompt:
    question, context = text_field(row, "prompt"), optional_text(row, "context")
    asked = f"{question}\n\n{context}" if context else question
    gold = optional_text(row, REFERENCE)
    return Prompt(name, optional_text(row, "category"), optional_text(row, "cluster") or name, asked, gold)


def _id(row: Row) -> str:
    value = row.fields.get("id")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_field(row, "id")


def _against(against: str, models: list[Side], prompts: Mapping[str, Prompt]) -> Side:
    others = {side.name: side for side in models[:-1]}
    if against in others:
        return others[against]
    if against == REFERENCE:
        return Side(REFERENCE, {name: prompt.gold for name, prompt in prompts.items() if prompt.gold}, {}, "")
    path = Path(against)
    if path.is_file():
        return _read_file(path)
    known = [REFERENCE, *others]
    cure = f"{did_you_mean(against, known)} a file of answers, or one of: {', '.join(known)}".strip()
    raise RecipeError(f"no answers '{against}' to compare with", key="--against", cure=cure)


def with_folder(side: Side) -> Side:
    """Two files of one name are told apart by their folders."""
    name = f"{Path(side.where).parent.name}/{side.name}"
    return Side(name, side.answers, side.prompts, side.where)


def require_answers(prompts: Mapping[str, Prompt], sides: Sequence[Side]) -> None:
    """Refuse missing and surplus answers, and two sides of one name.

    Raises:
        DataError: All that is wrong.
    """
    problems = []
    if not prompts:
        problems.append(Problem("there are no prompts"))
    for name, count in Counter(side.name for side in sides).items():
        if count > 1:
            problems.append(Problem(f"{count} sides have one name", key=name))
    for side in sides:
        missing, surplus = prompts.keys() - side.answers.keys(), side.answers.keys() - prompts.keys()
        problems += [Problem(f"no answer of {side.name} to prompt '{n}'", side.where) for n in missing]
        problems += [Problem(f"answer '{n}' of {side.name} has no prompt", side.where, "id") for n in surplus]
    _raise(sorted(problems, key=str))


def _raise(problems: list[Problem]) -> None:
    if problems:
        rest = len(problems) - SHOWN_PROBLEMS
        more = [Problem(f"... and {rest} more")] if rest > 0 else []
        raise DataError.collect([*problems[:SHOWN_PROBLEMS], *more])
