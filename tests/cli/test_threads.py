"""Threads sleep soon only where somebody else computes, and the user's own settings stay."""

from itertools import cycle

import pytest

from lora_kit.cli import threads
from lora_kit.cli.threads import SETTINGS, SOON, core_is_free, sleep_soon_if_busy


@pytest.mark.parametrize(("seen", "busy"), [([2], True), ([3, 2], True), ([2, 1], False), ([None], False)])
def test_only_a_busy_machine(seen: list[int | None], busy: bool) -> None:
    looks = cycle(seen)
    environment: dict[str, str] = {}
    found = sleep_soon_if_busy("train", environment, lambda: next(looks))
    assert found is busy
    assert environment == ({"GOMP_SPINCOUNT": SOON} if busy else {})


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_user_set_stays(name: str) -> None:
    environment = {name: "active"}
    assert not sleep_soon_if_busy("train", environment, lambda: 9)
    assert environment == {name: "active"}


def test_commands_that_do_not_compute_do_not_look() -> None:
    assert not sleep_soon_if_busy("runs", {}, lambda: pytest.fail("looked"))


@pytest.mark.parametrize(
    ("seen", "free"), [([1], True), ([4, 3], True), ([4], False), ([9, 4], False), ([None], True)]
)
def test_a_core_is_free_where_fewer_threads_run_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, seen: list[int | None], free: bool
) -> None:
    looks = cycle(seen)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    assert core_is_free(lambda: next(looks)) is free


def test_one_core_is_never_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    assert not core_is_free(lambda: None)
