"""Answers to many prompts at once, token by token, with every place in the batch taken.

Prompts are read without padding, longest first, so that memory runs out at once or never; a row that is
finished gives its place at once to the next prompt, which is read beside the others' next tokens (continuous
batching, Orca, OSDI 2022), a beginning that all prompts share, such as a system prompt, is computed once, and
greedy answers go on by several tokens where they repeat what they said. Greedy answers are those of
transformers' ``generate()``, and no answer depends on what is answered beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from lora_kit.model.choose import GREEDY, Choice, likeliest, row_generator, sample
from lora_kit.model.decode import quick_products, read, step, takes_several
from lora_kit.model.draft import Draft, guesses
from lora_kit.model.kv_cache import KeyValueCache, Span

JOIN_TOKENS = 128  # so many tokens of waiting prompts are read beside the next tokens of other rows
READ_TOKENS = 512  # of prompts that are read alone at a time, or one prompt if it is longer
SHORTEST_SHARED = 8  # tokens; below, computing them again costs less than the extra pass

LanguageModel: TypeAlias = PreTrainedModel | PeftModel


@dataclass(slots=True)
class Row:
    """A prompt, and its answer as it grows.

    Args:
        index: Which prompt it is.
        prompt: Ids, at least one.
        limit: Most tokens of the answer, at least one.
        random: For samples.
        answer: Ids so far, the stop token included.
        draft: Guesses at the next ids, once there is an answer that may go on by several.
    """

    index: int
    prompt: Sequence[int]
    limit: int
    random: torch.Generator
    answer: list[int] = field(default_factory=list)
    draft: Draft | None = None

    @property
    def known(self) -> int:
        """Tokens whose keys and values are in the cache: the last one of the answer is not."""
        return len(self.prompt) + len(self.answer) - 1

    def accept(self, guess: Sequence[int], chosen: Sequence[int], stop_ids: frozenset[int]) -> None:
        """Add the tokens that follow from right guesses.

        Args:
            guess: What was guessed.
            chosen: What the model chose before each guess, and after the last one.
            stop_ids: Ids that end an answer.
        """
        right = 0
        while right < len(guess) and guess[right] == chosen[right] and guess[right] not in stop_ids:
            right += 1
        added = chosen[: right + 1]
        self.answer += added
        if self.draft is not None:
            self.draft.grow(added)


@dataclass(slots=True)
class Decoding:
    """Prompts that are being answered; :func:`start_decoding` makes it.

    Args:
        model: In evaluation mode while it computes, and always with the same adapter, or none.
        stop_ids: Ids that end an answer.
        choice: How tokens are chosen.
        places: Rows that are answered at once.
        cache: Has one slot more, for the beginning that all prompts share.
        shared: Length of that beginning.
        waiting: Rows that have no place yet, the next one last.
        active: Row n has slot n.
    """

    model: LanguageModel
    stop_ids: frozenset[int]
    choice: Choice
    places: int
    cache: KeyValueCache
    shared: int
    waiting: list[Row]
    active: list[Row] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether there are answers to come."""
        return bool(self.waiting or self.active)

    @torch.no_grad()
    def advance(self) -> list[tuple[int, list[int]]]:
        """Compute until at least one answer is finished.

        Returns:
            ``(index of the prompt, ids)`` of the answers that are finished, the stop id included; empty if
            none is left.

        Raises:
            ModelError: The model's scores are not finite.
        """
        assert not self.model.training, "dropout would change the answers"
        finished: list[Row] = []
        with quick_products(self.model):
            while self.busy and not finished:
                if self._reads_alone():
                    self._read_prompts()
                else:
                    self._step()
                finished = self._take_finished()
        return [(row.index, row.answer) for row in finished]

    def _reads_alone(self) -> bool:
        """Whether waiting prompts have places, and are too long to be read beside other rows' next tokens."""
        free = self.places - len(self.active)
        if not free or not self.waiting:
            return False
        beside = self.active and takes_several(self.model)
        tokens = sum(len(row.prompt) - self.shared for row in self.waiting[-free:])
        return not beside or tokens > JOIN_TOKENS

    def _place(self, most: int) -> list[Row]:
        """Give free places to waiting prompts of together at most so many new tokens, at least to one."""
        new: list[Row] = []
        total = 0
        while self.waiting and len(self.active) < self.places:
            total += len(self.waiting[-1].prompt) - self.shared
            if new and total > most:
                break
            if self.shared:
                self.cache.copy(self.places, len(self.active), self.shared)
            new.append(self.waiting.pop())
            self.active.append(new[-1])
        return new

    def _read_prompts(self) -> None:
        """Read waiting prompts, and choose the first token of each."""
        if self.shared and not self.cache.longest:
            first = Span(self.places, 0, self.shared)
            read(self.model, self.cache, [self.waiting[-1].prompt[: self.shared]], [first])
        start = len(self.active)
        new = self._place(READ_TOKENS)
        tokens = [row.prompt[self.shared :] for row in new]
        spans = [Span(slot, self.shared, len(ids)) for slot, ids in enumerate(tokens, start)]
        self._extend(new, read(self.model, self.cache, tokens, spans))
        self._begin_drafts(new)

    def _step(self) -> None:
        """Go on with every row, past its guesses where the model chooses the same tokens; read what waits."""
        new = self._place(JOIN_TOKENS)
        rows = self.active
        known = [row.known if row.answer else self.shared for row in rows]
        sure = [row.answer[-1:] or row.prompt[self.shared :] for row in rows]
        room = [row.limit - len(row.answer) - 1 for row in rows]
        guessed = guesses([row.draft for row in rows], room, sum(map(len, sure)))
        tokens = [[*ids, *guess] for ids, guess in zip(sure, guessed, strict=True)]
        scores = step(self.model, self.cache, tokens, known, [1 + len(guess) for guess in guessed])
        if not any(guessed):
            self._extend(rows, scores)
        else:
            chosen = iter(likeliest(scores))
            for row, guess in zip(rows, guessed, strict=True):
                row.accept(guess, [next(chosen) for _ in range(len(guess) + 1)], self.stop_ids)
        self._begin_drafts(new)

    def _begin_drafts(self, rows: Sequence[Row]) -> None:
        if self.choice.temperature == 0.0 and takes_several(self.model):
            for row in rows:
                row.draft = Draft([*row.prompt, *row.answer])

    def _extend(self, rows: Sequence[Row], scores: Tensor) -> None:
        """Add one token to each row."""
        if self.choice.temperature == 0.0:
            chosen = likeliest(scores)
        else:
            by_row = zip(scores.cpu(), rows, strict=True)
            chosen = [sample(own, self.choice, row.random) for own, row in by_row]
        for row, token in zip(rows, chosen, strict=True):
            row.accept([], [token], self.stop_ids)

    def _take_finished(self) -> list[Row]:
        """Remove rows that are finished; the last row moves into a slot that became free."""
        finished = []
        for slot in reversed(range(len(self.active))):
            row = self.active[slot]
            if row.answer[-1] in self.stop_ids or len(row.answer) >= row.limit:
                finished.append(row)
                last = self.active.pop()
                if last is not row:
                    self.cache.copy(len(self.active), slot, last.known)
                    self.active[slot] = last
        return finished


