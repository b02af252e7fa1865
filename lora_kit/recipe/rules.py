"""What the schema can't say: keys that contradict each other, or that do nothing beside each other.

A key without effect is refused rather than ignored: whoever wrote it believes
that it does something. Every line names both keys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lora_kit.recipe.draft import Draft, shown
from lora_kit.recipe.keys import Key, all_keys


@dataclass(frozen=True, slots=True)
class Rule:
    """One contradiction.

    Args:
        keys: Dotted keys; the first one is the one to change.
        broken: Takes the values of the keys, in order.
        found: Template; ``{0}`` is the first key's value.
        cure: What to do.
    """

    keys: tuple[str, ...]
    broken: Callable[..., bool]
    found: str
    cure: str


# pissa would have to round the rest of the weights anew; loftq begins with what a rounding loses.
FOUR_BITS = ("nf4", "fp4")
FITS_INIT = {"pissa": ("none",), "loftq": FOUR_BITS}
RULES = (
    Rule(
        ("train.finish_by", "train.max_minutes"),
        lambda moment, minutes: moment is not None and minutes is not None,
        "{0} is given together with train.max_minutes {1}",
        "keep one of the two",
    ),
    Rule(
        ("train.epochs", "train.steps"),
        lambda epochs, steps: epochs is not None and steps is not None,
        "{0} is given together with train.steps {1}",
        "keep one of the two",
    ),
    Rule(
        ("train.warmup_steps", "train.steps"),
        lambda warmup, steps: steps is not None and warmup >= steps,
        "{0} is not less than train.steps {1}",
        "the learning rate would never reach its peak: shorten the warm-up",
    ),
    Rule(
        ("train.keep", "data.validation_fraction", "data.validation"),
        lambda keep, fraction, file: keep == "best" and file is None and fraction == 0,
        "best is by validation, but data.validation_fraction is {1} and there is no data.validation",
        "set train.keep to last, or hold rows out",
    ),
    Rule(
        ("train.validate_every", "data.validation_fraction", "data.validation"),
        lambda every, fraction, file: every is not None and file is None and fraction == 0,
        "{0} has no effect: data.validation_fraction is {1} and there is no data.validation",
        "remove it, or hold rows out",
    ),
    Rule(
        ("data.validation_fraction", "data.validation"),
        lambda fraction, file: file is not None and fraction not in {0, _default("data.validation_fraction")},
        "{0} has no effect beside data.validation {1}",
        "keep one of the two",
    ),
    Rule(
        ("data.validation", "data.train"),
        lambda validation, train: validation is not None and validation == train,
        "is the same file as data.train",
        "hold rows out with data.validation_fraction instead",
    ),
    Rule(
        ("data.mix",),
        lambda mix: any("weight" in one and "count" in one for one in mix if isinstance(one, dict)),
        "an entry has both a weight and a count",
        "keep one of the two",
    ),
    Rule(
        ("base.revision", "base.model"),
        lambda revision, model: revision is not None and str(model).startswith(("package:", "/")),
        "{0} has no effect: base.model {1} is not on the hub",
        "remove it",
    ),
    Rule(
        ("quantization.double_quant", "quantization.method"),
        lambda double, method: (
            method not in FOUR_BITS and double is not _default("quantization.double_quant")
        ),
        "{0} has no effect: quantization.method is {1}",
        "set quantization.method to nf4, or remove it",
    ),
    Rule(
        ("quantization.compute_dtype", "quantization.method"),
        lambda dtype, method: method not in FOUR_BITS and dtype != _default("quantization.compute_dtype"),
        "{0} has no effect: quantization.method is {1}",
        "set quantization.method to nf4, or remove it",
    ),
    Rule(
        ("lora.init", "quantization.method"),
        lambda init, method: method not in FITS_INIT.get(init, (method,)),
        "{0} does not go with quantization.method {1}",
        "pissa needs none, loftq needs nf4 or fp4; default goes with all",
    ),
    Rule(
        ("lora.dora", "quantization.method"),
        lambda dora, method: dora is True and method == "int8",
        "{0} does not go with quantization.method {1}",
        "set quantization.method to nf4, or lora.dora to false",
    ),
    Rule(
        ("lora.dora", "lora.init"),
        lambda dora, init: dora is True and init != "default",
        "{0} does not go with lora.init {1}",
        "keep one of the two",
    ),
    Rule(
        ("engine.trunk_cache", "lora.train_tokens"),
        lambda trunk, tokens: trunk == "on" and bool(tokens),
        "{0} does not go with lora.train_tokens {1}: what enters the layers is trained",
        "set it to off, or remove lora.train_tokens",
    ),
    Rule(
        ("engine.trunk_cache", "lora.layers"),
        lambda trunk, layers: trunk == "on" and layers == "all",
        "{0} has no effect: with lora.layers {1} no layer is frozen",
        "set lora.layers to last-8 or so, or remove it",
    ),
)


def apply_rules(draft: Draft) -> None:
    """Add a problem for every broken rule whose keys are right, each by itself."""
    for rule in RULES:
        if any(draft.is_wrong(key) for key in rule.keys):
            continue
        values = [_value(draft, all_keys()[key]) for key in rule.keys]
        if rule.broken(*values):
            given = next((key for key in rule.keys if key in draft.places), "")
            found = rule.found.format(*(shown(value) for value in values))
            draft.report(rule.keys[0], found, rule.cure, where=draft.place(given))


def _value(draft: Draft, key: Key) -> Any:  # noqa: ANN401 - the values of many keys
    section, _, leaf = key.name.rpartition(".")
    given = draft.get(section) if section else draft.values
    return given[leaf] if isinstance(given, dict) and leaf in given else key.default


def _default(key: str) -> Any:  # noqa: ANN401
    return all_keys()[key].default
