"""Files of rows -> conversations, checked and placed on their side, before any of them is encoded.

Everything that can be known without a tokenizer is found here, in one pass over
all rows, so that a user hears of every broken row at once and within seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_kit.catalogue import FORMATS
from lora_kit.data.account import Account
from lora_kit.data.checks import Problems, blank_answer, has_blank_question, has_nul
from lora_kit.data.format import Format
from lora_kit.data.sources import read_rows
from lora_kit.data.split import content_key, exact_key, is_held_out
from lora_kit.data.types import Conversation, Row
from lora_kit.errors import DataError, Problem
from lora_kit.recipe.schema import DataSpec


@dataclass(slots=True)
class Planned:
    """One conversation on its way.

    Args:
        conversation: From one row.
        key: Its `content_key`.
        held_out: Whether it is for validation.
        lost: Why it is left out; empty if it isn't.
    """

    conversation: Conversation
    key: bytes
    held_out: bool
    lost: str = ""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row that was read, with all that its format made of it."""

    origin: str
    conversations: list[Planned]


class Gatherer:
    """One pass over the files of a recipe.

    Args:
        spec: The recipe's data section, its paths absolute.
        account: The books, which are kept on the way.
        problems: Where broken rows are collected.
    """

    def __init__(self, spec: DataSpec, account: Account, problems: Problems) -> None:
        self.spec = spec
        self.account = account
        self.problems = problems
        self.format: Format = FORMATS[spec.format]
        self.files = [("train", Path(spec.train))]
        if spec.validation is not None:
            self.files.append(("validation", Path(spec.validation)))
        self.seen: set[bytes] = set()

    def rows(self) -> list[PlannedRow]:
        """Read, convert and check the rows of all files, in order.

        Raises:
            MachineError: A file can't be read.
        """
        names = {path.name for _, path in self.files}
        rows: list[PlannedRow] = []
        for role, path in self.files:
            name = path.name if len(names) == len(self.files) else f"{path.parent.name}/{path.name}"
            try:
                for row in read_rows(path, limit=self.spec.limit, name=name, on_problem=self._bad_row):
                    rows += self._plan(row, role)
            except DataError as error:
                self.problems.add(error.problems)
        self._mark_overlap(rows)
        return rows

    def _bad_row(self, problem: Problem) -> None:
        self.account.rows_read += 1
        self.problems.add([problem])

    def _plan(self, row: Row, role: str) -> list[PlannedRow]:
        self.account.rows_read += 1
        try:
            conversations = self.format.convert(row)
        except DataError as error:
            self.problems.add(error.problems)
            return []
        if "category" in self.format.optional and row.fields.get("category"):
            self.account.categories[row.fields["category"]] += 1
        return [PlannedRow(row.origin, [self._place(conversation, role) for conversation in conversations])]

    def _place(self, conversation: Conversation, role: str) -> Planned:
        self._count(conversation)
        key = content_key(conversation)
        if self.spec.validation is None:
            held_out = is_held_out(key, self.spec.validation_fraction, group=conversation.group)
        else:
            held_out = role == "validation"
        return Planned(conversation, key, held_out, self._blank(conversation))

    def _count(self, conversation: Conversation) -> None:
        key = exact_key(conversation)
        if key in self.seen:
            self.account.duplicates.add(conversation.origin)
        self.seen.add(key)
        if has_blank_question(conversation):
            self.account.empty_prompts.add(conversation.origin)
        if has_nul(conversation):
            self.account.nul_characters.add(conversation.origin)

    def _blank(self, conversation: Conversation) -> str:
        at = blank_answer(conversation)
        if at is None:
            return ""
        if self.spec.on_empty == "error":
            key = self.format.answer if len(conversation.messages) == 2 else f"{self.format.answer}[{at}]"
            cure = "write an answer, or set data.on_empty=drop"
            self.problems.add([Problem("empty answer", conversation.origin, key, cure)])
        return "empty_answer"

    def _mark_overlap(self, rows: Sequence[PlannedRow]) -> None:
        planned = [one for row in rows for one in row.conversations]
        held = {one.key: one.conversation.origin for one in planned if one.held_out}
        for one in planned:
            if one.held_out or one.lost or one.key not in held:
                continue
            one.lost = "overlap_with_validation"
            if self.spec.on_overlap == "error":
                found = f"this row is also a validation row ({held[one.key]})"
                self.problems.add([Problem(found, one.conversation.origin, cure="set data.on_overlap=drop")])
