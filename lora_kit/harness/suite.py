"""A suite: prompts, reference answers and metrics, from files that people edit.

``eval/suites/NAME.yaml`` names a file of prompts and a file of references, both
JSONL with ids; everything is checked before a model is loaded, and every problem is
reported at once. A suite's fingerprint is that of its content, not of its files.
Rules (``checks``) and a ``weight`` stand with the prompt, since they say what is asked.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from lora_kit.data.format import checked_turns, optional_text
from lora_kit.data.sources import read_rows
from lora_kit.data.types import Conversation, Message, Row
from lora_kit.errors import DataError, Problem
from lora_kit.harness.suite_checks import Check, read_checks
from lora_kit.harness.suite_fields import answers_of, filled, messages_of, weight_of
from lora_kit.harness.suite_header import SuiteHeader, read_header
from lora_kit.recipe.shipped import shipped_dir
from lora_kit.registry import did_you_mean

PROMPT_FIELDS = ("id", "category", "prompt", "context", "messages", "cluster", "weight", "checks")
REFERENCE_FIELDS = ("id", "answer")
SHOWN_PROBLEMS = 20
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One prompt with its reference.

    Args:
        id: Unique in the suite.
        category: For tables.
        messages: What is said up to the point where the model speaks; the last is the user's.
        reference: The answer to compare with, never empty; the first where there are several.
        cluster: Items of one cluster are not independent (one document, one topic); resampled together.
        origin: ``file:row`` of the prompt.
        more_references: Other answers that are as good; a text metric takes the best, a likelihood the first.
        weight: How much it counts in means, more than 0.
        checks: Rules that its answer should keep.
    """

    id: str
    category: str
    messages: tuple[Message, ...]
    reference: str
    cluster: str
    origin: str
    more_references: tuple[str, ...] = ()
    weight: float = 1.0
    checks: tuple[Check, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what a model's result depends on; checks and other references judge what it said."""
        turns = [(m.role, m.content, m.context) for m in self.messages]
        return _hash([turns, self.reference])

    @property
    def references(self) -> tuple[str, ...]:
        """All answers to compare with."""
        return (self.reference, *self.more_references)

    @property
    def prompt(self) -> str:
        """The prompt for people: one turn as it is, several with their speakers."""
        if len(self.messages) == 1:
            return _shown(self.messages[0])
        return "\n\n".join(f"{m.role}: {_shown(m)}" for m in self.messages)

    def with_answer(self, answer: str) -> Conversation:
        """The conversation whose only trained turn is ``answer``."""
        earlier = tuple(Message(m.role, m.content, m.context, train=False) for m in self.messages)
        return Conversation((*earlier, Message("assistant", answer)), self.origin)


@dataclass(frozen=True)
class Suite:
    """Prompts, references and the text metrics to score with."""

    name: str
    description: str
    items: tuple[Item, ...]
    metrics: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all items in order and of the metrics."""
        items = [
            (item.id, item.category, item.cluster, item.fingerprint, *_beyond(item)) for item in self.items
        ]
        return _hash([items, self.metrics])


def list_suites() -> tuple[Suite, ...]:
    """The shipped suites, by name.

    Raises:
        DataError: One of them is broken.
    """
    return tuple(load_suite(str(path)) for path in sorted(_shipped().glob("*.yaml")))


def load_suite(name_or_path: str) -> Suite:
    """Read and check a suite.

    Args:
        name_or_path: Name of a shipped suite, or path of a ``.yaml`` file.

    Raises:
        DataError: There is no such suite, it is empty, or anything in it is wrong (all problems at once).
    """
    path = _find(name_or_path)
    header = read_header(path)
    problems: list[Problem] = []
    prompts = _read(header.prompts, PROMPT_FIELDS, problems)
    references = _read(header.references, REFERENCE_FIELDS, problems)
    items = _join(prompts, references, header, problems)
    if not items and not problems:
        problems.append(Problem("the suite has no prompts", str(header.prompts), cure="add at least one row"))
    if problems:
        rest = len(problems) - SHOWN_PROBLEMS
        shown = problems[:SHOWN_PROBLEMS]
        raise DataError.collect([*shown, Problem(f"... and {rest} more")] if rest > 0 else shown)
    return Suite(header.name, header.description, tuple(items), header.metrics)


def _shipped() -> Path:
    return shipped_dir("eval") / "suites"


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or "/" in name_or_path:
        if path.is_file():
            return path
        raise DataError("no such suite file", where=name_or_path)
    shipped = {entry.stem: entry for entry in sorted(_shipped().glob("*.yaml"))}
    if name_or_path in shipped:
        return shipped[name_or_path]
    hint = did_you_mean(name_or_path, list(shipped))
    cure = f"{hint} known: {', '.join(shipped) or 'none'}, or a path to a .yaml file".strip()
    raise DataError(f"no suite '{name_or_path}'", cure=cure)


def _read(path: Path, fields: Collection[str], problems: list[Problem]) -> dict[str, Row]:
    """Rows of one file by id; whatever is wrong with one is added to ``problems``."""
    rows: dict[str, Row] = {}
    for row in read_rows(path, on_problem=problems.append):
        unknown = [field for field in row.fields if field not in fields]
        for field in unknown:
            hint = did_you_mean(field, list(fields)) or f"known: {', '.join(fields)}"
            problems.append(Problem("unknown field", row.origin, field, hint))
        name = _checked(partial(filled, row, "id"), problems)
        if name in rows:
            problems.append(Problem(f"id '{name}' was used before, in {rows[name].origin}", row.origin, "id"))
        elif name is not None:
            rows[name] = row
    return rows


def _join(
    prompts: Mapping[str, Row], references: Mapping[str, Row], header: SuiteHeader, problems: list[Problem]
) -> list[Item]:
    items = []
    for name, row in prompts.items():
        if name not in references:
            found = f"prompt '{name}' has no reference in {header.references.name}"
            problems.append(Problem(found, row.origin, "id", did_you_mean(name, list(references))))
            continue
        item = _checked(partial(_item, name, row, references[name]), problems)
        if item is not None:
            items.append(item)
    for name, row in references.items():
        if name not in prompts:
            problems.append(
                Problem(f"reference '{name}' has no prompt in {header.prompts.name}", row.origin, "id")
            )
    return items


def _item(name: str, row: Row, reference: Row) -> Item:
    answers = answers_of(reference)
    messages = messages_of(row)
    checked_turns([*messages, Message("assistant", answers[0])], where=row.origin, key="messages")
    cluster = optional_text(row, "cluster") or name
    checks = row.fields.get("checks")
    return Item(
        name,
        filled(row, "category"),
        messages,
        answers[0],
        cluster,
        row.origin,
        more_references=answers[1:],
        weight=weight_of(row),
        checks=() if checks is None else read_checks(checks, where=row.origin),
    )


def _beyond(item: Item) -> tuple[Any, ...]:
    """What only some items have, so that a suite without it keeps the fingerprint that it has always had."""
    if not (item.more_references or item.checks or item.weight != 1.0):
        return ()
    return (item.more_references, item.weight, [dict(check.spec) for check in item.checks])


def _checked(build: Callable[[], T], problems: list[Problem]) -> T | None:
    try:
        return build()
    except DataError as error:
        problems.extend(error.problems)
        return None


def _shown(message: Message) -> str:
    return f"{message.content}\n\n{message.context}" if message.context else message.content


def _hash(value: Sequence[Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
