"""Museum, second room: defects of the training loop and its checkpoints."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_kit.data.collate import flatten
from lora_kit.data.types import Example
from lora_kit.errors import LoraKitError
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter
from lora_kit.model.base import find_base
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.model.load import load_model
from lora_kit.recipe.load import load_recipe
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec
from lora_kit.train.observe import Silent
from lora_kit.train_run import train_recipe

pytestmark = pytest.mark.fault("P16")

TinyRecipe = Callable[..., Path]


@pytest.fixture
def model(tiny_llama: Path) -> Any:
    """The tiny LLaMA in float64, with an adapter whose B is not zero."""
    files = find_base(BaseSpec(model=str(tiny_llama)))
    base = load_model(files, dtype="float64", quantization=QuantizationSpec(), device="cpu")
    adapted = add_adapter(base, LoraSpec(rank=4), files.family, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter_parameters(adapted).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.1)
    return adapted


def uneven_examples() -> list[Example]:
    generator = torch.Generator().manual_seed(3)
    lengths = (37, 21, 9, 50)
    rows = [tuple(torch.randint(4, 299, (length,), generator=generator).tolist()) for length in lengths]
    return [
        Example(ids, tuple(at >= len(ids) // 4 for at in range(len(ids))), f"r:{n}", "")
        for n, ids in enumerate(rows)
    ]


def gradient(model: Any, groups: Sequence[Sequence[Example]], *, of_means: bool = False) -> torch.Tensor:
    """The gradient of a window that is computed group by group."""
    losses = [sum_nats(model, flatten(group)) for group in groups]
    tokens = sum(loss.tokens for loss in losses)
    for loss in losses:
        (loss.nats / (loss.tokens * len(losses) if of_means else tokens)).backward()
    found = torch.cat([p.grad.flatten() for p in adapter_parameters(model).values()])
    model.zero_grad()
    return found


def test_accumulation_is_one_batch(model: Any) -> None:
    """https://github.com/huggingface/transformers/pull/34191

    The mean of the means of micro-batches was taken for the mean over tokens: a large part of every gradient
    was wrong wherever rows were of uneven lengths, for years, in most trainers.
    """
    examples = uneven_examples()
    whole, parts = gradient(model, [examples]), gradient(model, [[one] for one in examples])
    assert (whole - parts).norm() < 1e-12 * whole.norm()
    wrong = gradient(model, [[one] for one in examples], of_means=True)
    assert (whole - wrong).norm() > 0.1 * whole.norm()  # the defect, as it was


def test_packed_rows_do_not_see_each_other(model: Any) -> None:
    """https://github.com/huggingface/trl/issues/805, https://github.com/huggingface/trl/issues/1230

    Rows laid end to end attended to the rows before them: another loss, and answers learned from strangers.
    """
    examples = uneven_examples()
    packed = example_nats(model, flatten(examples))
    alone = torch.cat([example_nats(model, flatten([one])) for one in examples])
    assert (packed - alone).abs().max() < 1e-12 * alone.max()
    ids = torch.tensor([token for one in examples for token in one.input_ids])[None]
    with torch.no_grad():
        leaking, clean = model(input_ids=ids).logits[0, -50:], model(input_ids=ids[:, -50:]).logits[0]
    assert (leaking - clean).abs().max() > 1e-3  # the defect, as plain transformers has it


def test_a_learning_rate_in_scientific_notation_is_a_number(tiny_recipe: TinyRecipe) -> None:
    """https://github.com/yaml/pyyaml/issues/173

    `2e-4` without a dot is text to the YAML library that most trainers use: an error deep in the optimizer.
    """
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load("2e-4") == "2e-4"  # the defect, as it is
    path = tiny_recipe()
    path.write_text(path.read_text().replace('"learning_rate": 0.01', '"learning_rate": 2e-4'))
    assert load_recipe(path).train.learning_rate == 0.0002


def train(recipe: Path, run: Path, observer: Silent | None = None) -> dict[str, torch.Tensor]:
    train_recipe(load_recipe(recipe), run, observer or Silent())
    return load_file(run / "adapter/adapter_model.safetensors")


def test_recomputing_layers_trains_every_adapter(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    """https://github.com/locuslab/open-unlearning/issues/178, https://github.com/huggingface/peft/issues/1402

    With gradient checkpointing no gradient reached the adapters: the loss looked fine, every B stayed zero.
    """
    low = train(tiny_recipe(engine={"memory": "low"}, lora={"dropout": 0.0}), tmp_path / "low")
    full = train(tiny_recipe(lora={"dropout": 0.0}), tmp_path / "full")
    assert low.keys() == full.keys()
    assert all(tensor.abs().max() > 0 for tensor in low.values())
    assert all(torch.allclose(low[name], full[name], atol=1e-5) for name in full)


def test_a_half_checkpoint_is_not_resumed_from(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    """https://github.com/huggingface/transformers/issues/35782

    A folder with the right name was taken for a checkpoint; one that was cut while it was saved ended the
    resume with an error, or lost the optimizer in silence.
    """
    recipe = tiny_recipe()
    unbroken = train(recipe, tmp_path / "unbroken")
    train(recipe, tmp_path / "cut")
    newest = max((tmp_path / "cut/checkpoints").iterdir())
    optimizer = newest / "optimizer.safetensors"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    state = tmp_path / "cut/run.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"status": "running"}))
    said: list[Any] = []

    class Notes(Silent):
        def started(self, *, step: int, steps: int, notes: list[str]) -> None:  # noqa: ARG002
            said.append(step)
            said.extend(notes)

    again = train(recipe, tmp_path / "cut", Notes())
    assert said[0] == 4
    assert "optimizer.safetensors" in said[1]
    assert all(torch.equal(unbroken[name], again[name]) for name in unbroken)


class AfterEachSave(Silent):
    """Looks at the checkpoints after each save."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.seen: list[list[int]] = []

    def saved(self, step: int) -> None:  # noqa: ARG002
        folders = (self.run / "checkpoints").iterdir()
        self.seen.append(sorted(int(folder.name.removeprefix("step-")) for folder in folders))


