"""One pass of a model over new tokens of many rows, with keys and values in a KeyValueCache.

A pass reads prompts laid end to end, without padding, or computes the next tokens of each row. transformers'
own layers run, or for LLaMA on a CPU those of ``llama_step``; what a token may look at comes from here:
through the attention interface for rotary models and learned positions, block by block for BLOOM and MPT,
whose ALiBi transformers builds by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from lora_kit.model import llama_step
from lora_kit.model.bare import bare_model
from lora_kit.model.cached_attention import CACHED_ATTENTION, mask_for
from lora_kit.model.few_rows import times
from lora_kit.model.kv_cache import KeyValueCache, Span

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
    model: PreTrainedModel | PeftModel,
    cache: KeyValueCache,
    tokens: Sequence[Sequence[int]],
    lengths: Sequence[int],
    wanted: Sequence[int] | None = None,
) -> Tensor:
    """Read new tokens of each of the first rows of the cache.

    Args:
        model: As for :func:`read`.
        cache: Takes the tokens in.
        tokens: Ids of each row, at least one; only one where :func:`takes_several` says no.
        lengths: Tokens that are known of each row.
        wanted: After how many of its last tokens each row wants scores; after all, if None.

    Returns:
        Scores ``(tokens that want some, V)`` of the token after each one, in the order of ``tokens``.
    """
    base = bare_model(model)
    counts = [len(row) for row in tokens]
    made = cache.announce_step(lengths, counts, base.device)
    ids = torch.tensor([token for row in tokens for token in row], device=base.device)
    if base.config.model_type in ALIBI:
        assert len(made.slots) == made.rows, "ALiBi is built for one token a row"
        return _scores(base, _states(base, cache, ids[:, None], made.positions[:, None])[:, 0])
    hidden = _states(base, cache, ids, made.positions[None])[0]
    if wanted is not None and sum(wanted) < len(ids):
        ends = zip(accumulate(counts), wanted, strict=True)
        last = [at for end, want in ends for at in range(end - want, end)]
        hidden = hidden.index_select(0, torch.tensor(last, device=base.device))
    return _scores(base, hidden)


def takes_several(model: PreTrainedModel | PeftModel) -> bool:
    """Whether a step can compute several tokens of a row."""
    return bare_model(model).config.model_type not in ALIBI


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
    if rows > FEW_ROWS:
        return linear(x, weight, bias)
    out = times(weight, bias, x.reshape(rows, -1).t())
    return out.t().unflatten(0, x.shape[:-1])


def _scores(base: PreTrainedModel, hidden: Tensor) -> Tensor:
    scores: Tensor = base.get_output_embeddings()(hidden)
    return scores


def _states(base: PreTrainedModel, cache: KeyValueCache, ids: Tensor, positions: Tensor) -> Tensor:
    """Run the decoder below its head; returns ``(1, N, H)``, or ``(B, 1, H)`` for a step of ALiBi models."""
    if base.config.model_type in ALIBI:
        return ALIBI[base.config.model_type](base.base_model, cache, ids)
    mask = mask_for(cache, base.dtype, ids.device)
    if cache.step is not None and cache.quick is None:
        cache.quick = llama_step.fits(base)  # looks at every layer, which a step has no time for
    if cache.step is not None and cache.quick:
        return llama_step.states(base.base_model, ids, positions, mask)[None]
    own, base.config._attn_implementation = base.config._attn_implementation, CACHED_ATTENTION  # noqa: SLF001
    try:
        output = base.base_model(
            input_ids=ids.view(1, -1),
            position_ids=positions,
            attention_mask=mask,
            use_cache=False,
        )
    finally:
        base.config._attn_implementation = own  # noqa: SLF001 - transformers has no public name for it
    hidden: Tensor = output.last_hidden_state
    return hidden


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
    if cache.step is not None:
        return mask_for(cache, hidden.dtype, hidden.device)
    (span,) = cache.spans
    return hidden.new_full((span.tokens, span.end), float("-inf")).triu_(span.start + 1)[None, None]


ALIBI: dict[str, Callable[[Any, KeyValueCache, Tensor], Tensor]] = {
    "bloom": _bloom_states,
    "mpt": _mpt_states,
}
