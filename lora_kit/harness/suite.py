"""A suite: prompts, reference answers and metrics, from files that people edit.

``eval/suites/NAME.yaml`` names a file of prompts and a file of references, both
JSONL with ids; everything is checked before a model is loaded, and every problem is
reported at once. A suite's fingerprint is that of its content, not of its files.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from lora_kit.data.format import checked_turns, list_field, optional_text, role_of, text_field
from lora_kit.data.sources import read_rows
from lora_kit.data.types import Conversation, Message, Role, Row
from lora_kit.errors import DataError, Problem
from lora_kit.harness.suite_header import SuiteHeader, read_header
from lora_kit.recipe.shipped import shipped_dir
from lora_kit.registry import did_you_mean

PROMPT_FIELDS = ("id", "category", "prompt", "context", "messages", "cluster")
REFERENCE_FIELDS = ("id", "answer")
ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
SHOWN_PROBLEMS = 20
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One prompt with its reference.

    Args:
        id: Unique in the suite.
        category: For tables.
        messages: What is said up to the point where the model speaks; the last is the user's.
        reference: The answer to compare with, never empty.
        cluster: Items of one cluster are not independent (one document, one topic); resampled together.
        origin: ``file:row`` of the prompt.
    """

    id: str
    category: str
    messages: tuple[Message, ...]
    reference: str
    cluster: str
    origin: str

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what a model's result depends on."""
        turns = [(m.role, m.content, m.context) for m in self.messages]
        return _hash([turns, self.reference])

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
        items = [(item.id, item.category, item.cluster, item.fingerprint) for item in self.items]
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
        name = _checked(partial(_filled, row, "id"), problems)
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
    answer = _filled(reference, "answer")
    messages = _messages(row)
    checked_turns([*messages, Message("assistant", answer)], where=row.origin, key="messages")
    cluster = optional_text(row, "cluster") or name
    return Item(name, _filled(row, "category"), messages, answer, cluster, row.origin)


def _messages(row: Row) -> tuple[Message, ...]:
    if ("prompt" in row.fields) == ("messages" in row.fields):
        raise DataError("needs either 'prompt' or 'messages'", where=row.origin)
    if "prompt" in row.fields:
        return (Message("user", _filled(row, "prompt"), optional_text(row, "context")),)
    if "context" in row.fields:
        raise DataError("belongs to 'prompt'; write it into the message", where=row.origin, key="context")
    return tuple(_message(row, index, turn) for index, turn in enumerate(list_field(row, "messages")))


def _message(row: Row, index: int, turn: object) -> Message:
    key = f"messages[{index}]"
    if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
        raise DataError("must be {role, content}", where=row.origin, key=key)
    role = role_of(turn["role"], ROLES, where=row.origin, key=f"{key}.role")
    return Message(role, _filled(Row(turn, f"{row.origin}: {key}"), "content"))


def _filled(row: Row, name: str) -> str:
    text = text_field(row, name)
    if not text.strip():
        raise DataError("is empty", where=row.origin, key=name)
    return text


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
