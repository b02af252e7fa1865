"""Does the model end its answers by itself? A few prompts are answered greedily, with room to spare."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from lora_kit.audit.end_mark import answer_spans
from lora_kit.audit.findings import Finding
from lora_kit.data.types import Example
from lora_kit.model.context import room
from lora_kit.model.generate import start_decoding

NAME = "stops by itself"
PROMPTS = 8
SPARE = 32  # tokens, beyond twice the answer that is known
MOST = 256
LEAST_SHARE = 0.5
MOST_SECONDS = 60.0  # of answering
TRIAL = 8  # tokens of each answer that tell the speed


class Prompt(NamedTuple):
    """What is answered.

    Args:
        ids: The prompt, at least one id.
        limit: Most tokens of the answer.
    """

    ids: Sequence[int]
    limit: int


def prompts_of(rows: Sequence[Example]) -> list[Prompt]:
    """Return the prompts of some rows' last answers, of those whose answers are shortest."""
    found = []
    for row in rows:
        start, end = answer_spans(row)[-1]
        if start:
            found.append((end - start, start, row))
    found.sort(key=lambda one: one[:2])
    return [
        Prompt(row.input_ids[:start], min(MOST, 2 * length + SPARE)) for length, start, row in found[:PROMPTS]
    ]


def check_stopping(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    stop_ids: frozenset[int],
    most_seconds: float = MOST_SECONDS,
) -> tuple[Finding, dict[str, Any]]:
    """Answer prompts, and count the answers that end with a stop token.

    Args:
        model: In evaluation mode.
        prompts: What is answered.
        stop_ids: Ids that end an answer.
        most_seconds: Of answering, as far as that can be told beforehand; the first tokens are made anyway.

    Returns:
        The finding, and its numbers as JSON.
    """
    limits = [room(model.config, len(prompt.ids), prompt.limit) for prompt in prompts]
    asked = [Prompt(prompt.ids, limit) for prompt, limit in zip(prompts, limits, strict=True) if limit > 0]
    if not asked:
        return Finding(NAME, "there is no prompt with room for an answer", "skipped"), {}
    began = time.perf_counter()
    answers, there_is_time_for = _answers(model, asked, TRIAL, stop_ids), TRIAL
    spent = time.perf_counter() - began
    if (more := int((most_seconds - spent) * TRIAL / spent)) > TRIAL:
        answers, there_is_time_for = _answers(model, asked, more, stop_ids), more
    stopped = sum(answer[-1] in stop_ids for answer in answers)
    longest = min(there_is_time_for, max(prompt.limit for prompt in asked))
    numbers = {"prompts": len(asked), "stopped": stopped, "most_tokens": longest}
    found = f"{stopped} of {len(asked)} answers ended within {longest} tokens"
    if stopped >= LEAST_SHARE * len(asked):
        return Finding(NAME, found), numbers
    if there_is_time_for < max(prompt.limit for prompt in asked):
        return Finding(NAME, f"{found}, and there was no time for longer ones", "skipped"), numbers
    cure = "train longer, or see in the report whether its answers only are longer than those of the rows"
    return Finding(NAME, found, "warning", cure=cure), numbers


def _answers(
    model: PreTrainedModel, asked: Sequence[Prompt], most: int, stop_ids: frozenset[int]
) -> list[list[int]]:
    """Answer all prompts side by side, each up to its own limit or to ``most`` tokens."""
    prompts, limits = [prompt.ids for prompt in asked], [min(most, prompt.limit) for prompt in asked]
    decoding = start_decoding(model, prompts, limits, stop_ids, places=len(prompts))
    answers = dict[int, list[int]]()
    while decoding.busy:
        answers |= decoding.advance()
    return [answers[index] for index in range(len(prompts))]
