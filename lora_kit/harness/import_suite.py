"""Somebody else's questions and answers -> a suite of ours on disk, which `load_suite` accepts.

Everything is read and checked before the first file is written. Answers of each model become a file of their
own; the reference of a question is the first answer to it: its own row's, or else in the order of the files.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_kit.artifacts.commit import write_file
from lora_kit.artifacts.disk import disk_errors
from lora_kit.catalogue import IMPORTERS
from lora_kit.data.sources import read_rows
from lora_kit.data.types import Row
from lora_kit.errors import DataError, Problem
from lora_kit.harness.importer import Importer, Question
from lora_kit.harness.suite import Suite, load_suite

SHOWN_PROBLEMS = 20
MIXED = "mixed"
NAME = re.compile(r"[a-zA-Z0-9][\w.+-]*")
Answers = dict[str, dict[str, str]]  # model -> id -> answer


@dataclass
class _Draft:
    questions: dict[str, Question] = field(default_factory=dict)
    answers: Answers = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def import_suite(
    questions: Path, *, kind: str, name: str, answers: Sequence[Path] = (), out: Path, force: bool = False
) -> tuple[Path, Suite]:
    """Write a suite from files of another form.

    Args:
        questions: Rows of questions, of any kind of file that data may have.
        kind: Name in the catalogue's IMPORTERS, or ``auto``.
        name: Of the suite.
        answers: Rows of answers; the model is what they say, else the file's name.
        out: Folder for ``suites/``, ``prompts/`` and ``references/``.
        force: Replace files that are there.

    Returns:
        The suite's file, and the suite as it was read back.

    Raises:
        DataError: Anything in the files is wrong, a question has no reference, or a file would be replaced.
        MachineError: The folder can't be written.
    """
    if not NAME.fullmatch(name):
        raise DataError(f"'{name}' can't be a suite's name", cure="letters, digits and . _ + -")
    draft = _Draft()
    rows = list(read_rows(questions, on_problem=draft.problems.append))
    importer = _importer(kind, questions, rows)
    _ask(importer, rows, draft)
    for path in answers:
        _listen(importer, path, draft)
    references = _references(draft)
    _raise(draft.problems)
    files = _files(name, importer, draft, references)
    with tempfile.TemporaryDirectory() as scratch:  # what it has to say comes before anything is written
        _write(Path(scratch), files)
        load_suite(str(Path(scratch) / f"suites/{name}.yaml"))
    if not force:
        _raise(
            [
                Problem("is there already", str(out / file), cure="pass --force to replace it")
                for file in files
                if (out / file).exists()
            ]
        )
    _write(out, files)
    suite = out / f"suites/{name}.yaml"
    return suite, load_suite(str(suite))


def _importer(kind: str, path: Path, rows: Sequence[Row]) -> Importer:
    if kind != "auto":
        found: Importer = IMPORTERS[kind]
        return found
    fields = set(rows[0].fields) if rows else set()
    for name in IMPORTERS:
        importer: Importer = IMPORTERS[name]
        if importer.marks and fields.issuperset(importer.marks):
            return importer
    if {"instruction", "output_1"} <= fields:
        annotations: Importer = IMPORTERS["alpaca_eval"]
        return annotations
    table: Importer = IMPORTERS["csv" if ".csv" in path.name else "jsonl"]
    return table


def _ask(importer: Importer, rows: Sequence[Row], draft: _Draft) -> None:
    for number, row in enumerate(rows, 1):
        try:
            asked = importer.ask(row, number)
        except DataError as error:
            draft.problems.extend(error.problems)
            continue
        for question in asked:
            before = draft.questions.setdefault(question.id, question)
            if before is not question:
                draft.problems.append(
                    Problem(f"id '{question.id}' was used before, in {before.origin}", row.origin)
                )
            for model, text in question.said.items():
                draft.answers.setdefault(model, {})[question.id] = text
    if not draft.questions and not draft.problems:
        draft.problems.append(Problem("no questions in it"))


def _listen(importer: Importer, path: Path, draft: _Draft) -> None:
    """Enter a file of answers; the n-th answer to a key belongs to the n-th question with it."""
    by_key: dict[str, list[str]] = {}
    for question in draft.questions.values():
        by_key.setdefault(question.key, []).append(question.id)
    seen: Counter[tuple[str, str]] = Counter()
    own: Answers = {}
    for row in read_rows(path, on_problem=draft.problems.append):
        try:
            said = importer.answer(row)
        except DataError as error:
            draft.problems.extend(error.problems)
            continue
        for one in said:
            ids = by_key.get(one.key, [])
            model = one.model or path.name.partition(".")[0]
            at = seen[model, one.key]
            seen[model, one.key] += 1
            if at >= len(ids):
                what = f"no question '{one.key[:40]}'" if not ids else f"a second answer to '{one.key[:40]}'"
                draft.problems.append(Problem(what, row.origin))
            else:
                own.setdefault(model, {})[ids[at]] = one.text
    for model, found in own.items():
        draft.answers[_free(model, found, draft.answers)] = found


def _free(model: str, found: Mapping[str, str], known: Answers) -> str:
    """A name that is not taken by other answers."""
    numbers = (f"{model}-{number}" for number in range(2, len(known) + 3))
    return next(name for name in (model, *numbers) if known.get(name, found) == found)


def _references(draft: _Draft) -> dict[str, str]:
    """The first answer to each question that says something."""
    found: dict[str, str] = {}
    missing = []
    for question in draft.questions:
        said = (answers.get(question, "") for answers in draft.answers.values())
        text = next((one for one in said if one.strip()), "")
        if text:
            found[question] = text
        else:
            missing.append(draft.questions[question])
    cure = "pass files that answer every question: --answers FILE"
    draft.problems += [
        Problem(f"question '{q.id}' has no reference answer", q.origin, cure=cure) for q in missing
    ]
    return found


def _files(name: str, importer: Importer, draft: _Draft, references: Mapping[str, str]) -> dict[str, str]:
    """Path under the output folder -> text."""
    chosen = next((model for model, own in draft.answers.items() if own == references), MIXED)
    voices = {**draft.answers, chosen: dict(references)}
    folders = {model: _folder(model) for model in voices}
    if len(set(folders.values())) < len(folders):
        raise DataError(f"models need names that differ as folders, got {', '.join(voices)}")
    files = {
        f"references/{folders[model]}/{name}.jsonl": _jsonl({"id": one, "answer": own[one]} for one in own)
        for model, own in voices.items()
    }
    files[f"prompts/{name}.jsonl"] = _jsonl(_prompt(q, references) for q in draft.questions.values())
    header = {
        "name": name,
        "description": f"imported: {importer.description}, references by {chosen}",
        "prompts": f"../prompts/{name}.jsonl",
        "references": f"../references/{folders[chosen]}/{name}.jsonl",
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items()]
    files[f"suites/{name}.yaml"] = "\n".join([*lines, "metrics: [chrf, rouge_l]", ""])
    return files


def _prompt(question: Question, references: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": question.id, "category": question.category}
    if len(question.turns) == 1:
        row["prompt"] = question.turns[0]
    else:
        between = [references[name] for name in question.earlier]
        row["messages"] = [{"role": "user", "content": question.turns[0]}]
        for answer, turn in zip(between, question.turns[1:], strict=True):
            row["messages"] += [{"role": "assistant", "content": answer}, {"role": "user", "content": turn}]
    return {**row, **({"cluster": question.cluster} if question.cluster else {}), **question.fields}


def _folder(model: str) -> str:
    return re.sub(r"[^\w.+-]", "_", model).lstrip(".") or "model"


def _jsonl(rows: Iterator[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.encode("utf-8", "backslashreplace"))


def _raise(problems: Sequence[Problem]) -> None:
    if problems:
        rest = len(problems) - SHOWN_PROBLEMS
        more = [Problem(f"... and {rest} more")] if rest > 0 else []
        raise DataError.collect([*problems[:SHOWN_PROBLEMS], *more])
