"""No dead keys: every recipe key, when it is changed, changes what a run does, or the recipe is refused.

What counts is not the recipe but the outcome on disk: weights, metrics, data report, checkpoints, results.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.cli.app import run
from lora_kit.recipe.keys import all_keys

Outcome = dict[str, Any]

# Key to what it is changed to; the base recipe is BASE. Several values: all of them must have an effect.
CHANGES: dict[str, list[str]] = {
    "name": ["name=other"],
    "base.model": ["base.model=./other-base"],
    "base.revision": ["base.revision=main"],
    "base.dtype": ["base.dtype=bfloat16"],
    "data.train": ["data.train=other.jsonl"],
    "data.format": ["data.format=alpaca"],
    "data.fields": ["data.fields={response: context}"],
    "data.options": ["data.options={language: en}"],
    "data.mix": [
        "data.mix=[{train: other.jsonl}]",
        "data.mix=[{train: other.jsonl, weight: 0.2}]",
        "data.mix=[{train: other.jsonl, count: 3}]",
        "data.mix=[{train: other.jsonl, count: 3, seed: 4}]",
        "data.mix=[{train: other.jsonl, count: 3, format: alpaca}]",
        "data.mix=[{train: other.jsonl, format: dolly, fields: {response: context}}]",
        "data.mix=[{train: other.jsonl, format: dolly, options: {language: en}}]",
    ],
    "data.validation": ["data.validation=other.jsonl"],
    "data.validation_fraction": ["data.validation_fraction=0.4"],
    "data.template": ["data.template=alpaca"],
    "data.system": ["data.system=Be brief."],
    "data.max_tokens": ["data.max_tokens=30"],
    "data.overlong": ["data.overlong=drop", "data.overlong=truncate_prompt"],
    "data.on_bad_row": ["data.on_bad_row=drop"],
    "data.on_empty": ["data.on_empty=drop"],
    "data.on_overlap": ["data.on_overlap=error"],
    "data.limit": ["data.limit=10"],
    "lora.rank": ["lora.rank=2"],
    "lora.alpha": ["lora.alpha=9"],
    "lora.dropout": ["lora.dropout=0.5"],
    "lora.targets": ["lora.targets=mlp", "lora.targets=attention", "lora.targets=[q_proj]"],
    "lora.layers": ["lora.layers=last-1"],
    "lora.rank_stabilized": ["lora.rank_stabilized=true"],
    "lora.init": ["lora.init=pissa"],
    "lora.dora": ["lora.dora=true"],
    "lora.train_tokens": ["lora.train_tokens=[17]", "lora.train_tokens=['<|im_end|>']"],
    "quantization.method": ["quantization.method=nf4", "quantization.method=fp4", "quantization.method=int8"],
    "quantization.double_quant": ["quantization.double_quant=false"],
    "quantization.compute_dtype": ["quantization.compute_dtype=bfloat16"],
    "train.max_minutes": ["train.max_minutes=30"],
    "train.finish_by": ["train.finish_by=03:00"],
    "train.steps": ["train.steps=2"],
    "train.epochs": ["train.epochs=2"],
    "train.batch_size": ["train.batch_size=3"],
    "train.micro_batch_tokens": ["train.micro_batch_tokens=40", "train.micro_batch_tokens=auto"],
    "train.learning_rate": ["train.learning_rate=0.02"],
    "train.schedule": ["train.schedule=linear", "train.schedule=constant"],
    "train.warmup_steps": ["train.warmup_steps=1"],
    "train.weight_decay": ["train.weight_decay=0.5"],
    "train.max_grad_norm": ["train.max_grad_norm=0.02", "train.max_grad_norm=null"],
    "train.validate_every": ["train.validate_every=1"],
    "train.save_every": ["train.save_every=3"],
    "train.keep_checkpoints": ["train.keep_checkpoints=1"],
    "train.keep": ["train.keep=last"],
    "train.seed": ["train.seed=1"],
    "train.device": ["train.device=cuda"],
    "engine.share_prefixes": ["engine.share_prefixes=off"],
    "engine.memory": ["engine.memory=low", "engine.memory=offload"],
    "engine.trunk_cache": ["engine.trunk_cache=on"],
    "engine.optimizer": ["engine.optimizer=adamw-8bit-paged"],
    "engine.memory_limit": ["engine.memory_limit=20MB", "engine.memory_limit=900GB"],
    "engine.audit": ["engine.audit=on"],
    "engine.trackers": ["engine.trackers=[trackio]"],  # told that it is not installed
    "evaluate.suites": ["evaluate.suites=[]"],
    "evaluate.max_new_tokens": ["evaluate.max_new_tokens=3"],
    "evaluate.batch_size": ["evaluate.batch_size=3"],
    "evaluate.bootstrap_samples": ["evaluate.bootstrap_samples=300"],
    "evaluate.seed": ["evaluate.seed=5"],
}
# What has to be there for a change to be one.
BESIDE: dict[str, list[str]] = {
    "train.epochs": ["train.steps=null"],
    "data.overlong": ["data.max_tokens=70"],
    "data.on_bad_row": ["data.train=bad.jsonl"],
    "data.on_empty": ["data.train=empty.jsonl"],
    "data.validation": ["data.validation_fraction=0.05"],
    "data.on_overlap": ["data.validation=overlap.jsonl", "data.validation_fraction=0.05"],
    "quantization.double_quant": ["quantization.method=nf4"],
    "quantization.compute_dtype": ["quantization.method=nf4"],
    "engine.share_prefixes": ["lora.dropout=0", "data.system=Answer each question in one short sentence."],
    "engine.trunk_cache": ["lora.layers=last-1"],
    "train.keep": [  # the second step overshoots
        "data.limit=8",
        "train.steps=2",
        "train.learning_rate=0.3",
        "train.schedule=constant",
        "train.max_grad_norm=null",
        "train.validate_every=1",
    ],
}
REFUSED_BEFORE = {
    "data.overlong",
    "data.on_bad_row",
    "data.on_empty",
}  # the policy is what lets the run go on
LATE = {"evaluate.suites", "evaluate.max_new_tokens", "evaluate.batch_size", "evaluate.bootstrap_samples"}
LATE |= {"evaluate.seed"}


KNOWN: dict[str, Outcome] = {}  # what the unchanged recipe does, once for all keys


def test_the_table_names_every_key() -> None:
    assert list(CHANGES) == list(all_keys())


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_changes_the_run(
    key: str,
    tiny_recipe: Callable[..., Path],
    tiny_suite: Path,
    tiny_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lora_kit.train.trackers.find_spec", lambda _: None)
    here = "lora_kit.audit.fresh._in_fresh_process"  # that it is a fresh one is looked at in tests/audit
    monkeypatch.setattr(here, lambda made, _: str(run(["audit", str(made.path)])))
    train = {"steps": 3, "save_every": 1, "validate_every": None, "max_grad_norm": 0.01}
    recipe = tiny_recipe(train={**train, "micro_batch_tokens": 400})
    (tmp_path / "other-base").symlink_to(tiny_folder("llama", seed=1))
    write_rows(tmp_path)
    command = "run" if key in LATE else "train"
    suites = [f"evaluate.suites=[{tiny_suite}]"] if key in LATE else []
    spy = batch_sizes(monkeypatch)
    note_recomputation(monkeypatch, spy)
    beside = [*suites, *BESIDE.get(key, [])]
    plain = json.dumps([command, BESIDE.get(key, [])])
    if plain not in KNOWN:
        KNOWN[plain] = outcome(tmp_path, command, recipe, beside, spy)
    before = KNOWN[plain]
    assert ("code" in before) == (key in REFUSED_BEFORE), "the recipe to compare with is wrong"
    for change in CHANGES[key]:
        after = outcome(tmp_path, command, recipe, [*beside, change], spy)
        assert after != before, f"{change} does nothing"


def write_rows(folder: Path) -> None:
    lines = (folder / "rows.jsonl").read_text().splitlines()
    held = {"instruction": "What is new?", "context": "", "response": "This row is.", "category": "open_qa"}
    empty = {**json.loads(lines[0]), "response": "", "instruction": "Say nothing."}
    files = {
        "other": [*lines[4:], json.dumps(held)],
        "bad": [*lines, '{"instruction": "no answer"}'],
        "empty": [*lines, json.dumps(empty)],
        "overlap": [json.dumps(held), lines[3]],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(row + "\n" for row in rows))


def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts were answered at once."""
    from lora_kit.harness.engines import transformers_engine

    seen: list[int] = []
    true_start = transformers_engine.start_decoding

    def spy(*arguments: Any, places: int) -> Any:
        seen.append(places)
        return true_start(*arguments, places=places)

    monkeypatch.setattr(transformers_engine, "start_decoding", spy)
    return seen


