"""What a judge will cost, before the first request: an estimate that errs upwards, and a limit.

Tokens are characters / 4, which is an estimate for English and says so; every reply is
taken to be as long as it may be. Reminders are paid out of what is left.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lora_kit.errors import RecipeError
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judging.backend import Question

CHARACTERS_PER_TOKEN = 4
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """Prices and a limit, in any one currency.

    Args:
        price_in: Of a million prompt tokens; None if unknown.
        price_out: Of a million generated tokens.
        max_cost: Most that may be spent by this command; None for no limit.

    Raises:
        RecipeError: A limit without prices, or a negative or infinite number.
    """

    price_in: float | None = None
    price_out: float | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.price_in, self.price_out, self.max_cost) if value is not None]
        if any(not math.isfinite(value) or value < 0 for value in given):
            raise RecipeError("prices and costs are numbers from 0 on")
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            cure = "say what a million tokens cost: --price-in X --price-out Y"
            raise RecipeError("--max-cost needs prices", cure=cure)

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """Money for tokens; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / MILLION


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """Before asking.

    Args:
        requests: First-pass requests that are not in the journal.
        prompt_tokens: Of all of them, characters / 4.
        completion_tokens: Most that can be said in reply.
        cost: Most that it can cost; None without prices.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, with the method."""
        return {**asdict(self), "method": f"characters / {CHARACTERS_PER_TOKEN}, longest replies"}

    def __str__(self) -> str:
        text = (
            f"{self.requests} requests, about {self.prompt_tokens} tokens to read (an estimate: characters / "
            f"{CHARACTERS_PER_TOKEN}) and at most {self.completion_tokens} to write"
        )
        return text if self.cost is None else f"{text}: at most {self.cost:.4g}"


def estimate_cost(questions: Sequence[Question], budget: Budget) -> CostEstimate:
    """Add up what the questions can cost."""
    characters = sum(len(turn["content"]) for question in questions for turn in question.body["messages"])
    prompt_tokens = math.ceil(characters / CHARACTERS_PER_TOKEN)
    limits = ("max_tokens", "max_completion_tokens")
    longest = [
        next((question.body[name] for name in limits if name in question.body), question.kind.max_tokens)
        for question in questions
    ]
    completion_tokens = sum(longest)
    return CostEstimate(
        len(questions), prompt_tokens, completion_tokens, budget.cost(prompt_tokens, completion_tokens)
    )


def require_affordable(estimate: CostEstimate, budget: Budget) -> None:
    """Stop before the first request if the limit could be passed.

    Raises:
        RecipeError: It could.
    """
    if budget.max_cost is not None and estimate.cost is not None and estimate.cost > budget.max_cost:
        cure = "raise --max-cost, lower --max-tokens, or judge fewer prompts"
        raise RecipeError(f"this could cost more than --max-cost {budget.max_cost:g}: {estimate}", cure=cure)


class Spending:
    """What this command has asked and been told.

    Args:
        budget: Prices and limit.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def note(self, question: Question, reply: ChatReply) -> None:
        """Count a reply by the server's own count, or by characters / 4."""
        asked = sum(len(turn["content"]) for turn in question.body["messages"]) // CHARACTERS_PER_TOKEN
        said = len(reply.text) // CHARACTERS_PER_TOKEN
        self.prompt_tokens += asked if reply.prompt_tokens is None else reply.prompt_tokens
        self.completion_tokens += said if reply.completion_tokens is None else reply.completion_tokens

    @property
    def cost(self) -> float | None:
        """Spent so far; None without prices."""
        return self._budget.cost(self.prompt_tokens, self.completion_tokens)

    def leaves_room(self, questions: Sequence[Question]) -> bool:
        """Whether more questions stay below the limit."""
        more = estimate_cost(questions, self._budget).cost
        if self._budget.max_cost is None or more is None:
            return True
        return (self.cost or 0.0) + more <= self._budget.max_cost

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
        }
