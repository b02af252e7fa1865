"""Files of rows -> conversations, checked and placed on their side, before any of them is encoded.

Everything that can be known without a tokenizer is found here, in one pass over
all rows, so that a user hears of every broken row at once and within seconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from lora_kit.catalogue import FORMATS
from lora_kit.data.account import Account
from lora_kit.data.checks import Problems, blank_answer, has_blank_question, has_nul, is_duplicate
from lora_kit.data.columns import check_fields, in_own_words, renamed, with_options
from lora_kit.data.format import Format
from lora_kit.data.recognise import LOOKED_AT_ROWS, recognise
from lora_kit.data.sources import read_rows
from lora_kit.data.split import content_key, group_key, is_held_out
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
        self.files = [("train", Path(spec.train))]
        if spec.validation is not None:
            self.files.append(("validation", Path(spec.validation)))
        self.format: Format | None = None if spec.format == "auto" else self._ready(FORMATS[spec.format])
        self.why = "named in the recipe"
        self.seen: dict[bytes, Conversation] = {}
        self.variants: dict[bytes, list[Conversation]] = {}

    def rows(self) -> list[PlannedRow]:
        """Read, convert and check the rows of all files, in order.

        Raises:
            RecipeError: `data.fields` or `data.options` don't belong to the format.
            MachineError: A file can't be read.
        """
        names = {path.name for _, path in self.files}
        rows: list[PlannedRow] = []
        for role, path in self.files:
            name = path.name if len(names) == len(self.files) else f"{path.parent.name}/{path.name}"
            try:
                rows += self._file(path, name, role)
            except DataError as error:
                self.problems.add(error.problems)
        self._mark_overlap(rows)
        return rows

    def _file(self, path: Path, name: str, role: str) -> Iterator[PlannedRow]:
        read = read_rows(path, limit=self.spec.limit, name=name, on_problem=self.bad_row)
        rows = renamed(read, self.spec.fields)
        if self.format is None:
            first = list(islice(rows, LOOKED_AT_ROWS))
            if not first:
                return
            form, self.why = recognise(first, str(path))
            self.format = self._ready(form)
            rows = chain(first, rows)
        if self.format.join:
            rows = self.format.join(rows, self.bad_row)
        for row in rows:
            try:
                yield self._plan(row, self.format, role)
            except DataError as error:
                self.bad_row(*error.problems)

    def _ready(self, form: Format) -> Format:
        check_fields(form, self.spec.fields)
        return with_options(form, self.spec.options)

    def bad_row(self, *problems: Problem) -> None:
        """Enter a row that gives nothing, as the recipe's policy wants it."""
        self.account.rows_read += 1
        told = [in_own_words(problem, self.spec.fields) for problem in problems]
        if self.spec.on_bad_row == "drop":
            self.account.settle(told[0].where, kept=0, lost=["bad_row"])
            self.account.note(map(str, told))
        else:
            self.problems.add(told)

    def _plan(self, row: Row, form: Format, role: str) -> PlannedRow:
        conversations = form.convert(row)
        planned = [self._place(conversation, form, role) for conversation in conversations]
        self.account.rows_read += 1
        self.account.conversations += len(planned)
        if "category" in form.optional and row.fields.get("category"):
            self.account.categories[row.fields["category"]] += 1
        if form.count:
            self.account.counts.update(form.count(row))
        return PlannedRow(row.origin, planned)

    def _place(self, conversation: Conversation, form: Format, role: str) -> Planned:
        key = content_key(conversation)
        self._count(conversation, key, form)
        if self.spec.validation is None:
            side_key = group_key(conversation.group) if conversation.group else key
            held_out = is_held_out(side_key, self.spec.validation_fraction)
        else:
            held_out = role == "validation"
        return Planned(conversation, key, held_out, self._blank(conversation, form))

    def _count(self, conversation: Conversation, key: bytes, form: Format) -> None:
        first = self.seen.setdefault(key, conversation)
        if first is not conversation:
            variants = self.variants.setdefault(key, [first])
            if any(is_duplicate(conversation, other) for other in variants):
                self.account.duplicates.add(conversation.origin)
            else:
                variants.append(conversation)
        if form.asks and has_blank_question(conversation):
            self.account.empty_prompts.add(conversation.origin)
        if has_nul(conversation):
            self.account.nul_characters.add(conversation.origin)

    def _blank(self, conversation: Conversation, form: Format) -> str:
        at = blank_answer(conversation)
        if at is None:
            return ""
        if self.spec.on_empty == "error":
            key = form.answer if len(conversation.messages) == 2 else f"{form.answer}[{at}]"
            problem = Problem(
                "empty answer", conversation.origin, key, "write one, or set data.on_empty=drop"
            )
            self.problems.add([in_own_words(problem, self.spec.fields)])
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