def note_recomputation(monkeypatch: pytest.MonkeyPatch, seen: list[int]) -> None:
    """What changes no bit of the result, or few, is in the call itself."""
    from lora_kit import train_run

    def note(name: str, mark: int) -> None:
        true_call = getattr(train_run, name)

        def spy(*arguments: Any, **options: Any) -> Any:
            seen.append(mark)
            return true_call(*arguments, **options)

        monkeypatch.setattr(train_run, name, spy)

    note("recompute_layers", -1)
    note("offload_activations", -2)
    note("use_trunk_cache", -3)


def outcome(folder: Path, command: str, recipe: Path, overrides: list[str], spy: list[int]) -> Outcome:
    spy.clear()
    code = run([command, str(recipe), *overrides])
    runs = sorted((folder / "runs").glob("*"), key=lambda path: path.stat().st_mtime_ns)
    assert code != 1, "a bug of ours"
    if code:
        return {"code": code}
    made = runs[-1]
    results = sorted(made.glob("evaluations/*/results.json"))
    config = (made / "adapter/adapter_config.json").read_text()
    return {
        "name": made.name.rpartition("-")[0],
        "adapter": hashlib.sha256((made / "adapter/adapter_model.safetensors").read_bytes()).hexdigest(),
        "config": config.replace(str(folder), ""),
        "metrics": stable_digest(made / "metrics.jsonl"),
        "data": (made / "data_report.json").read_text().replace(str(folder), ""),
        "checkpoints": sorted(path.name for path in (made / "checkpoints").iterdir()),
        "optimizer": moments(made),
        "measured": (made / "token_budget.json").is_file(),
        "deadline": (made / "deadline.json").is_file(),
        "audited": (made / "audit.json").is_file(),
        "results": [visible(json.loads(path.read_text())) for path in results],
        "batches": list(spy),
    }


def moments(made: Path) -> list[str]:
    files = sorted(made.glob("checkpoints/*/optimizer.safetensors"))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def visible(results: dict[str, Any]) -> dict[str, Any]:
    """What was found, without what was asked for."""
    return {name: value for name, value in results.items() if name not in {"settings", "seconds"}}
