"""What GGUF knows of a model architecture: its name, its numbers, and the order of its rows.

llama.cpp wants some matrices with their output rows in another order than transformers (rotary pairs side by
side, q, k and v one after another). An order of rows is the whole difference, so it is all that a mapping
says: the same order serves a weight, its bias and the B of an adapter, and its inverse leads back.
Tensor names are those of the ``gguf`` package, llama.cpp's own table.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_kit.catalogue import GGUF_ARCHITECTURES
from lora_kit.errors import ModelError

Config = Mapping[str, Any]
Scalar = int | float | bool | str
RowOrder = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

# Buffers that older checkpoints carry along; llama.cpp makes its own masks and rotary tables.
_BUFFER = re.compile(r"\.(attention|attn)\.(bias|masked_bias)$|(^|\.)(rotary_emb\.)?inv_freq$")


def no_order(config: Config, name: str) -> RowOrder | None:
    """Rows are as transformers has them."""
    del config, name
    return None


def no_refusal(config: Config) -> str:
    """Every config of the architecture can be written."""
    del config
    return ""


def no_factors(config: Config) -> Floats | None:
    """The rotary frequencies are not changed."""
    del config
    return None


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture is written.

    Args:
        name: llama.cpp's name of it.
        metadata: Makes the values under ``<name>.`` from config.json (defaults filled in).
        row_order: ``order[i]`` is the row of transformers' tensor that becomes row i; None: as it is.
        refusal: Says what in a config GGUF (or llama.cpp's code for it) can't express; empty if all can be.
        rotary_factors: What each rotary frequency is divided by, float32 ``(head_dim / 2,)``, or None.
        needs_output: Whether llama.cpp insists on an output matrix even if it is tied to the embedding.
        dropped_prefix: A prefix of tensor names that the name table does not know.
    """

    name: str
    metadata: Callable[[Config], dict[str, Scalar]]
    row_order: Callable[[Config, str], RowOrder | None] = no_order
    refusal: Callable[[Config], str] = no_refusal
    rotary_factors: Callable[[Config], Floats | None] = no_factors
    needs_output: bool = False
    dropped_prefix: str = ""


def can_become_gguf(config: Config) -> str:
    """Say why a base can't become GGUF, from its config.json alone; an empty text means that it can.

    Cheap enough for planning: neither weights nor torch are looked at. The tokenizer is judged apart
    (``gguf.tokenizer``), as is the template.
    """
    model_type = config.get("model_type")
    if model_type not in GGUF_ARCHITECTURES:
        known = ", ".join(sorted(GGUF_ARCHITECTURES))
        return f"lora_kit has no GGUF mapping for '{model_type}' (known: {known})"
    architecture: Architecture = GGUF_ARCHITECTURES[str(model_type)]
    return architecture.refusal(config)


def architecture_of(config: Config, *, where: str) -> Architecture:
    """Return the mapping of a config.

    Raises:
        ModelError: The base can't become GGUF.
    """
    reason = can_become_gguf(config)
    if reason:
        raise ModelError(f"can't become GGUF: {reason}", where=where, cure="export it with --to safetensors")
    found: Architecture = GGUF_ARCHITECTURES[str(config["model_type"])]
    return found


def layer_count(config: Config) -> int:
    """Number of blocks, under whichever key the architecture has it."""
    return int(next(config[key] for key in ("num_hidden_layers", "n_layer", "n_layers") if config.get(key)))


def tensor_names(
    architecture: Architecture, config: Config, names: list[str], *, where: str
) -> dict[str, str]:
    """Map transformers' tensor names to GGUF's, in the given order; buffers are left out.

    Raises:
        ModelError: A tensor has no place in the format.
    """
    from gguf.constants import MODEL_ARCH_NAMES
    from gguf.tensor_mapping import get_tensor_name_map

    kind = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture.name)
    table = get_tensor_name_map(kind, layer_count(config))
    found: dict[str, str] = {}
    for name in names:
        if _BUFFER.search(name):
            continue
        known = table.get_name(name.removeprefix(architecture.dropped_prefix), (".weight", ".bias"))
        if known is None:
            raise ModelError(
                f"the tensor '{name}' has no name in GGUF's {architecture.name} architecture", where=where
            )
        found[name] = known
    return found


def halves_to_pairs(heads: int, rows: int) -> RowOrder:
    """Order that puts the two halves of each rotary head side by side, as llama.cpp's LLaMA reads them.

    transformers rotates row j of a head with row j + half; llama.cpp rotates rows 2j and 2j + 1.

    Example:
        >>> halves_to_pairs(1, 4).tolist()
        [0, 2, 1, 3]
    """
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(rows)


def heads_to_blocks(heads: int, rows: int) -> RowOrder:
    """Order that turns a fused projection of (head, q/k/v) rows into all q, all k, all v.

    Example:
        >>> heads_to_blocks(2, 6).tolist()
        [0, 3, 1, 4, 2, 5]
    """
    return np.arange(rows).reshape(heads, 3, rows // heads // 3).swapaxes(0, 1).reshape(rows)


def sizes(config: Config) -> dict[str, Scalar]:
    """The keys of most architectures, in the order that the files have them."""
    return {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
    }


def grouped_sizes(config: Config) -> dict[str, Scalar]:
    """``sizes`` with fewer heads of keys and values than of queries."""
    return {**sizes(config), "attention.head_count_kv": config["num_key_value_heads"]}


def rms_sizes(config: Config) -> dict[str, Scalar]:
    """``grouped_sizes`` with a size of head of its own, and RMS norms: LLaMA and its heirs."""
    head = head_size(config)
    return {
        **grouped_sizes(config),
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
    }


def head_size(config: Config) -> int:
    """Rows of one head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def window_refusal(config: Config) -> str:
    """Refuse a sliding window that is shorter than the context."""
    window, context = config.get("sliding_window"), config["max_position_embeddings"]
    below = window and window < context
    return f"a sliding window of {window} tokens below the context of {context}" if below else ""


def activation_refusal(config: Config, key: str = "hidden_act", known: str = "silu") -> str:
    """Refuse an activation other than llama.cpp's own; its one GELU stands for all of them."""
    names = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh") if known == "gelu" else (known,)
    found = config.get(key, names[-1])
    return "" if found in names else f"activation '{found}' (llama.cpp has {known})"


def rotary(config: Config) -> dict[str, Scalar]:
    """The rotary keys that all architectures share: base frequency and linear scaling."""
    rope = config.get("rope_parameters") or {}
    values: dict[str, Scalar] = {"rope.freq_base": float(rope.get("rope_theta", 10000.0))}
    if rope.get("rope_type") == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    return values


def rotary_refusal(config: Config, known: tuple[str, ...] = ("default", "linear")) -> str:
    """Refuse what ``rotary`` does not write."""
    kind = (config.get("rope_parameters") or {}).get("rope_type", "default")
    return "" if kind in known else f"rotary scaling '{kind}' is not written"
