"""A whole plan on tiny models: measured, predicted, for other hardware; then the run, and what it teaches."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.cli.app import run
from lora_kit.errors import DataError, MachineError, ModelError
from lora_kit.planning import remember
from lora_kit.planning.devices import DEVICES
from lora_kit.planning.energy import Tariff
from lora_kit.planning.ledger import correction, kept_prediction, ledger_file
from lora_kit.planning.outlook import Outlook
from lora_kit.planning.plan import Asked, plan_recipe
from lora_kit.recipe.load import load_recipe
from lora_kit.train.observe import Silent

TinyRecipe = Callable[..., Path]
KIND = "measured cpu none standard"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))


def planned(path: Path, overrides: tuple[str, ...] = (), **asked: object) -> Outlook:
    recipe = load_recipe(path, overrides, allow_outside=["/"])
    return plan_recipe(recipe, Asked(path.parent / "runs" / "tiny", **asked), Silent())  # type: ignore[arg-type]


def test_a_measured_plan_leaves_nothing_but_its_prediction(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    path = tiny_recipe()
    before = sorted(path.parent.iterdir())
    found = planned(path, watts=100.0, tariff=Tariff(0.5, "EUR"))
    assert sorted(path.parent.iterdir()) == sorted({*before, tmp_path / "cache"})
    assert (found.how, found.steps, found.gguf) == ("measured", 6, "")
    assert [one["what"] for one in found.timed[:3]] == [
        "the shortest row", "a median micro-batch", "the heaviest micro-batch",
    ]  # fmt: skip
    assert "step 1" in [one["what"] for one in found.timed]
    assert (
        found.rows.train + found.rows.validation == sum(bar["examples"] for bar in found.rows.histogram) == 24
    )
    assert 0 < found.seconds.low <= found.seconds.likely <= found.seconds.high
    assert found.seconds.likely == pytest.approx(sum(found.parts.values()))
    assert {"steps", "starting", "validation", "checkpoints"} <= set(found.parts)
    assert 0 < found.memory.need.likely < found.memory.room
    assert found.disk.fits
    assert found.energy is not None
    assert found.energy["cost"] == pytest.approx(found.seconds.likely * 100 / 3.6e6 * 0.5)
    assert kept_prediction(found.fingerprint) is not None
    json.dumps(found.to_json(), allow_nan=False)


def test_a_finished_run_corrects_the_next_plan(
    tiny_recipe: TinyRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_recipe(data={"limit": 8}, train={"steps": 2, "validate_every": None})
    first = planned(path)
    run_path = path.parent / "run"
    assert run(["train", str(path), "--run-dir", str(run_path), "--allow-outside", "/"]) == 0
    [line] = ledger_file().read_text("utf-8").splitlines()
    entry = json.loads(line)
    assert entry["kind"] == KIND
    assert entry["predicted"]["step_seconds"] == pytest.approx(first.parts["steps"])
    records = [json.loads(one) for one in RunDir(run_path).metrics.read_text("utf-8").splitlines()]
    assert entry["actual"]["step_seconds"] == pytest.approx(sum(one["seconds"] for one in records))
    assert entry["actual"]["memory_bytes"] == records[-1]["peak_memory_bytes"]
    again = planned(path)
    assert again.correction["runs"] == 1
    factors = correction(KIND).factors
    assert again.memory.need.likely == pytest.approx(
        again.uncorrected["memory_bytes"] * factors["memory_bytes"]
    )
    # A finished run that is looked at again teaches nothing new.
    assert run(["train", str(path), "--run-dir", str(run_path), "--allow-outside", "/"]) == 0
    assert len(ledger_file().read_text("utf-8").splitlines()) == 1
    capsys.readouterr()


def test_a_run_without_a_plan_is_predicted_afterwards(
    tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_recipe(data={"limit": 8}, train={"steps": 2, "validate_every": None})
    arguments = ["train", str(path), "--allow-outside", "/", "--run-dir"]
    assert run([*arguments, str(path.parent / "one")]) == 0
    assert not ledger_file().exists(), "a run of a moment is not worth it"
    monkeypatch.setattr(remember, "WORTH_SECONDS", 0.0)
    assert run([*arguments, str(path.parent / "two")]) == 0
    assert json.loads(ledger_file().read_text("utf-8"))["kind"] == "predicted cpu none standard"


def test_without_weights_it_predicts_and_says_so(tiny_recipe: TinyRecipe) -> None:
    path = tiny_recipe()
    base = path.parent / "base"
    for file in base.iterdir():
        if file.name != "config.json":
            file.unlink()
    found = planned(path)
    assert found.how == "predicted"
    assert found.rows.guessed
    assert not found.timed
    told = " ".join(found.notes)
    assert "not measured" in told
    assert "guessed" in told
    assert "download" in told


@pytest.mark.parametrize("name", ["rtx-3090", "t4", "laptop-cpu"])
def test_other_hardware_is_predicted_from_its_data_sheet(tiny_recipe: TinyRecipe, name: str) -> None:
    found = planned(tiny_recipe(), device=DEVICES[name], tariff=Tariff(0.3))
    assert (found.how, found.where) == ("predicted", DEVICES[name].label)
    assert not found.rows.guessed
    assert found.memory.room == DEVICES[name].memory_bytes
    assert found.energy is not None
    assert found.energy["watts"] == DEVICES[name].watts
    assert set(found.sources) == {"memory", "bandwidth", "flops", "watts"}
    assert kept_prediction(found.fingerprint) is None, "another machine's plan is no prediction of this one"


def test_more_bandwidth_and_flops_are_quicker(tiny_recipe: TinyRecipe) -> None:
    path = tiny_recipe()
    likely = {name: planned(path, device=DEVICES[name]).parts["steps"] for name in ("t4", "a100-40")}
    assert likely["a100-40"] < likely["t4"]


def test_auto_settles_the_budget_as_the_run_will(tiny_recipe: TinyRecipe) -> None:
    found = planned(tiny_recipe(train={"micro_batch_tokens": "auto", "steps": 2}, lora={"dropout": 0.0}))
    assert found.parts["settling"] > 0


@pytest.mark.parametrize(("family", "engine"), [("bloom", "standard"), ("llama", "low")])
def test_every_layout_and_way_to_compute_is_planned(
    tiny_recipe: TinyRecipe, family: str, engine: str
) -> None:
    assert planned(tiny_recipe(family, engine={"memory": engine}, train={"steps": 2})).how == "measured"


def test_rows_that_do_not_fit_are_told_as_training_would(tiny_recipe: TinyRecipe) -> None:
    with pytest.raises(DataError, match=r"data\.max_tokens"):
        planned(tiny_recipe(data={"max_tokens": 8}))


def test_no_rows_are_told_as_training_would(tiny_recipe: TinyRecipe) -> None:
    path = tiny_recipe()
    (path.parent / "rows.jsonl").write_text("", "utf-8")
    with pytest.raises(DataError, match="is empty"):
        planned(path)


def test_a_base_that_is_nowhere(tiny_recipe: TinyRecipe, no_sockets: None) -> None:
    with pytest.raises(MachineError, match=r"config\.json"):
        planned(tiny_recipe(), ("base.model=nobody/nothing-here",))


def test_an_unsupported_base(tiny_recipe: TinyRecipe) -> None:
    path = tiny_recipe()
    (path.parent / "base" / "config.json").write_text('{"model_type": "t5"}', "utf-8")
    with pytest.raises(ModelError, match="t5"):
        planned(path, device=DEVICES["t4"])
