"""Causal attention of all segments of a long row in one call: kernels of a GPU.

Three ways to say the same: flash-attn and torch's ``varlen_attn`` take the ends of the segments, flex
attention a mask. A segment that continues others attends to their keys too; for flash-attn the keys of its
path are laid before its own, and its queries stand at their end; for flex the mask says who sees whom. Not
run on a GPU yet; tested on the CPU with stand-ins of the libraries' kernels, and flex as it is.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from lora_kit.model.branch_attention import paths_of
from lora_kit.model.machine import Attention

Chances = dict[str, Any]


class Ends(NamedTuple):
    """Where segments end, for kernels that take rows of uneven lengths.

    Args:
        queries: Int32 ``(S + 1,)``, from 0.
        keys: Int32 ``(S + 1,)``, from 0.
        longest_queries: Of a segment.
        longest_keys: Of a segment's path.
        order: Int64, which keys to take, path after path; None for all of them once.
    """

    queries: Tensor
    keys: Tensor
    longest_queries: int
    longest_keys: int
    order: Tensor | None


def row_attention(
    way: Attention,
    states: tuple[Tensor, Tensor, Tensor],
    lengths: tuple[int, ...],
    parents: tuple[int, ...],
    *,
    scaling: float,
    dropout: float,
) -> Tensor:
    """Attend in one call.

    Args:
        way: Which kernel; not ``segments``.
        states: Query, float ``(1, heads, T, D)``, key and value, ``(1, key-value heads, T, D)``.
        lengths: Tokens of each segment, sum T.
        parents: The earlier segment that each continues, -1 for none.
        scaling: Factor of the scores.
        dropout: Probability of dropping an attention weight; 0 except with flash-attn.

    Returns:
        Float ``(1, heads, T, D)``.
    """
    device = states[0].device
    if way == "flex":
        mask = block_mask(lengths, parents, device)
        shared = states[0].shape[1] != states[1].shape[1]
        output: Tensor = flex()(*states, block_mask=mask, scale=scaling, enable_gqa=shared)
        return output
    query, key, value = (state[0].transpose(0, 1) for state in states)
    ends = ends_of(lengths, parents, device)
    if ends.order is not None:
        key, value = key.index_select(0, ends.order), value.index_select(0, ends.order)
    kernel = flash() if way == "flash" else varlen()
    return kernel(query, key, value, ends, scaling, dropout).transpose(0, 1)[None]


@lru_cache(maxsize=4)  # all layers of a micro-batch ask for the same
def ends_of(lengths: tuple[int, ...], parents: tuple[int, ...], device: torch.device) -> Ends:
    """Lay the keys of each segment's path one after another."""
    paths = paths_of(lengths, parents)
    seen = [sum(part.stop - part.start for part in path) for path in paths]
    order = None
    if any(len(path) > 1 for path in paths):
        order = torch.cat([torch.arange(part.start, part.stop) for path in paths for part in path]).to(device)
    return Ends(_sums(lengths, device), _sums(seen, device), max(lengths), max(seen), order)


def _sums(counts: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0).to(device, torch.int32)


@lru_cache(maxsize=4)
def block_mask(lengths: tuple[int, ...], parents: tuple[int, ...], device: torch.device) -> Any:  # noqa: ANN401
    """Build flex attention's mask: a token sees the earlier ones of its segment and of its ancestors."""
    from torch.nn.attention.flex_attention import create_block_mask

    count, total = len(lengths), sum(lengths)
    segment = torch.repeat_interleave(torch.arange(count), torch.tensor(lengths)).to(device)
    sees = torch.eye(count, dtype=torch.bool)
    for number, parent in enumerate(parents):
        if parent >= 0:
            sees[number] |= sees[parent]
    sees = sees.to(device)

    def visible(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees[segment[query], segment[key]] & (key <= query)  # an ancestor lies before its descendants

    return create_block_mask(visible, None, None, total, total, device=str(device))


Kernel = Callable[[Tensor, Tensor, Tensor, Ends, float, float], Tensor]


@cache
def flash() -> Kernel:
    """flash-attn's kernel: its causal mask is aligned to the last key, from version 2.1 on."""
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found,unused-ignore]

    def attend(
        query: Tensor, key: Tensor, value: Tensor, ends: Ends, scaling: float, dropout: float
    ) -> Tensor:
        output = flash_attn_varlen_func(
            query, key, value, ends.queries, ends.keys, ends.longest_queries, ends.longest_keys,
            dropout_p=dropout, softmax_scale=scaling, causal=True, deterministic=True,
        )  # fmt: skip
        return cast("Tensor", output)

    return attend


@cache
def varlen() -> Kernel:
    """The kernel of torch itself; without dropout."""
    from torch.nn.attention.varlen import varlen_attn

    def attend(query: Tensor, key: Tensor, value: Tensor, ends: Ends, scaling: float, _: float) -> Tensor:
        output = varlen_attn(
            query, key, value, ends.queries, ends.keys, ends.longest_queries, ends.longest_keys,
            scale=scaling, window_size=(-1, 0), enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
        return cast("Tensor", output)

    return attend


@cache
def flex() -> Callable[..., Tensor]:
    """Flex attention, compiled once for all lengths."""
    from torch.nn.attention.flex_attention import flex_attention

    return cast("Callable[..., Tensor]", torch.compile(flex_attention, dynamic=True))
