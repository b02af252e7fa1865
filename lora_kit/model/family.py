"""What lora_kit knows about a model architecture: its layers by role, a flag and its allowed config keys.

A family is a value, not a class with behaviour: everything else about the architecture is transformers' own
model code. The config keys are an allow-list because config.json is downloaded: CVE-2026-4372 ran code from
the hub through a key that nobody expected there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_kit.catalogue import FAMILIES
from lora_kit.errors import ModelError, Problem

DESCRIPTIVE_KEYS = frozenset(
    {
        "_attn_implementation_autoset", "_commit_hash", "_model_name_or_path", "_name_or_path",
        "architectures", "dtype", "id2label", "is_decoder", "is_encoder_decoder", "label2id", "model_type",
        "problem_type", "torch_dtype",
        "transformers.js_config", "transformers_version", "use_cache", "use_return_dict",
    }
)  # fmt: skip
TOKEN_KEYS = frozenset({"bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id"})
DANGEROUS_KEYS = {
    "auto_map": "the model would run Python code from its own folder",
    "custom_pipelines": "the model would run Python code from its own folder",
    "trust_remote_code": "the model would run Python code from its own folder",
    "attn_implementation": "the model would choose its own attention code",
    "_attn_implementation": "the model would choose its own attention code",
    "_attn_implementation_internal": "the model would choose its own attention code",
    "transformers_weights": "the weights would be read from somewhere else",
}
STATIC_ROPE = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture that can be fine-tuned.

    Args:
        name: Name in the catalogue.
        model_types: Values of ``model_type`` in config.json.
        attention: Suffixes of the linear modules of the attention; a fused query-key-value matrix is one.
        mlp: Suffixes of the linear modules of the feed-forward block.
        flattened: True if rows can be laid end to end, each attending to itself alone (positions are relative
            or restart); False if they have to be padded, because the attention builds its positions from a
            mask.
        config_keys: Keys that config.json may have besides the descriptive ones; they describe the
            architecture. A key inside of another is ``outer.inner``.
        fixed: The only values that transformers' code computes with, by key; it ignores others in silence.
        dropped: Keys that published models have and that are taken out before a library sees the config.
        dropouts: Keys of dropout inside the base, which are read as 0: the base is a fixed function, and
            ``lora.dropout`` is the dropout of a run.
    """

    name: str
    model_types: tuple[str, ...]
    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    flattened: bool
    config_keys: frozenset[str]
    fixed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()
    dropouts: tuple[str, ...] = ()


def family_of(config: Mapping[str, Any], *, where: str) -> Family:
    """Find the family of a model from its config, refusing what can't be trained exactly and safely.

    Args:
        config: Content of config.json.
        where: The file's name for error messages.

    Raises:
        ModelError: Unsupported architecture, a key that is not on the allow-list, a rotary scaling that
            depends on the other rows of a batch.
    """
    model_type = config.get("model_type")
    families = {kind: name for name in FAMILIES for kind in FAMILIES[name].model_types}
    if not isinstance(model_type, str) or model_type not in families:
        known = ", ".join(sorted(families))
        raise ModelError(
            f"unsupported model '{model_type}'", where=where, key="model_type", cure=f"known: {known}"
        )
    family: Family = FAMILIES[families[model_type]]
    problems = [
        *_kind_problems(config, where),
        *_key_problems(config, family, where),
        *_value_problems(config, family, where),
        *_rope_problems(config, where),
    ]
    if problems:
        raise ModelError.collect(problems)
    return family


def _kind_problems(config: Mapping[str, Any], where: str) -> list[Problem]:
    kinds = config.get("architectures") or []
    causal = not kinds or any(str(kind).endswith("ForCausalLM") for kind in kinds)
    if causal and not config.get("is_encoder_decoder"):
        return []
    cure = "use a decoder-only language model (...ForCausalLM)"
    return [
        Problem(f"not a causal language model: {kinds or 'encoder-decoder'}", where, "architectures", cure)
    ]


def with_inner_keys(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Add ``outer.inner`` for what the family allows inside of a key."""
    outer = {key.partition(".")[0] for key in family.config_keys if "." in key}
    nested = {key: config[key] for key in outer if isinstance(config.get(key), Mapping)}
    inner = {f"{key}.{name}": value for key, values in nested.items() for name, value in values.items()}
    return {**config, **inner}


def _value_problems(config: Mapping[str, Any], family: Family, where: str) -> list[Problem]:
    values = with_inner_keys(config, family)
    problems = []
    for key, known in family.fixed.items():
        if key in values and not any(values[key] == one and type(values[key]) is type(one) for one in known):
            wanted = " or ".join(str(one) for one in known)
            cure = f"transformers computes with {wanted} whatever is written here: use a model that has it"
            problems.append(Problem(f"{values[key]!r} is not supported", where, key, cure))
    return problems


def _key_problems(config: Mapping[str, Any], family: Family, where: str) -> list[Problem]:
    allowed = family.config_keys | family.dropped | DESCRIPTIVE_KEYS | TOKEN_KEYS
    nested = {key.partition(".")[0] for key in family.config_keys if "." in key}
    inner = {f"{key}.{other}" for key in nested for other in DESCRIPTIVE_KEYS}
    problems = []
    for key in sorted(set(with_inner_keys(config, family)) - allowed - inner):
        if key == "quantization_config":
            cure = (
                "use the full-precision model, with `quantization.method: nf4` (or fp4) to hold it in 4 bits"
            )
            problems.append(Problem("the weights are quantized already", where, key, cure))
        elif key in DANGEROUS_KEYS:
            problems.append(Problem(f"refused: {DANGEROUS_KEYS[key]}", where, key, "remove the key"))
        else:
            cure = f"remove it if the {family.name} architecture does not need it"
            problems.append(Problem("key is not on the allow-list", where, key, cure))
    return problems


def _rope_problems(config: Mapping[str, Any], where: str) -> list[Problem]:
    problems = []
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if not isinstance(rope, Mapping):
            continue
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in STATIC_ROPE:
            cure = f"known: {', '.join(STATIC_ROPE)}"
            problems.append(Problem(f"rotary scaling '{kind}' depends on the batch", where, key, cure))
    return problems
