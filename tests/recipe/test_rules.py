import pytest

from lora_kit.errors import RecipeError
from lora_kit.recipe.fingerprint import recipe_fingerprint
from lora_kit.recipe.keys import all_keys
from lora_kit.recipe.rules import RULES

BROKEN = [
    ("train.finish_by", "train.max_minutes", 'train: {max_minutes: 5, finish_by: "23:00"}'),
    ("train.epochs", "train.steps", "train: {steps: 5, epochs: 1}"),
    ("train.warmup_steps", "train.steps", "train: {steps: 5, warmup_steps: 5}"),
    ("train.keep", "data.validation_fraction", "data.validation_fraction=0"),
    ("train.validate_every", "data.validation_fraction", "train: {keep: last, validate_every: 3}"),
    ("data.validation_fraction", "data.validation", "data.validation=HELD_OUT"),
    ("data.validation", "data.train", "data.validation=ROWS"),
    ("data.mix", "weight and a count", "data.mix=[{train: ROWS, weight: 1, count: 2}]"),
    ("base.revision", "base.model", "base.revision=abc"),
    ("quantization.double_quant", "quantization.method", "quantization: {double_quant: false}"),
    ("quantization.compute_dtype", "quantization.method", "quantization: {compute_dtype: bfloat16}"),
    ("lora.init", "quantization.method", "lora: {init: loftq}"),
    ("lora.dora", "quantization.method", "quantization: {method: int8}"),
    ("lora.dora", "lora.init", "lora: {dora: true, init: pissa}"),
    ("engine.trunk_cache", "lora.train_tokens", "engine: {trunk_cache: on}"),
    ("engine.trunk_cache", "lora.layers", "engine: {trunk_cache: on}"),
]
BESIDE = {
    "train.validate_every": ["data.validation_fraction=0"],
    "data.validation_fraction": ["data.validation_fraction=0.1"],
    "base.revision": ["base.model=package:a/b.gguf"],
    "lora.dora quantization.method": ["lora.dora=true"],
    "engine.trunk_cache lora.train_tokens": ["lora.layers=last-2", "lora.train_tokens=[17]"],
}


def test_every_rule_has_its_case():
    cases = [(first, second) if "." in second else (first,) for first, second, _ in BROKEN]
    assert [rule.keys[:2] for rule in RULES] == cases


@pytest.mark.parametrize(("first", "second", "given"), BROKEN, ids=[" ".join(case[:2]) for case in BROKEN])
def test_a_broken_rule_names_both_keys(refused, minimal, folder, first, second, given):
    given = given.replace("HELD_OUT", f"{folder}/held_out.jsonl").replace("ROWS", f"{folder}/rows.jsonl")
    text, overrides = (minimal, [given]) if "=" in given else (f"{minimal}{given}\n", [])
    [problem] = refused(text, *overrides, *BESIDE.get(f"{first} {second}", BESIDE.get(first, [])))
    assert problem.key == first
    assert second in problem.found
    assert problem.cure
    assert problem.where in {"r.yaml:7", "r.yaml:5", "command line"}


def test_pissa_has_no_rest_to_round(refused, minimal):
    [problem] = refused(minimal, "lora.init=pissa", "quantization.method=nf4")
    assert (problem.key, problem.found) == ("lora.init", '"pissa" does not go with quantization.method "nf4"')


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.steps=5", "train.warmup_steps=4"],
        ["train.epochs=2", "train.warmup_steps=100"],
        ["train.max_minutes=90", "train.steps=100"],
        ["train.finish_by=6:05", "train.epochs=2"],
        ["data.validation_fraction=0", "train.keep=last"],
        ["data.validation=HELD_OUT", "train.validate_every=2"],
        ["data.validation=HELD_OUT", "data.validation_fraction=0"],
        ["quantization.method=nf4", "quantization.double_quant=false", "quantization.compute_dtype=bfloat16"],
        ["quantization.method=nf4", "base.dtype=bfloat16"],
        ["base.revision=abc"],
        ["lora.init=pissa", "base.dtype=bfloat16"],
        ["lora.init=loftq", "quantization.method=fp4"],
        ["lora.dora=true", "quantization.method=nf4"],
        ["quantization.method=int8", "base.dtype=bfloat16"],
        ["engine.trunk_cache=on", "lora.layers=last-2"],
    ],
)
def test_what_goes_together(load, minimal, folder, overrides):
    assert load(minimal, *(text.replace("HELD_OUT", f"{folder}/held_out.jsonl") for text in overrides))


def test_a_rule_waits_until_its_keys_are_right(refused, minimal):
    problems = refused(minimal, "train.steps=0", "train.warmup_steps=9")
    assert [problem.key for problem in problems] == ["train.steps"]


def other_value(name: str, folder: object) -> str:
    """Some other valid value of a key."""
    key = all_keys()[name]
    known = {
        "name": "other",
        "base.model": "other/model",
        "data.train": f"{folder}/held_out.jsonl",
        "data.validation": f"{folder}/held_out.jsonl",
        "data.format": "alpaca",
        "data.template": "alpaca",
        "data.mix": f"[{{train: {folder}/held_out.jsonl}}]",
        "evaluate.suites": "[]",
        "lora.targets": "[q_proj]",
        "lora.layers": "last-2",
        "lora.train_tokens": "[17]",
        "engine.trackers": "[tensorboard]",
    }
    if name in known:
        return known[name]
    if key.examples or key.choices:
        return next(text for text in (*key.examples, *key.choices) if text != key.default)
    if "object" in key.kinds:
        return "{a: b}"
    if "boolean" in key.kinds:
        return str(not key.default).lower()
    if "integer" in key.kinds:
        return str((key.default or 0) + 101)
    return "0.3" if "number" in key.kinds else "other"


@pytest.mark.parametrize("name", all_keys())
def test_no_key_is_dead(load, minimal, folder, name):
    """Every key, when changed, changes the recipe's identity or is refused."""
    override = f"{name}={other_value(name, folder)}"
    if name in {"quantization.double_quant", "quantization.compute_dtype", "engine.trunk_cache"}:
        with pytest.raises(RecipeError, match=f"{name}: .* has no effect"):
            load(minimal, override)
    else:
        assert recipe_fingerprint(load(minimal, override)) != recipe_fingerprint(load(minimal))
