"""One pass of a model over new tokens of many rows, with keys and values in a KeyValueCache.

A pass reads prompts laid end to end, without padding, or computes the next token of each row. transformers'
own layers run; only what a token may look at comes from here: through the attention interface for rotary
models and learned positions, block by block for BLOOM and MPT, whose ALiBi transformers builds by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from lora_kit.model.attention import ON_THE_MASK
from lora_kit.model.bare import bare_model
from lora_kit.model.kv_cache import KeyValueCache, Span

CACHED_ATTENTION = "lora_kit_cached"
FEW_ROWS = 1024  # up to here W x^T is the faster order; above, both run at the full rate
MANY_WEIGHTS = 2**16


def read(
    model: PreTrainedModel | PeftModel,
    cache: KeyValueCache,
    tokens: Sequence[Sequence[int]],
    spans: Sequence[Span],
) -> Tensor:
    """Read rows of new tokens.

    Args:
        model: In evaluation mode, on the side (adapter or base) that is wanted.
        cache: Takes the tokens in.
        tokens: New ids of each row, at least one.
        spans: Where they belong.

    Returns:
        Scores ``(rows, V)`` of the token after each row.
    """
    base = bare_model(model)
    if base.config.model_type in ALIBI and len(spans) > 1:
        rows = zip(tokens, spans, strict=True)
        return torch.cat([read(model, cache, [row], [span]) for row, span in rows])
    cache.announce_read(spans)
    ids = torch.tensor([[token for row in tokens for token in row]], device=base.device)
    positions = [at for span in spans for at in range(span.start, span.end)]
    hidden = _states(base, cache, ids, torch.tensor([positions], device=base.device))[0]
    ends = torch.tensor([span.tokens for span in spans], device=base.device).cumsum(0) - 1
    return _scores(base, hidden.index_select(0, ends))


def step(
    model: PreTrainedModel | PeftModel, cache: KeyValueCache, tokens: Sequence[int], lengths: Sequence[int]
) -> Tensor:
    """Read one token for each of the first rows of the cache.

    Args:
        model: As for :func:`read`.
        cache: Takes the tokens in.
        tokens: One id a row.
        lengths: Tokens that are known of each row.

    Returns:
        Scores ``(B, V)`` of the token after.
    """
    base = bare_model(model)
    cache.announce_step(lengths, base.device)
    ids = torch.tensor(tokens, device=base.device)[:, None]
    assert cache.lengths is not None
    return _scores(base, _states(base, cache, ids, cache.lengths[:, None])[:, 0])


@contextmanager
def quick_products(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Let the linear layers multiply few rows as W x^T: MKL does it at up to twice the rate of x W^T."""
    layers = [module for module in model.modules() if _is_large_linear(module)]
    for layer in layers:
        layer.forward = partial(_linear, layer.weight, layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_large_linear(module: nn.Module) -> bool:
    # Exactly: a subclass, as bitsandbytes', multiplies in its own way; so does one whose forward is replaced.
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    weight = module.weight
    return weight.device.type == "cpu" and weight.dtype.itemsize >= 4 and weight.numel() >= MANY_WEIGHTS


def _linear(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    rows = x.numel() // x.shape[-1]
    if not 1 < rows <= FEW_ROWS:
        return linear(x, weight, bias)
    flat = x.reshape(rows, -1).t()
    out = torch.mm(weight, flat) if bias is None else torch.addmm(bias[:, None], weight, flat)
    return out.t().unflatten(0, x.shape[:-1])


def _scores(base: PreTrainedModel, hidden: Tensor) -> Tensor:
    scores: Tensor = base.get_output_embeddings()(hidden)
    return scores


def _states(base: PreTrainedModel, cache: KeyValueCache, ids: Tensor, positions: Tensor) -> Tensor:
    """Run the decoder below its head; returns ``(*ids.shape, H)``."""
    if base.config.model_type in ALIBI:
        return ALIBI[base.config.model_type](base.base_model, cache, ids)
    mask = _mask(cache, base.dtype, ids.device)
    mask.__dict__[ON_THE_MASK] = {"kv_cache": cache}  # StableLM's layers hand on nothing else
    own, base.config._attn_implementation = base.config._attn_implementation, CACHED_ATTENTION  # noqa: SLF001
    try:
        output = base.base_model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            use_cache=False,
        )
    finally:
        base.config._attn_implementation = own  # noqa: SLF001 - transformers has no public name for it
    hidden: Tensor = output.last_hidden_state
    return hidden


def cached_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    **options: Any,  # noqa: ANN401 - the signature of transformers' AttentionInterface
) -> tuple[Tensor, None]:
    """Attend to what the cache knows and to the new tokens up to one's own.

    Args:
        module: The attention layer; it has a ``layer_idx``.
        query: Float ``(1, heads, T, D)`` in a read, ``(B, heads, 1, D)`` in a step.
        key: The same with the key-value heads.
        value: Like ``key``.
        attention_mask: What a step may see, added to the scores, ``(B, 1, 1, longest)``; empty in a read.
        options: ``scaling``.

    Returns:
        Float ``(1, T, heads, D)`` or ``(B, 1, heads, D)``, and no attention weights.
    """
    cache: KeyValueCache = getattr(attention_mask, ON_THE_MASK)["kv_cache"]
    layer: int = module.layer_idx  # type: ignore[assignment]
    keys, values = cache.update(key, value, layer)
    if not cache.spans:
        return _look_back(query, keys, values, attention_mask, options["scaling"]), None
    pieces = []
    for piece, span in zip(query.split([span.tokens for span in cache.spans], 2), cache.spans, strict=True):
        keys, values = cache.row(layer, span)
        later = None
        if span.start:
            visible = torch.ones(span.tokens, span.end, dtype=torch.bool, device=query.device)
            later = visible.tril_(span.start)
        pieces.append(
            scaled_dot_product_attention(
                piece,
                keys,
                values,
                attn_mask=later,
                is_causal=not span.start,
                scale=options["scaling"],
                enable_gqa=piece.shape[1] != keys.shape[1],
            )
        )
    return torch.cat(pieces, dim=2).transpose(1, 2), None


