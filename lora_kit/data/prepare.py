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
from lora_kit.data.gather import Gatherer, Planned, PlannedRow
from lora_kit.data.sources import source_sha256
from lora_kit.data.truncate import cut_prompts
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import DataError, Problem
from lora_kit.recipe.schema import DataSpec

Progress = Callable[[int, int], None]
_BATCH_ROWS = 256


class ConversationEncoder(Protocol):
    """What is needed of an encoder here."""

    @property
    def fingerprint(self) -> str:
        """Tokenizer, template and system prompt, 64 hex."""

    def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
        """Turn conversations into ids and flags; one that can't be encoded becomes a problem in its place."""


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
        format=gatherer.format.name if gatherer.format else spec.format,
        format_reason=gatherer.why,
        sources=tuple(
            {"role": role, "file": path.name, "sha256": source_sha256(path)} for role, path in gatherer.files
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
        planned = [one for row in rows for one in row.conversations if not one.lost]
        for start in range(0, len(planned), _BATCH_ROWS):
            batch = planned[start : start + _BATCH_ROWS]
            for one, result in zip(batch, self._results(batch), strict=True):
                self._place(one, result)
            if on_progress:
                on_progress(start + len(batch), len(planned))
        for row in rows:
            lost = [one.lost for one in row.conversations if one.lost]
            self.account.settle(row.origin, kept=len(row.conversations) - len(lost), lost=lost)

    def _place(self, one: Planned, result: Example | Problem | None) -> None:
        if isinstance(result, Example) and any(result.trained):
            (self.validation if one.held_out else self.train).append(result)
        elif result is None:
            one.lost = "overlong"
        else:
            nothing = Problem("no token of this row is trained", one.conversation.origin)
            problem = result if isinstance(result, Problem) else nothing
            one.lost = "bad_row"
            if self.spec.on_bad_row == "drop":
                self.account.note([str(problem)])
            else:
                self.problems.add([problem])

    def _results(self, batch: Sequence[Planned]) -> list[Example | Problem | None]:
        """Encode a batch; None stands for what is too long and dropped."""
        conversations = [one.conversation for one in batch]
        results: list[Example | Problem | None] = [*self.encoder.try_encode_many(conversations)]
        overlong = {
            at: result
            for at, result in enumerate(results)
            if isinstance(result, Example) and len(result.input_ids) > self.spec.max_tokens
        }
        fitting = self._fit([conversations[at] for at in overlong], list(overlong.values()))
        for at, result in zip(overlong, fitting, strict=True):
            results[at] = result
        return results

    def _fit(
        self, conversations: Sequence[Conversation], examples: Sequence[Example]
    ) -> Sequence[Example | Problem | None]:
        """Apply the policy for overlong examples."""
        policy, limit = self.spec.overlong, self.spec.max_tokens
        if policy == "drop":
            return [None] * len(examples)
        if policy == "error":
            cure = "raise data.max_tokens, or set data.overlong to drop or truncate_prompt"
            more_than = f"tokens, more than data.max_tokens {limit:,}"
            return [Problem(f"{len(one.input_ids):,} {more_than}", one.origin, cure=cure) for one in examples]
        shorter = cut_prompts(conversations, self.encoder.try_encode_many, limit)
        for example in shorter:
            if example is not None:
                self.account.truncated.add(example.origin)
        return shorter

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
