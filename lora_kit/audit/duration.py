"""How long the audit of an adapter takes, foretold for a run that has to be over in time."""

from collections.abc import Sequence

from lora_kit.audit.held_out import sample
from lora_kit.audit.stopping import MOST_SECONDS, TRIAL, Prompt, prompts_of
from lora_kit.train.job import Foretold, Known, TrainJob

ANSWERING = 0.05  # of the time that a run has: models that don't stop would take the most
# Bytes of weights a second; assumed.
READING = {"cpu": 10e9, "cuda": 300e9}


def reading_seconds(weights: float, device: str) -> float:
    """Return the seconds that reading all weights (bytes) takes once, as each token of an answer does."""
    return weights / READING.get(device, READING["cuda"])


def most_answering(allotted_seconds: float = float("inf")) -> float:
    """Return the most seconds of answering prompts, of the seconds that the whole run has."""
    return min(MOST_SECONDS, ANSWERING * allotted_seconds)


def longest_answer(prompts: Sequence[Prompt]) -> int:
    """Return how many tokens one after the other are made at most, the trial's among them."""
    return TRIAL + max((prompt.limit for prompt in prompts), default=0)


def audit_seconds(job: TrainJob) -> Foretold:
    """Return what foretells the audit of a run's adapter.

    The loss of some rows is measured in this process, then another one starts, measures it again, and answers
    prompts; as if no answer ended early.
    """
    rows = sample(job.train, job.validation)
    prompts = prompts_of(rows)
    tokens = 2 * sum(len(row.input_ids) for row in rows) + 2 * sum(len(prompt.ids) for prompt in prompts)
    longest = longest_answer(prompts)
    weights = sum(one.numel() * one.element_size() for one in job.model.parameters())
    reading = reading_seconds(weights, job.accelerator.device.type)

    def seconds(known: Known) -> float:
        answers = longest * (reading + len(prompts) * known.token_seconds)
        answers = min(answers, most_answering(known.allotted_seconds))
        return known.starting_seconds + tokens * known.token_seconds + answers

    return seconds