AttentionInterface.register(CACHED_ATTENTION, cached_attention)


def _look_back(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """One query a row; query heads that share a key head are rows of one product, and nothing is repeated."""
    folded = query[:, :, 0].unflatten(1, (keys.shape[1], -1))  # (B, key-value heads, G, D)
    scores = torch.matmul(folded, keys.transpose(2, 3)).mul_(scaling).add_(mask)
    return torch.matmul(torch.softmax(scores, dim=-1), values).flatten(1, 2)[:, None]


def _mask(cache: KeyValueCache, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to a step's scores: minus infinity where a row has no token; empty in a read."""
    if cache.lengths is None:
        return torch.empty(1, 1, 0, 0, dtype=dtype, device=device)
    unknown = torch.arange(cache.longest, device=device) > cache.lengths[:, None]
    mask = torch.zeros(unknown.shape, dtype=dtype, device=device).masked_fill_(unknown, float("-inf"))
    return mask[:, None, None]


def _bloom_states(decoder: Any, cache: KeyValueCache, ids: Tensor) -> Tensor:  # noqa: ANN401 - a BloomModel
    """BLOOM's blocks; a key's ALiBi is its position times the head's slope, for every row alike."""
    hidden = decoder.word_embeddings_layernorm(decoder.word_embeddings(ids))
    known = torch.ones(len(ids), cache.longest, dtype=torch.int64, device=ids.device)
    alibi = build_alibi_tensor(known, decoder.num_heads, hidden.dtype)
    mask = _alibi_mask(cache, hidden)
    for block in decoder.h:
        hidden = block(hidden, alibi=alibi, attention_mask=mask, layer_past=cache)[0]
    states: Tensor = decoder.ln_f(hidden)
    return states


def _mpt_states(decoder: Any, cache: KeyValueCache, ids: Tensor) -> Tensor:  # noqa: ANN401 - an MptModel
    """MPT's blocks; the bias counts back from the last place in the cache, which softmax does not notice."""
    hidden = decoder.wte(ids)
    bias = build_mpt_alibi_tensor(decoder.num_heads, decoder.config.max_seq_len, device=ids.device)
    hidden_keys = _alibi_mask(cache, hidden) != 0
    for block in decoder.blocks:
        hidden = block(hidden, position_bias=bias, attention_mask=hidden_keys, layer_past=cache)[0]
    states: Tensor = decoder.norm_f(hidden)
    return states


def _alibi_mask(cache: KeyValueCache, hidden: Tensor) -> Tensor:
    """What is added to the scores, of a step or of one row that is read."""
    if cache.lengths is not None:
        return _mask(cache, hidden.dtype, hidden.device)
    (span,) = cache.spans
    return hidden.new_full((span.tokens, span.end), float("-inf")).triu_(span.start + 1)[None, None]


ALIBI: dict[str, Callable[[Any, KeyValueCache, Tensor], Tensor]] = {
    "bloom": _bloom_states,
    "mpt": _mpt_states,
}