def start_decoding(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    stop_ids: frozenset[int],
    *,
    places: int,
    choice: Choice = GREEDY,
) -> Decoding:
    """Prepare to answer prompts; nothing is computed yet.

    Args:
        model: A causal language model, with or without an adapter.
        prompts: Ids of each, at least one.
        limits: Most new tokens of each, at least one; the caller knows how long the context is.
        stop_ids: Ids that end an answer.
        places: Rows in flight.
        choice: How tokens are chosen.
    """
    assert all(prompts), "nothing to read"
    assert all(limit > 0 for limit in limits), "nothing to write"
    rows = [
        Row(index, prompt, limit, row_generator(choice.seed, index))
        for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    rows.sort(key=lambda row: len(row.prompt))
    places = max(1, min(places, len(rows)))
    return Decoding(
        model, stop_ids, choice, places, KeyValueCache(places + 1), _shared_beginning(prompts), rows
    )


def _shared_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, never all of a prompt; 0 where sharing does not pay."""
    if len(prompts) < 3:
        return 0
    # The first and the last in order differ as early as any two do.
    low, high = min(map(list, prompts)), max(map(list, prompts))
    most = min(len(prompt) for prompt in prompts) - 1
    shared = next((at for at in range(most) if low[at] != high[at]), most)
    return shared if shared >= SHORTEST_SHARED else 0
