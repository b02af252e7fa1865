"""Energy and money: only from what the user says."""

import pytest

from lora_kit.errors import RecipeError
from lora_kit.planning.energy import Tariff, check_watts, energy_of, parse_tariff


@pytest.mark.parametrize(
    ("text", "price", "currency"),
    [("0.30/kWh", 0.3, ""), ("0.3EUR/kWh", 0.3, "EUR"), (" .25 €/kwh ", 0.25, "€"), ("12/kWh", 12.0, "")],
)
def test_tariffs_as_people_write_them(text: str, price: float, currency: str) -> None:
    assert parse_tariff(text) == Tariff(price, currency)


@pytest.mark.parametrize("text", ["-0.3/kWh", "cheap", "0.3", "/kWh", "0.3/MWh", "nan/kWh", "1e400/kWh", ""])
def test_what_is_no_tariff_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RecipeError, match=r"0\.30/kWh"):
        parse_tariff(text)


@pytest.mark.parametrize("watts", [-5.0, 0.0, float("nan"), float("inf")])
def test_watts_are_above_zero(watts: float) -> None:
    with pytest.raises(RecipeError, match="watts"):
        check_watts(watts)


def test_an_hour_at_a_kilowatt_is_a_kilowatt_hour() -> None:
    found = energy_of(3600.0, 1000.0, Tariff(0.25, "EUR"))
    assert found == {"watts": 1000.0, "kwh": 1.0, "cost": 0.25, "currency": "EUR"}


def test_money_without_watts_is_refused_and_nothing_asked_is_nothing() -> None:
    with pytest.raises(RecipeError, match="add --watts"):
        energy_of(10.0, None, Tariff(0.3))
    assert energy_of(10.0, None, None) is None
    assert (energy_of(10.0, 5.0, None) or {})["cost"] is None
