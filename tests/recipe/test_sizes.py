"""Amounts of memory in a recipe."""

import pytest

from lora_kit.recipe.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6GB", 6 * 10**9),
        ("512 MiB", 512 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("0.5 GiB", 2**29),
        ("800MB", 8 * 10**8),
    ],
)
def test_a_size_is_bytes(load, minimal, text, expected):
    spec = load(minimal, f"engine.memory_limit={text}").engine
    assert spec.memory_limit == text
    assert parse_size(spec.memory_limit) == expected


@pytest.mark.parametrize(
    "text", ["6", "6gb", "6 G", "GB", "-6GB", "0GB", "0.0GB", "6,5GB", "6  GB", "1e9", "6GBs", "6KB", "٦GB"]
)
def test_anything_else_is_refused_with_the_cure(refused, minimal, text):
    [problem] = refused(minimal, f"engine.memory_limit={text}")
    assert problem.key == "engine.memory_limit"
    assert "must be text such as 6GB" in problem.found
    assert problem.cure == "write it like 6GB"


@pytest.mark.parametrize("text", ["automatic", "0", "1.5", "-1", "null"])
def test_a_token_budget_is_a_count_or_auto(refused, minimal, text):
    [problem] = refused(minimal, f"train.micro_batch_tokens={text}")
    assert "must be an integer >= 1 or auto" in problem.found


def test_auto_survives_a_dump(load, minimal):
    assert load(minimal, "train.micro_batch_tokens=auto").train.micro_batch_tokens == "auto"
