"""What both sides are asked: greedy answers to prompts, and nats of held-out rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lora_kit.assemble import Opened
from lora_kit.data.types import Example
from lora_kit.export.gguf.llama_cpp import LlamaFile

Array = np.ndarray[Any, np.dtype[Any]]
Logits = Callable[[Sequence[int]], Array]


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked.

    Args:
        prompts: Token ids.
        rows: Held-out rows.
        stops: Ids that end an answer.
        limit: Most tokens of an answer.
    """

    prompts: tuple[tuple[int, ...], ...]
    rows: tuple[Example, ...]
    stops: frozenset[int]
    limit: int

    @property
    def context(self) -> int:
        """Room that the longest of all needs."""
        answers = max(len(prompt) for prompt in self.prompts) + self.limit
        return max(answers, *(len(row.input_ids) for row in self.rows))


@dataclass(frozen=True)
class Answers:
    """What a side says.

    Args:
        greedy: Token ids of the answers, end marks included.
        nats: Mean over the trained tokens of the held-out rows.
    """

    greedy: tuple[tuple[int, ...], ...]
    nats: float

    @cached_property
    def perplexity(self) -> float:
        """Of the held-out rows' answers."""
        return float(np.exp(self.nats))


class Ours:
    """The model as lora_kit has it, in float32."""

    def __init__(self, opened: Opened) -> None:
        self._model = opened.model

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Array:
        """Logits of every position, float32 ``(tokens, vocabulary)``."""
        found = self._model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
        values: Array = found.float().numpy()
        return values

    @torch.no_grad()
    def greedy(self, prompt: Sequence[int], stops: frozenset[int], limit: int) -> list[int]:
        """The most likely token, again and again; the end mark is included."""
        seen = self._model(input_ids=torch.tensor([list(prompt)]), use_cache=True)
        answer = [int(seen.logits[0, -1].argmax())]
        while answer[-1] not in stops and len(answer) < limit:
            last = torch.tensor([answer[-1:]])
            seen = self._model(input_ids=last, past_key_values=seen.past_key_values, use_cache=True)
            answer.append(int(seen.logits[0, -1].argmax()))
        return answer

    def answers(self, questions: Questions) -> Answers:
        """Answer everything."""
        greedy = [self.greedy(p, questions.stops, questions.limit) for p in questions.prompts]
        return Answers(tuple(map(tuple, greedy)), mean_nats(questions.rows, self.logits))


def ask_llama(path: Path, questions: Questions, *, adapter: Path | None, threads: int) -> Answers:
    """Have llama.cpp answer everything with a file."""
    with LlamaFile(path, context=questions.context, adapter=adapter, threads=threads) as file:
        greedy = [file.greedy(p, stops=questions.stops, limit=questions.limit) for p in questions.prompts]
        return Answers(tuple(map(tuple, greedy)), mean_nats(questions.rows, file.logits))


def mean_nats(rows: Sequence[Example], logits: Logits) -> float:
    """Nats a trained token."""
    total, count = 0.0, 0
    for row in rows:
        targets = np.flatnonzero(row.trained)
        targets = targets[targets > 0]
        before = logits(row.input_ids)[targets - 1].astype(np.float64)
        wanted = before[np.arange(len(targets)), np.array(row.input_ids)[targets]]
        largest = before.max(axis=-1)
        total += float((largest + np.log(np.exp(before - largest[:, None]).sum(axis=-1)) - wanted).sum())
        count += len(targets)
    return total / count


def gaps(questions: Questions, wanted: Answers, found: Answers, logits: Logits) -> dict[int, float]:
    """For each prompt that is answered otherwise: by how much the first other token is less likely to us.

    Returns:
        Number of the prompt to the difference of our logits at that place.
    """
    differing = {}
    for number, (prompt, ours, theirs) in enumerate(
        zip(questions.prompts, wanted.greedy, found.greedy, strict=True)
    ):
        if ours == theirs:
            continue
        at = next(n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
        last = logits((*prompt, *ours[:at]))[-1]
        differing[number] = float(last[ours[at]] - last[theirs[at]])
    return differing
