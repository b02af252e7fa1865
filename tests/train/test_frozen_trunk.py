"""``engine.trunk_cache`` in a run: told beforehand, killed and resumed to the bit, refused in one line."""

import json
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.cli.app import run
from lora_kit.errors import LoraKitError, MachineError, ModelError
from lora_kit.model.trunk import Trunk
from lora_kit.recipe.load import load_recipe
from lora_kit.train import frozen_trunk
from lora_kit.train.observe import Silent
from lora_kit.train_run import train_recipe

TinyRecipe = Callable[..., Path]
ON = {"lora": {"layers": "last-1"}, "engine": {"trunk_cache": "on"}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Phases(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def phase(self, text: str) -> None:
        self.texts.append(text)


def train(recipe: Path, run: Path, *overrides: str, observer: Any = None) -> dict[str, Any]:
    return train_recipe(load_recipe(recipe, overrides), run, observer or Silent())


def digests(run: Path) -> dict[str, str]:
    last = max((run / "checkpoints").glob("step-*"))
    return {
        "adapter": sha256((run / "adapter/adapter_model.safetensors").read_bytes()).hexdigest(),
        "optimizer": sha256((last / "optimizer.safetensors").read_bytes()).hexdigest(),
        "metrics": stable_digest(run / "metrics.jsonl"),
    }


def states(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("trunk/*/*/*") if path.is_file())


def test_it_says_beforehand_what_it_takes_and_takes_no_more(
    tiny_recipe: TinyRecipe, tmp_path: Path, own_cache: Path
) -> None:
    recipe, first, second = tiny_recipe(train={"steps": None, "epochs": 2}, **ON), Phases(), Phases()
    train(recipe, tmp_path / "one", observer=first)
    files = states(own_cache)
    report = json.loads((tmp_path / "one/data_report.json").read_text())
    assert len(files) == 24, report
    total = sum(path.stat().st_size for path in files)
    said = next(text for text in first.texts if "lowest 1 layers" in text)
    assert f"up to {total / 1000:.1f} kB on disk, 0 bytes of it there already" in said
    train(recipe, tmp_path / "two", observer=second)  # a run later starts from it
    assert any(f"{total / 1000:.1f} kB of it there already" in text for text in second.texts)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom"])
def test_a_run_is_the_one_without_it(tiny_recipe: TinyRecipe, tmp_path: Path, family: str) -> None:
    recipe = tiny_recipe(family, lora={"layers": "last-1"})  # with dropout: the draws are the same
    train(recipe, tmp_path / "off")
    train(recipe, tmp_path / "on", "engine.trunk_cache=on")
    off, on = (load_file(tmp_path / run / "adapter/adapter_model.safetensors") for run in ("off", "on"))
    assert off.keys() == on.keys()
    assert all(torch.allclose(off[name], on[name], atol=2e-4) for name in off)


def test_killed_damaged_and_resumed_equals_unbroken(
    tiny_recipe: TinyRecipe,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    forked: Callable[..., Any],
) -> None:
    recipe = tiny_recipe(train={"steps": None, "epochs": 2}, **ON)
    train(recipe, tmp_path / "unbroken")
    whole = {path: path.read_bytes() for path in states(own_cache)}
    for path in whole:
        path.unlink()
    monkeypatch.setenv("LORA_KIT_FAILPOINT", "checkpoint.after_commit=kill")
    killed = forked(lambda: run(["train", str(recipe), "--run-dir", str(tmp_path / "broken")]))
    monkeypatch.delenv("LORA_KIT_FAILPOINT")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    left = states(own_cache)
    assert 0 < len(left) < len(whole)
    assert all(path.read_bytes() == whole[path] for path in left)  # the same bits in another process
    left[0].write_bytes(left[0].read_bytes()[:-1])
    left[1].write_bytes(bytes(left[1].stat().st_size))
    computed = []
    alone = Trunk.row_states
    monkeypatch.setattr(Trunk, "row_states", lambda self, ids: (computed.append(1), alone(self, ids))[1])
    train(recipe, tmp_path / "broken")
    assert digests(tmp_path / "broken") == digests(tmp_path / "unbroken")
    assert len(computed) == len(whole) - len(left) + 2
    assert {path: path.read_bytes() for path in states(own_cache)} == whole


def test_too_little_room_is_one_line_before_training(
    tiny_recipe: TinyRecipe, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_trunk, "free_bytes", lambda _: 5000)
    with pytest.raises(MachineError, match=r"takes .* kB more on disk, and 5\.0 kB are free") as error:
        train(tiny_recipe(**ON), tmp_path / "run")
    assert "or set engine.trunk_cache to off" in str(error.value)
    assert not states(own_cache)


def test_a_place_that_cannot_be_written_is_one_line(
    tiny_recipe: TinyRecipe, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_recipe(), tmp_path / "first")  # fills the rest of the cache
    (own_cache / "trunk").write_text("in the way")
    with pytest.raises(MachineError, match=r"engine\.trunk_cache: the trunk's states can't be written"):
        train(tiny_recipe(**ON), tmp_path / "run")


def test_without_frozen_layers_it_is_refused(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    with pytest.raises(LoraKitError, match=r"has no effect: with lora\.layers .*all.* no layer is frozen"):
        load_recipe(tiny_recipe(engine={"trunk_cache": "on"}))
    with pytest.raises(ModelError, match="the lowest layer has an adapter"):
        train(tiny_recipe(lora={"layers": "last-2"}, engine={"trunk_cache": "on"}), tmp_path / "run")


def test_offload_says_that_a_cpu_gains_nothing(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    told = Phases()
    train(tiny_recipe(), tmp_path / "offload", "engine.memory=offload", "train.steps=2", observer=told)
    assert any("offload saves nothing on a CPU" in text for text in told.texts)
    train(tiny_recipe(), tmp_path / "standard", "train.steps=2")
    assert digests(tmp_path / "offload") == digests(tmp_path / "standard")


def test_the_cache_is_told_what_the_states_depend_on(
    tiny_recipe: TinyRecipe, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another base, quantization, thread count or depth never meets the states of this one."""
    identities = []
    true = frozen_trunk.trunk_cache

    def spy(trunk: Any, identity: Any) -> Any:
        identities.append(SimpleNamespace(**identity))
        return true(trunk, identity)

    monkeypatch.setattr(frozen_trunk, "trunk_cache", spy)
    train(tiny_recipe(**ON), tmp_path / "plain", "train.steps=1")
    train(tiny_recipe(**ON), tmp_path / "four-bit", "train.steps=1", "quantization.method=nf4")
    assert len(list((own_cache / "trunk").iterdir())) == 2
    plain, packed = identities
    assert plain.base == packed.base
    assert plain.quantization != packed.quantization
    assert {"threads", "versions", "hardware", "dtype"} <= vars(plain).keys()
