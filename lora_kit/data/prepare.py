"""Files of rows -> examples to train on and to validate with, and a report that accounts for every row.

A row is left out only where a policy of the recipe says so, and then it is counted and listed; anything
else that is wrong is an error that names the row. Rows stream by twice, first to be checked and placed,
then to be encoded into a file that is mapped and kept: memory does not grow with the examples.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.data.account import Account, DataReport, measure
from lora_kit.data.cache import ROWS, Notes, encoded_dir, entry_key, kept
from lora_kit.data.checks import Problems
from lora_kit.data.encode_rows import ConversationEncoder, Progress, RowEncoder, changed, planned_rows
from lora_kit.data.gather import Gatherer
from lora_kit.data.overlap import SuiteText, fingerprint_of
from lora_kit.data.row_file import Blocks, Examples
from lora_kit.data.row_writer import RowWriter
from lora_kit.errors import DataError
from lora_kit.recipe.schema import DataSpec


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A `DataReport` as it was written down."""

    values: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return copy.deepcopy(self.values)


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Everything that training needs of the data.

    Args:
        train: Examples in the order of the file.
        validation: Examples held out, in the order of the file.
        report: What became of every row.
        fingerprint: sha256 (hex) of all token ids and flags, in order, and of their sides.
    """

    train: Examples
    validation: Examples
    report: StoredReport
    fingerprint: str


def prepare_data(
    spec: DataSpec,
    encoder: ConversationEncoder,
    *,
    on_progress: Progress | None = None,
    cache: Path | None = None,
    suites: Sequence[SuiteText] = (),
) -> PreparedData:
    """Read, convert, check, split and encode the rows of a recipe, unless that was done before.

    Args:
        spec: The recipe's data section, its paths absolute.
        encoder: What turns a conversation into tokens.
        on_progress: Called with (conversations encoded, conversations in all).
        cache: Folder of encoded rows; `encoded_dir()` if absent.
        suites: Items of the evaluation suites; the report says what of them is in the training rows.

    Raises:
        DataError: Rows are wrong (all of them, the first 20 in full), or none is left.
        MachineError: A file can't be read, or encoded rows can't be written.
    """
    preparation = _Preparation(spec, encoder, on_progress, suites)
    key = entry_key(spec, encoder.fingerprint, [*preparation.sources, *fingerprint_of(suites)])
    blocks, notes, is_new = kept(key, preparation.fill, folder=cache or encoded_dir())
    train, validation = blocks.side(held_out=False), blocks.side(held_out=True)
    if on_progress and not is_new:
        rows = len(train) + len(validation)
        on_progress(rows, rows)
    return PreparedData(train, validation, StoredReport(notes["report"]), notes["fingerprint"])


class _Preparation:
    """The way from rows to a file of examples."""

    def __init__(
        self,
        spec: DataSpec,
        encoder: ConversationEncoder,
        on_progress: Progress | None,
        suites: Sequence[SuiteText],
    ) -> None:
        self.spec = spec
        self.encoder = encoder
        self.on_progress = on_progress
        self.account, self.problems = Account(), Problems()
        self.gatherer = Gatherer(spec, self.account, self.problems, suites)
        self.sources = self._sources()

    def _sources(self) -> tuple[dict[str, str], ...]:
        try:
            return self.gatherer.sources()
        except DataError:
            self.gatherer.survey()  # meets it too, and whatever else is wrong
            self.problems.raise_if_any()
            raise

    def fill(self, folder: Path) -> Notes:
        """Write the examples into a folder; return the report and the fingerprint."""
        ledger = self.gatherer.survey()
        self.problems.raise_if_any()
        with RowWriter(folder / ROWS) as writer:
            encoder = RowEncoder(self.spec, self.encoder, self.account, self.problems, writer)
            rows = planned_rows(self.gatherer.again(), ledger)
            encoder.encode(rows, ledger.kept, self.on_progress)
            self.problems.raise_if_any()
            self._refuse_nothing(writer)
            fingerprint = writer.fingerprint()
        if self.gatherer.sources() != self.sources:
            raise changed(self.spec.train)
        report = self._report(Blocks.open(folder / ROWS), writer.trained_tokens)
        return {"report": report.to_json() | self.gatherer.details(), "fingerprint": fingerprint}

    def _report(self, blocks: Blocks, trained_tokens: int) -> DataReport:
        train, validation = blocks.side(held_out=False), blocks.side(held_out=True)
        both = train + validation
        form = self.gatherer.format
        return DataReport(
            account=self.account,
            format=form.name if form else self.spec.format,
            format_reason=self.gatherer.why,
            sources=self.sources,
            encoder_fingerprint=self.encoder.fingerprint,
            train_rows=len(train),
            validation_rows=len(validation),
            lengths=measure(both.lengths, trained_tokens, lambda at: both[at].origin),
        )

    def _refuse_nothing(self, writer: RowWriter) -> None:
        """Raise unless there is something to train on, and to validate with where a file was given."""
        train, validation = writer.rows[False], writer.rows[True]
        role, path = self.gatherer.files[-1 if train else 0]
        if train and (validation or role == "train"):
            return
        held = f"{validation:,} held out for validation" if validation else ""
        parts = ", ".join(part for part in (self.account.breakdown(), held) if part)
        raise DataError(f"no rows are left for {role}: {parts}", where=str(path))
