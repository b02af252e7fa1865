"""The likeliest token, the nucleus, the k likeliest: what may be drawn, and how often."""

import pytest
import torch

from lora_kit.errors import ModelError
from lora_kit.model.choose import LIKELY, Choice, likeliest, row_generator, sample

SCORES = torch.tensor([0.0, 2.0, 1.0, -50.0])


def drawn(scores: torch.Tensor, choice: Choice, count: int = 100) -> set[int]:
    random = torch.Generator().manual_seed(0)
    return {sample(scores, choice, random) for _ in range(count)}


def test_greedy_touches_no_randomness() -> None:
    random = torch.Generator().manual_seed(0)
    state = random.get_state()
    assert sample(SCORES, Choice(), random) == 1
    assert torch.equal(random.get_state(), state)


@pytest.mark.parametrize(("top_p", "allowed"), [(0.0, {1}), (0.5, {1}), (0.7, {1, 2}), (1.0, {0, 1, 2})])
def test_samples_keep_to_the_nucleus(top_p: float, allowed: set[int]) -> None:
    assert drawn(SCORES, Choice(1.0, top_p)) == allowed


@pytest.mark.parametrize(("top_k", "allowed"), [(1, {1}), (2, {1, 2}), (3, {0, 1, 2}), (9, {0, 1, 2})])
def test_samples_keep_to_the_k_likeliest(top_k: int, allowed: set[int]) -> None:
    assert drawn(SCORES, Choice(1.0, top_k=top_k)) == allowed


def test_the_nucleus_is_a_share_of_the_k_likeliest() -> None:
    even = torch.zeros(10)
    assert len(drawn(even, Choice(1.0, 0.5, 4), 300)) == 2
    assert len(drawn(even, Choice(1.0, 0.5), 300)) == 5


@pytest.mark.parametrize("top_p", [0.5, 0.95])
def test_a_nucleus_larger_than_expected_is_whole(top_p: float) -> None:
    size = 2 * LIKELY
    found = drawn(torch.zeros(size), Choice(1.0, top_p), 12 * LIKELY)
    assert len(found) == pytest.approx(top_p * size, rel=0.01)


def test_samples_come_in_proportion() -> None:
    random = torch.Generator().manual_seed(0)
    found = [sample(SCORES, Choice(2.0), random) for _ in range(1500)]
    wanted = torch.softmax(SCORES / 2.0, 0)
    assert torch.bincount(torch.tensor(found), minlength=4) / 1500 == pytest.approx(wanted, abs=0.05)


def test_a_tiny_temperature_is_greedy() -> None:
    assert drawn(SCORES, Choice(1e-300), 1) == {1}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(ModelError, match="not finite"):
        sample(torch.tensor([0.0, bad]), Choice(), torch.Generator())
    with pytest.raises(ModelError, match="not finite"):
        likeliest(torch.tensor([[1.0, 2.0, 0.0], [0.0, bad, 7.0]]))


def test_the_likeliest_of_each_row() -> None:
    assert likeliest(torch.tensor([[1.0, 2.0], [3.0, 3.0], [-1.0, float("-inf")]])) == [1, 0, 0]


def test_a_rows_randomness_is_a_function_of_seed_and_row() -> None:
    def first(seed: int, row: int) -> float:
        return float(torch.rand((), generator=row_generator(seed, row)))

    assert first(1, 2) == first(1, 2)
    assert len({first(seed, row) for seed in range(3) for row in range(3)}) == 9
