"""Threads sleep soon only where somebody else computes, and the user's own settings stay."""

import pytest

from lora_kit.cli.threads import SETTINGS, SOON, sleep_soon_if_busy


@pytest.mark.parametrize(("seen", "busy"), [([2], True), ([3, 2], True), ([2, 1], False), ([None], False)])
def test_only_a_busy_machine(seen: list[int | None], busy: bool) -> None:
    looks = iter(range(99))
    environment: dict[str, str] = {}
    found = sleep_soon_if_busy("train", environment, lambda: seen[next(looks) % len(seen)])
    assert found is busy
    assert environment == ({"GOMP_SPINCOUNT": SOON} if busy else {})


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_user_set_stays(name: str) -> None:
    environment = {name: "active"}
    assert not sleep_soon_if_busy("train", environment, lambda: 9)
    assert environment == {name: "active"}


def test_commands_that_do_not_compute_do_not_look() -> None:
    assert not sleep_soon_if_busy("runs", {}, lambda: pytest.fail("looked"))