def test_the_newest_checkpoint_is_never_the_one_that_goes(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    """https://github.com/huggingface/accelerate/issues/1163

    With a limit on their number, the newest was deleted, because 10 sorts before 9 as text; and old ones went
    before the new one was written, so that a crash at that moment left none.
    """
    recipe = tiny_recipe(train={"steps": 12, "save_every": 1, "keep_checkpoints": 1, "validate_every": None})
    observer = AfterEachSave(tmp_path / "run")
    train(recipe, tmp_path / "run", observer)
    assert [max(steps) for steps in observer.seen] == list(range(1, 13))
    assert all(len(steps) <= 2 for steps in observer.seen)


def test_the_old_checkpoint_goes_after_the_new_one_is_whole(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://github.com/huggingface/accelerate/issues/1163

    The second half of the same exhibit: a save that fails must leave what was saved before.
    """
    recipe = tiny_recipe(train={"save_every": 1, "keep_checkpoints": 1, "validate_every": None})
    monkeypatch.setenv("LORA_KIT_FAILPOINT", "checkpoint.after_optimizer@3=enospc")
    with pytest.raises(LoraKitError, match="no space left"):
        train(recipe, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-000002"]


def test_a_stopped_run_goes_on_with_the_rows_that_were_next(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    """https://github.com/huggingface/transformers/issues/17032

    Resuming drew another order of the rows, or began the epoch anew: some were seen twice, others never.
    """
    recipe = tiny_recipe(train={"save_every": 2})

    class Cut(Silent):
        def saved(self, step: int) -> None:
            if step == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", Cut())
    train(recipe, tmp_path / "cut")
    train(recipe, tmp_path / "whole")
    seen = [
        [json.loads(line)["rows"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("cut", "whole")
    ]
    assert len(seen[0]) == 6
    assert seen[0] == seen[1]
