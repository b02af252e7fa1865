"""`lora-kit plan` on the command line: what is said, and what is refused before anything is loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.cli.app import run
from lora_kit.cli.show_plan import duration


@pytest.fixture
def planned(
    tiny_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Plan the tiny recipe for other hardware, which is quick; return what was printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def plan(*options: str) -> str:
        assert run(["plan", str(tiny_recipe()), "--device", "rtx-4090", *options]) == 0
        return capsys.readouterr().out

    return plan


def test_a_plan_for_people(planned: Callable[..., str]) -> None:
    told = planned("--tariff", "0.30EUR/kWh")
    for part in (
        "█",
        "GeForce RTX 4090",
        "not measured",
        "of GPU memory",
        "GGUF",
        "whitepaper",
        "EUR",
        "450 W",
    ):
        assert part in told
    assert "What would help most:" in told or "Nothing that is known" in told


def test_a_plan_for_programs(planned: Callable[..., str]) -> None:
    found = json.loads(planned("--json", "--watts", "200"))
    assert found["how"] == "predicted"
    assert found["energy"]["watts"] == 200
    assert {"low", "likely", "high"} == set(found["seconds"])
    assert all(set(one) >= {"overrides", "seconds", "same_result"} for one in found["changes"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--device", "rtx-3091"], "did you mean 'rtx-3090'"),
        (["--tariff", "-0.3/kWh"], "0.30/kWh"),
        (["--tariff", "0.3/kWh"], "add --watts"),
        (["--watts", "-3"], "watts"),
    ],
)
def test_what_is_mistyped_is_refused(
    options: list[str], told: str, tiny_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(tiny_recipe()), *options]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (3599.9, "1 h 00 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
