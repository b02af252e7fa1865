import pytest

from lora_kit.catalogue import JUDGES
from lora_kit.errors import RecipeError
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judging.backend import Question
from lora_kit.harness.judging.budget import Budget, Spending, estimate_cost, require_affordable
from lora_kit.harness.judging.kind import Prompt, Showing


def question(characters, max_tokens=100):
    body = {"messages": [{"role": "user", "content": "x" * characters}], "max_tokens": max_tokens}
    showing = Showing(Prompt("q", "", "q", "Q"), ("a", "b"), ("1", "2"))
    return Question("key", JUDGES["pairwise"], showing, body, 1)


def test_the_estimate_is_an_upper_end_and_says_how_it_was_made():
    estimate = estimate_cost([question(4000)] * 10, Budget(10.0, 30.0, None))
    assert (estimate.requests, estimate.prompt_tokens, estimate.completion_tokens) == (10, 10_000, 1000)
    assert estimate.cost == pytest.approx(0.1 + 0.03)
    assert "an estimate: characters / 4" in str(estimate)
    assert "at most 0.13" in str(estimate)


def test_without_prices_there_is_no_cost():
    assert estimate_cost([question(4000)], Budget()).cost is None


@pytest.mark.parametrize("prices", [{}, {"price_in": 1.0}, {"price_out": 1.0}])
def test_a_limit_needs_prices(prices):
    with pytest.raises(RecipeError, match="--max-cost needs prices"):
        Budget(max_cost=1.0, **prices)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_prices_are_numbers(value):
    with pytest.raises(RecipeError, match="from 0 on"):
        Budget(price_in=value, price_out=1.0)


def test_too_expensive_is_refused():
    budget = Budget(10.0, 30.0, 0.1)
    with pytest.raises(RecipeError, match=r"could cost more than --max-cost 0\.1: 10 requests"):
        require_affordable(estimate_cost([question(4000)] * 10, budget), budget)
    require_affordable(estimate_cost([question(4000)], budget), budget)


def test_reminders_are_paid_out_of_what_is_left():
    spending = Spending(Budget(10.0, 30.0, 0.02))
    assert spending.leaves_room([question(4000)])
    spending.note(question(4000), ChatReply("1", prompt_tokens=1000, completion_tokens=50))
    assert spending.cost == pytest.approx(0.0115)
    assert not spending.leaves_room([question(4000)])


def test_a_server_that_does_not_count_is_counted_for():
    spending = Spending(Budget())
    spending.note(question(400), ChatReply("x" * 40))
    assert spending.to_json() == {"prompt_tokens": 100, "completion_tokens": 10, "cost": None}
