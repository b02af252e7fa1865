"""The collector of cycles stands still while torch is imported, and goes on as it was."""

import gc
import sys
from collections.abc import Iterator

import pytest

from lora_kit.cli import importing as module
from lora_kit.cli.importing import importing


@pytest.fixture
def collector() -> Iterator[None]:
    was_on = gc.isenabled()
    yield
    gc.unfreeze()
    gc.enable() if was_on else gc.disable()


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_goes_on_as_it_was(
    collector: None, monkeypatch: pytest.MonkeyPatch, was_on: bool
) -> None:
    asked = []
    monkeypatch.setattr(module, "stand_by", lambda: asked.append(1))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    gc.enable() if was_on else gc.disable()
    during = []

    def fail() -> None:
        during.append(gc.isenabled())
        raise ImportError

    with pytest.raises(ImportError), importing():
        fail()
    assert during == [False]
    assert gc.isenabled() is was_on
    assert gc.get_freeze_count() > 0
    assert asked == [1]


def test_where_torch_is_nothing_is_done(collector: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    gc.enable()
    frozen = gc.get_freeze_count()
    with importing():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
