"""Files of rows -> examples to train on and to validate with, and a report that accounts for every row.

A row is left out only where a policy of the recipe says so, and then it is
counted and listed; anything else that is wrong is an error that names the row.
"""

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lora_kit.data.account import Account, DataReport, measure
from lora_kit.data.checks import Problems
from lora_kit.data.gather import Gatherer, PlannedRow
from lora_kit.data.sources import source_sha256
from lora_kit.data.truncate import cut_prompt
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import DataError, Problem
from lora_kit.recipe.schema import DataSpec

Progress = Callable[[int, int], None]
_PROGRESS_EVERY = 64


class ConversationEncoder(Protocol):
    """What is needed of an encoder here."""

    @property
    def fingerprint(self) -> str:
        """Tokenizer, template and system prompt, 64 hex."""

    def encode(self, conversation: Conversation) -> Example:
        """Turn a conversation into ids and flags."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Everything that training needs of the data.

    Args:
        train: Examples in the order of the file.
        validation: Examples held out, in the order of the file.
        report: What became of every row.
        fingerprint: sha256 (hex) of all token ids and flags, in order, and of their sides.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    report: DataReport
    fingerprint: str


def prepare_data(
    spec: DataSpec, encoder: ConversationEncoder, *, on_progress: Progress | None = None
) -> PreparedData:
    """Read, convert, check, split and encode the rows of a recipe.

    Args:
        spec: The recipe's data section, its paths absolute.
        encoder: What turns a conversation into tokens.
        on_progress: Called with (conversations encoded, conversations in all).

    Raises:
        DataError: Rows are wrong (all of them, the first 20 in full), or none is left.
        MachineError: A file can't be read.
    """
    account, problems = Account(), Problems()
    gatherer = Gatherer(spec, account, problems)
    rows = gatherer.rows()
    problems.raise_if_any()
    desk = _Desk(spec, encoder, account, problems)
    desk.encode(rows, on_progress)
    problems.raise_if_any()
    desk.refuse_nothing(gatherer)
    report = DataReport(
        account=account,
        format=gatherer.format.name,
        sources=tuple(
            {"role": role, "file": str(path), "sha256": source_sha256(path)} for role, path in files
        ),
        encoder_fingerprint=encoder.fingerprint,
        train_rows=len(desk.train),
        validation_rows=len(desk.validation),
        lengths=measure([*desk.train, *desk.validation]),
    )
    return PreparedData(
        tuple(desk.train), tuple(desk.validation), report, _fingerprint(desk.train, desk.validation)
    )


class _Desk:
    """The encoding half: the recipe's policies for what only a tokenizer can tell."""

    def __init__(
        self, spec: DataSpec, encoder: ConversationEncoder, account: Account, problems: Problems
    ) -> None:
        self.spec = spec
        self.encoder = encoder
        self.account = account
        self.problems = problems
        self.train: list[Example] = []
        self.validation: list[Example] = []

    def encode(self, rows: Sequence[PlannedRow], on_progress: Progress | None) -> None:
        """Encode what the policies keep, and settle every row in the books."""
        total = sum(len(row.conversations) for row in rows)
        done = 0
        for row in rows:
            lost: list[str] = []
            for one in row.conversations:
                outcome = one.lost or self._example(one.conversation)
                if isinstance(outcome, str):
                    lost.append(outcome)
                else:
                    (self.validation if one.held_out else self.train).append(outcome)
                done += 1
                if on_progress and (done % _PROGRESS_EVERY == 0 or done == total):
                    on_progress(done, total)
            self.account.settle(row.origin, kept=len(row.conversations) - len(lost), lost=lost)

    def _example(self, conversation: Conversation) -> Example | str:
        """Return the example, or the reason why there is none."""
        try:
            example = self.encoder.encode(conversation)
            if len(example.input_ids) > self.spec.max_tokens:
                return self._overlong(conversation, len(example.input_ids))
        except DataError as error:
            self.problems.add(error.problems)
            return "error"
        if not any(example.trained):
            self.problems.add([Problem("no token of this row is trained", conversation.origin)])
            return "error"
        return example

    def _overlong(self, conversation: Conversation, length: int) -> Example | str:
        policy, limit = self.spec.overlong, self.spec.max_tokens
        if policy == "truncate_prompt":
            shorter = cut_prompt(conversation, self.encoder.encode, limit)
            if shorter is not None:
                self.account.truncated.add(conversation.origin)
                return shorter
        if policy == "error":
            found = f"{length:,} tokens, more than data.max_tokens {limit:,}"
            cure = "raise data.max_tokens, or set data.overlong to drop or truncate_prompt"
            self.problems.add([Problem(found, conversation.origin, cure=cure)])
        return "overlong"

    def refuse_nothing(self, gatherer: Gatherer) -> None:
        """Raise unless there is something to train on, and to validate with where a file was given."""
        role, path = gatherer.files[-1 if self.train else 0]
        if self.train and (self.validation or role == "train"):
            return
        held = f"{len(self.validation):,} held out for validation" if self.validation else ""
        parts = ", ".join(part for part in (self.account.breakdown(), held) if part)
        raise DataError(f"no rows are left for {role}: {parts}", where=str(path))


def _fingerprint(train: Sequence[Example], validation: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for side, examples in ((b"train", train), (b"validation", validation)):
        digest.update(b"%s %d\n" % (side, len(examples)))
        for example in examples:
            digest.update(b"%d\n" % len(example.input_ids))
            digest.update(array("q", example.input_ids).tobytes())
            digest.update(bytes(example.trained))
    return digest.hexdigest()
