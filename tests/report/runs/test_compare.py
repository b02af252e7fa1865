"""Runs side by side: the keys that differ, the losses at the same steps, a picture that stands alone."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.errors import RecipeError
from lora_kit.report.runs.compare import compare_runs


def make_run(path: Path, rank: int, *, steps: int = 30, mix: str = "[]", **state: object) -> RunDir:
    run = open_run(path)
    rows = path.parent / "rows.jsonl"
    rows.write_text("{}\n")
    data = f"{{train: {rows}, format: dolly, mix: {mix}}}"
    run.recipe.write_text(f"name: x\nbase: {{model: a/b}}\ndata: {data}\nlora: {{rank: {rank}}}\n")
    log = MetricsLog(run.metrics)
    for step in range(1, steps + 1):
        held_out = {"validation_loss": 1.0} if step == steps else {}
        log.append({"step": step, "loss": float(rank), "trained_tokens": 10, "seconds": 0.5, **held_out})
    log.close()
    run.update_state(**{"status": "finished", "kept_step": steps, **state})
    return run


def test_only_keys_that_differ_are_named(tmp_path: Path) -> None:
    mixed = "[{train: " + str(tmp_path / "rows.jsonl") + ", weight: 0.5}]"
    found = compare_runs([make_run(tmp_path / "a", 4), make_run(tmp_path / "b", 8, mix=mixed)])
    assert set(found.differences) == {"lora.rank", "data.mix"}
    assert found.differences["lora.rank"] == (4, 8)
    assert found.notes == ()
    same = compare_runs([make_run(tmp_path / "c", 4), make_run(tmp_path / "d", 4)])
    assert same.differences == {}


def test_losses_stand_beside_each_other_at_the_same_steps(tmp_path: Path) -> None:
    found = compare_runs([make_run(tmp_path / "a", 4), make_run(tmp_path / "b", 8, steps=12)])
    assert found.losses[-1] == (30, (4.0, None))
    assert found.losses[0][1] == (4.0, 8.0)
    first, second = found.runs
    assert (first.mean_loss, first.trained_tokens, first.seconds, first.kept_step) == (4.0, 300, 15.0, 30)
    assert (second.summary.step, second.summary.validation_loss) == (12, 1.0)
    assert json.loads(json.dumps(found.to_json()))["runs"][1]["label"] == "b"


def test_a_recipe_that_can_not_be_read_is_a_note(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, rank) for name, rank in (("a", 4), ("b", 8), ("c", 4))]
    runs[2].recipe.write_text("lerning_rate: 1\n")
    found = compare_runs(runs)
    assert found.differences["lora.rank"] == (4, 8, "(none)")
    [note] = found.notes
    assert note.startswith("Without the recipe of c: ")


def test_equal_names_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    runs = [make_run(tmp_path / folder / "a", 4) for folder in ("x", "y")]
    assert [run.label for run in compare_runs(runs).runs] == [str(run.path) for run in runs]


def test_the_picture_is_whole_and_escapes_names(tmp_path: Path) -> None:
    found = compare_runs([make_run(tmp_path / '<b>&"', 4), make_run(tmp_path / "b", 8)])
    picture = ET.fromstring(found.to_svg())
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in picture.iter() if element.tag.endswith("}text")]
    assert {'<b>&"', "b"} <= set(texts)
    assert sum(element.tag.endswith("}path") for element in picture.iter()) == 2


@pytest.mark.parametrize("count", [0, 1, 9])
def test_two_to_eight(tmp_path: Path, count: int) -> None:
    with pytest.raises(RecipeError, match=f"{count} runs to compare"):
        compare_runs([RunDir(tmp_path / str(n)) for n in range(count)])
