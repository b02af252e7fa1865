"""Energy and money, at the price and the power that the user names: nothing here is guessed."""

import math
import re
from dataclasses import dataclass
from typing import Any

from lora_kit.errors import RecipeError

TARIFF = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([^\s\d/]{0,8})\s*/\s*kWh\s*", re.IGNORECASE)
JOULES = 3.6e6  # in a kWh


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a kWh costs.

    Args:
        price: Of one kWh.
        currency: As the user writes it; may be empty.
    """

    price: float
    currency: str = ""


def parse_tariff(text: str) -> Tariff:
    """Read ``0.30/kWh`` or ``0.30 EUR/kWh``.

    Raises:
        RecipeError: It is none.
    """
    found = TARIFF.fullmatch(text)
    if not found:
        cure = "write the price of one kWh, such as 0.30/kWh or 0.30EUR/kWh"
        raise RecipeError(f"'{text}' is no tariff", key="--tariff", cure=cure)
    return Tariff(float(found[1]), found[2])


def check_watts(watts: float | None) -> float | None:
    """Return the watts.

    Raises:
        RecipeError: They are not above zero, or not finite.
    """
    if watts is not None and not (0 < watts < math.inf):
        raise RecipeError(f"{watts:g} watts", key="--watts", cure="say what the machine draws under load")
    return watts


def energy_of(seconds: float, watts: float | None, tariff: Tariff | None) -> dict[str, Any] | None:
    """Return ``watts``, ``kwh``, ``cost`` and ``currency``; None without watts, no cost without a tariff.

    Raises:
        RecipeError: There is a tariff and nothing to multiply it with.
    """
    if watts is None:
        if tariff is not None:
            cure = "add --watts, what the machine draws under load"
            raise RecipeError("money needs watts as well", key="--tariff", cure=cure)
        return None
    kwh = seconds * watts / JOULES
    cost = None if tariff is None else kwh * tariff.price
    return {"watts": watts, "kwh": kwh, "cost": cost, "currency": tariff.currency if tariff else ""}
