"""From scores to the next token: the likeliest, or a sample that depends on its own row alone.

Temperature, then the k likeliest, then the nucleus (arXiv 1904.09751): the order of transformers' generate().
"""

from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from lora_kit.errors import ModelError

BLOCK = 256  # scores that are searched at once: torch's max is 20 times as quick as its argmax
LIKELY = 512  # a nucleus is seldom larger, and sorting a vocabulary for each row costs as much as the model


@dataclass(frozen=True, slots=True)
class Choice:
    """How a token is chosen.

    Args:
        temperature: 0 always takes the likeliest token; above, the scores are divided by it.
        top_p: Sample from the likeliest tokens that make up this share; 1 for all.
        top_k: Sample from so many of the likeliest tokens; 0 for all.
        seed: Of the samples.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


GREEDY = Choice()


def row_generator(seed: int, row: int) -> torch.Generator:
    """Randomness of one row: a function of seed and row, whatever else is answered at the same time."""
    digest = sha256(f"{seed}:{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def likeliest(scores: Tensor) -> list[int]:
    """Return the likeliest token of each row; of equals the first.

    Args:
        scores: Float ``(B, V)``.

    Raises:
        ModelError: A row's largest score is NaN or infinite.
    """
    tokens = _argmax(scores)[:, None]
    if not torch.isfinite(scores.gather(1, tokens)).all():  # argmax finds NaN before any number
        raise _not_finite()
    chosen: list[int] = tokens[:, 0].tolist()
    return chosen


def _argmax(scores: Tensor) -> Tensor:
    """Return the first of the largest scores of each row, or of those that are NaN; int64 ``(B,)``."""
    if scores.shape[1] % BLOCK:
        return scores.argmax(dim=-1)
    blocks = scores.unflatten(1, (-1, BLOCK))
    columns = scores.stride(0) == 1  # as decoding makes them: the other order takes 13 times as long
    best = blocks.permute(1, 2, 0).amax(1).argmax(0) if columns else blocks.amax(2).argmax(1)
    within = blocks[torch.arange(len(scores), device=scores.device), best].argmax(1)
    return best * BLOCK + within


def sample(scores: Tensor, choice: Choice, random: torch.Generator) -> int:
    """Choose one token.

    Args:
        scores: Float ``(V,)``, on the CPU.
        choice: How; at temperature 0 ``random`` is not touched.
        random: Where one number is drawn.

    Raises:
        ModelError: A score is NaN or infinite.
    """
    if not torch.isfinite(scores).all():
        raise _not_finite()
    if choice.temperature == 0.0:
        return int(scores.argmax())
    scores = scores.double()
    # The largest score becomes 0, so that a tiny temperature can't overflow.
    weights = torch.exp((scores - scores.max()) / choice.temperature)
    weights, tokens = _candidates(weights, choice)
    until = weights.cumsum(0)
    drawn = torch.rand((), dtype=torch.float64, generator=random) * until[-1]
    return int(tokens[min(int(torch.searchsorted(until, drawn, right=True)), len(tokens) - 1)])


def _candidates(weights: Tensor, choice: Choice) -> tuple[Tensor, Tensor]:
    """Return the weights that may be drawn, and their tokens."""
    if choice.top_k:
        weights, tokens = weights.topk(min(choice.top_k, len(weights)))
        total = weights.sum()
    elif choice.top_p >= 1.0:
        return weights, torch.arange(len(weights))
    else:
        total = weights.sum()
        ordered, tokens = weights.topk(min(LIKELY, len(weights)))
        if ordered.sum() < choice.top_p * total:
            ordered, tokens = weights.sort(descending=True, stable=True)
        weights = ordered
    if choice.top_p < 1.0:
        before = weights.cumsum(0) - weights
        kept = max(int((before < choice.top_p * total).sum()), 1)
        weights, tokens = weights[:kept], tokens[:kept]
    return weights, tokens


def _not_finite() -> ModelError:
    return ModelError(
        "the model's scores for the next token are not finite", cure="its weights may hold NaN or infinity"
    )
