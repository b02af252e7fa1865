"""Files of rows -> conversations, checked and placed on their side, before any of them is encoded.

Everything that can be known without a tokenizer is found here, in a first pass over all rows, so that
a user hears of every broken row at once and within seconds. A second pass reads the rows again, to
encode them; between the two only a `Ledger` is kept, never the conversations.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lora_kit.catalogue import FORMATS
from lora_kit.data.account import Account
from lora_kit.data.checks import Problems, blank_answer, has_blank_question, has_nul, said_digest
from lora_kit.data.columns import check_fields, in_own_words, renamed, with_options
from lora_kit.data.format import Format
from lora_kit.data.ledger import Ledger
from lora_kit.data.mix import Source, choose, sources_of
from lora_kit.data.overlap import SuiteText
from lora_kit.data.place import Placer, open_placer
from lora_kit.data.recognise import LOOKED_AT_ROWS, recognise
from lora_kit.data.split import content_key
from lora_kit.data.types import Conversation, Row
from lora_kit.errors import DataError, Problem
from lora_kit.recipe.schema import DataSpec


class Gatherer:
    """Two passes over the files of a recipe.

    Args:
        spec: The recipe's data section, its paths absolute.
        account: The books, which are kept on the way.
        problems: Where broken rows are collected.
        suites: Items of the evaluation suites, which training rows are compared with.
    """

    def __init__(
        self, spec: DataSpec, account: Account, problems: Problems, suites: Sequence[SuiteText] = ()
    ) -> None:
        self.spec = spec
        self.account = account
        self.problems = problems
        self.parts = sources_of(spec)
        for part in self.parts:
            if part.format_name != "auto":
                part.format = _ready(FORMATS[part.format_name], part)
        self.files = [(part.role, Path(part.text)) for part in self.parts if part.role != "mix"]
        self.ledger = Ledger()
        self.placer: Placer = open_placer(spec, self.ledger, problems, suites)

    @property
    def format(self) -> Format | None:
        """Format of data.train, once it is known."""
        return self.parts[0].format

    @property
    def why(self) -> str:
        """Why it is this one."""
        return self.parts[0].why

    @property
    def _in_order(self) -> list[Source]:
        """The sources as they are read: held-out rows first, so that training rows find their relatives."""
        return sorted(self.parts, key=lambda part: part.role != "validation")

    def survey(self) -> Ledger:
        """First pass: read, convert and check the rows of all files, in order, and note what came of them.

        Raises:
            RecipeError: `data.fields` or `data.options` don't belong to the format.
            MachineError: A file can't be read.
        """
        for part in self._in_order:
            try:
                self._recognise(part)
                self._choose(part)
                for row, conversations in self._converted(part, self._bad_row_of(part)):
                    self._enter(row, conversations, part)
            except DataError as error:
                self.problems.add(error.problems)
        self.placer.flush()
        for at in self.ledger.repeats():
            self.account.duplicates.add(self.ledger.origin(at))
        return self.ledger

    def again(self) -> Iterator[tuple[str, list[Conversation]]]:
        """Second pass: yield (origin of the row, its conversations) in the same order, without broken rows.

        Raises:
            DataError: A file is not what it was.
            MachineError: A file can't be read.
        """
        for part in self._in_order:
            for row, conversations in self._converted(part, _ignore):
                yield row.origin, conversations

    def sources(self) -> tuple[dict[str, str], ...]:
        """Name everything that is read, with the sha256 of its content.

        Raises:
            DataError: A file is missing, or is none.
            MachineError: A file can't be read.
        """
        return tuple(part.describe() for part in self.parts)

    def details(self) -> dict[str, Any]:
        """Return what the report says besides the books, after the first pass."""
        return self.placer.to_json() | {
            "mix": [part.account() for part in self.parts] if self.spec.mix else []
        }

    def _converted(
        self, part: Source, bad_row: Callable[..., None]
    ) -> Iterator[tuple[Row, list[Conversation]]]:
        is_first_pass = bad_row is not _ignore
        for at, row in enumerate(self._rows(part, bad_row)):
            assert part.format is not None
            if part.chosen is not None and not part.chosen[min(at, len(part.chosen) - 1)]:
                if is_first_pass:
                    self._leave(row)
                continue
            try:
                conversations = part.format.convert(row)
            except DataError as error:
                bad_row(*error.problems)
            else:
                yield row, conversations

    def _rows(self, part: Source, bad_row: Callable[..., None]) -> Iterator[Row]:
        """Yield a source's rows under the format's field names, none if its format can't be told."""
        rows = renamed(part.read(self.spec.limit, bad_row), part.fields)
        if part.format is None:  # then no row could be read, which is told here
            yield from islice(rows, 0)
            return
        yield from part.format.join(rows, bad_row) if part.format.join else rows

    def _recognise(self, part: Source) -> None:
        """Tell the format from the first rows; held-out rows have the format of data.train."""
        train = self.parts[0]
        if part.role == "validation" and part.format is None:
            try:
                self._recognise(train)
            except DataError:
                return  # met again when its turn comes
            part.format = train.format and _ready(train.format, part)
        if part.format is None:
            read = part.read(self.spec.limit, _ignore)
            first = list(islice(renamed(read, part.fields), LOOKED_AT_ROWS))
            if first:
                form, part.why = recognise(first, part.text)
                part.format = _ready(form, part)

    def _choose(self, part: Source) -> None:
        if part.share is None:
            return
        total = sum(1 for _ in self._rows(part, _ignore))
        wanted = part.wanted(total, self.parts[0].rows)
        part.chosen = choose(total, wanted, part.share.seed) if wanted < total else None

    def _leave(self, row: Row) -> None:
        self.account.rows_read += 1
        self.account.settle(row.origin, kept=0, lost=["not_in_mix"])

    def _bad_row_of(self, part: Source) -> Callable[..., None]:
        """How a row of this source that gives nothing is entered."""

        def bad_row(*problems: Problem) -> None:
            part.rows += 1
            part.bad_rows += 1
            self._bad_row(part, problems)

        return bad_row

    def _bad_row(self, part: Source, problems: Sequence[Problem]) -> None:
        """Enter a row that gives nothing, as the recipe's policy wants it."""
        self.account.rows_read += 1
        told = [in_own_words(problem, part.fields) for problem in problems]
        if self.spec.on_bad_row == "drop":
            self.account.settle(told[0].where, kept=0, lost=["bad_row"])
            self.account.note(map(str, told))
        else:
            self.problems.add(told)

    def _enter(self, row: Row, conversations: list[Conversation], part: Source) -> None:
        form = part.format
        assert form is not None
        self.account.rows_read += 1
        self.account.conversations += len(conversations)
        part.rows += 1
        part.taken += 1
        part.conversations += len(conversations)
        if "category" in form.optional and row.fields.get("category"):
            self.account.categories[row.fields["category"]] += 1
        if form.count:
            self.account.counts.update(form.count(row))
        for conversation in conversations:
            self._place(conversation, form, part)

    def _place(self, conversation: Conversation, form: Format, part: Source) -> None:
        key = content_key(conversation)
        held_out = part.role == "validation"
        at = self.ledger.enter(conversation, key=key, digest=said_digest(conversation), held_out=held_out)
        self._count(conversation, form)
        if blank := self._blank(conversation, form, part):
            self.ledger.lose(at, blank)
        self.placer.add(at, conversation, key, part.role)

    def _count(self, conversation: Conversation, form: Format) -> None:
        if form.asks and has_blank_question(conversation):
            self.account.empty_prompts.add(conversation.origin)
        if has_nul(conversation):
            self.account.nul_characters.add(conversation.origin)

    def _blank(self, conversation: Conversation, form: Format, part: Source) -> str:
        at = blank_answer(conversation)
        if at is None:
            return ""
        if self.spec.on_empty == "error":
            key = form.answer if len(conversation.messages) == 2 else f"{form.answer}[{at}]"
            problem = Problem(
                "empty answer", conversation.origin, key, "write one, or set data.on_empty=drop"
            )
            self.problems.add([in_own_words(problem, part.fields)])
        return "empty_answer"


def _ready(form: Format, part: Source) -> Format:
    check_fields(form, part.fields)
    return with_options(form, part.options)


def _ignore(*_: Problem) -> None:
    """Drop problems that the first pass has told."""
