"""Conversations -> a file of examples, a batch at a time, and the policies for what only a tokenizer tells.

Two batches are encoded side by side, so that one is rendered while the tokenizer, which needs no interpreter
lock, is at work on the other. All else is done in the order of the files: a row is settled in the books once
the fate of all its conversations is known.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from lora_kit.data.account import Account
from lora_kit.data.checks import Problems
from lora_kit.data.ledger import Ledger
from lora_kit.data.row_writer import RowWriter
from lora_kit.data.truncate import cut_prompts
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import DataError, Problem
from lora_kit.recipe.schema import DataSpec

Progress = Callable[[int, int], None]
_THREADS = 2
_BATCH_ROWS = 256
_BATCH_CHARACTERS = 1 << 22


class ConversationEncoder(Protocol):
    """What is needed of an encoder here."""

    @property
    def fingerprint(self) -> str:
        """Tokenizer, template and system prompt, 64 hex."""

    def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
        """Turn conversations into ids and flags; one that can't be encoded becomes a problem in its place."""


@dataclass(slots=True)
class Planned:
    """A conversation on its way.

    Args:
        conversation: From one row.
        held_out: Whether it is for validation.
        fate: None until it is known; empty if it is kept, else why it is left out.
    """

    conversation: Conversation
    held_out: bool
    fate: str | None


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row that was read, with all that its format made of it."""

    origin: str
    conversations: list[Planned]

    @property
    def is_done(self) -> bool:
        """Whether the fate of all its conversations is known."""
        return all(one.fate is not None for one in self.conversations)


def planned_rows(rows: Iterator[tuple[str, list[Conversation]]], ledger: Ledger) -> Iterator[PlannedRow]:
    """Put what the first pass decided beside the rows of the second.

    Raises:
        DataError: The rows are not those of the first pass.
    """
    at = 0
    for origin, conversations in rows:
        planned = []
        for conversation in conversations:
            if at == len(ledger) or ledger.origin(at) != conversation.origin:
                raise changed(origin)
            planned.append(Planned(conversation, ledger.is_held_out(at), ledger.lost(at) or None))
            at += 1
        yield PlannedRow(origin, planned)
    if at < len(ledger):
        raise changed(ledger.origin(at))


def changed(where: str) -> DataError:
    """Build the error for rows that are not what they were a moment ago."""
    return DataError("the rows changed while they were read", where=where, cure="run the command again")


@dataclass(frozen=True, slots=True)
class RowEncoder:
    """Encodes what the policies keep.

    Args:
        spec: The recipe's data section.
        encoder: What turns a conversation into tokens.
        account: The books.
        problems: Where rows that can't be encoded are collected.
        writer: Takes the examples.
    """

    spec: DataSpec
    encoder: ConversationEncoder
    account: Account
    problems: Problems
    writer: RowWriter

    def encode(self, rows: Iterator[PlannedRow], total: int, on_progress: Progress | None) -> None:
        """Encode rows and settle each in the books.

        Args:
            rows: In the order of the files.
            total: Conversations in them that are not left out yet.
            on_progress: Called with (conversations encoded, total).
        """
        waiting: deque[PlannedRow] = deque()
        done = 0
        for batch, results in self._encoded(_batches(rows, waiting)):
            for one, result in zip(batch, self._fitting(batch, results), strict=True):
                self._place(one, result)
            done += len(batch)
            if on_progress and batch:
                on_progress(done, total)
            while waiting and waiting[0].is_done:
                self._settle(waiting.popleft())

    def _encoded(
        self, batches: Iterator[list[Planned]]
    ) -> Iterator[tuple[list[Planned], list[Example | Problem]]]:
        """Encode batches on threads; yields them in order."""
        ahead: deque[tuple[list[Planned], Future[list[Example | Problem]]]] = deque()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="encode") as threads:
            for batch in batches:
                conversations = [one.conversation for one in batch]
                ahead.append((batch, threads.submit(self.encoder.try_encode_many, conversations)))
                if len(ahead) > _THREADS:
                    first, future = ahead.popleft()
                    yield first, future.result()
            for batch, future in ahead:
                yield batch, future.result()

    def _settle(self, row: PlannedRow) -> None:
        lost = [one.fate for one in row.conversations if one.fate]
        self.account.settle(row.origin, kept=len(row.conversations) - len(lost), lost=lost)

    def _place(self, one: Planned, result: Example | Problem | None) -> None:
        one.fate = ""
        if isinstance(result, Example) and any(result.trained):
            self.writer.add(result, held_out=one.held_out)
        elif result is None:
            one.fate = "overlong"
        else:
            nothing = Problem("no token of this row is trained", one.conversation.origin)
            problem = result if isinstance(result, Problem) else nothing
            one.fate = "bad_row"
            if self.spec.on_bad_row == "drop":
                self.account.note([str(problem)])
            else:
                self.problems.add([problem])

    def _fitting(
        self, batch: Sequence[Planned], encoded: Sequence[Example | Problem]
    ) -> list[Example | Problem | None]:
        """Apply the policy for overlong examples to a batch; None stands for what is dropped."""
        conversations = [one.conversation for one in batch]
        results: list[Example | Problem | None] = [*encoded]
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
        """Make examples fit, or say why not."""
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


def _batches(rows: Iterator[PlannedRow], waiting: deque[PlannedRow]) -> Iterator[list[Planned]]:
    """Cut what is to be encoded into batches; every row is put into `waiting` on the way.

    Yields:
        Batches, full in rows or in characters but for the last, which may be empty.
    """
    batch: list[Planned] = []
    characters = 0
    for row in rows:
        waiting.append(row)
        for one in row.conversations:
            if one.fate is None:
                batch.append(one)
                characters += sum(len(said.content) + len(said.context) for said in one.conversation.messages)
            if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    yield batch
