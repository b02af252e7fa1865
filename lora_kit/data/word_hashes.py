r"""Texts -> 64-bit hashes of their words and of runs of words, many texts at once.

A word is ``\w+`` in lower case. All of a block's bytes are hashed in a handful of numpy
calls (the hash of a word is a difference of prefix sums of ``byte * P**position``), so that
comparing rows costs less than a tenth of encoding them. Hashes are the same on every machine.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]

BLOCK_BYTES = 1 << 16
_NOT_WORD = re.compile(r"\W+")
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_STEP = 0xD1342543DE82EF95
_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32
_IS_WORD = np.array([chr(byte).isalnum() or byte == ord("_") or byte > 127 for byte in range(256)])


class Words(NamedTuple):
    """Words of N texts.

    Args:
        hashes: Uint64 (W,), the words of all texts in order.
        bounds: Int64 (N + 1,); those of text n are ``hashes[bounds[n]:bounds[n + 1]]``.
    """

    hashes: Hashes
    bounds: Index


def mixed(values: Hashes) -> Hashes:
    """Scramble numbers so that every bit depends on every other (the end of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hash_words(texts: Sequence[str]) -> Words:
    """Hash the words of texts, in memory that grows with the longest text and not with their number."""
    hashes, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for block in _blocks([_as_bytes(text) for text in texts]):
        found = _hash_block(block)
        hashes.append(found.hashes)
        counts.append(np.diff(found.bounds))
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))])
    return Words(np.concatenate(hashes), bounds)


def hash_runs(words: Words, size: int) -> Words:
    """Hash every run of `size` neighbouring words within a text; shorter texts have none."""
    counts = np.maximum(np.diff(words.bounds) - (size - 1), 0)
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    if len(words.hashes) < size:
        return Words(np.zeros(0, np.uint64), bounds)
    inside = np.zeros(len(words.hashes) + 1, np.int64)  # +1 where the runs of a text start, -1 where they end
    some = counts > 0
    np.add.at(inside, words.bounds[:-1][some], 1)
    ends = words.bounds[:-1][some] + counts[some]
    np.add.at(inside, ends, -1)
    return Words(_rolling(words.hashes, size)[np.cumsum(inside)[:-size] > 0], bounds)


def hash_whole(hashes: Hashes) -> int:
    """Hash one run of words; equal to what `hash_runs` finds for a run of that length."""
    return int(_rolling(hashes, len(hashes))[0])


def _rolling(hashes: Hashes, size: int) -> Hashes:
    last = len(hashes) - size + 1
    total = np.zeros(last, np.uint64)
    for offset in range(size):
        total = total * np.uint64(_STEP) + hashes[offset : offset + last]
    return mixed(total)


def _as_bytes(text: str) -> bytes:
    if text.isascii():
        return text.encode()
    return _NOT_WORD.sub(" ", text.lower()).encode("utf-8", "surrogatepass")


def _blocks(texts: Sequence[bytes]) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    size = 0
    for text in texts:
        if block and size + len(text) > BLOCK_BYTES:
            yield block
            block, size = [], 0
        block.append(text)
        size += len(text) + 1
    if block:
        yield block


def _hash_block(texts: list[bytes]) -> Words:
    joined = np.frombuffer(b"\n".join([*texts, b""]), np.uint8)
    is_word = np.concatenate([[False], _IS_WORD[joined]])
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])  # the last byte is no part of a word: edges are pairs
    starts, ends = edges[0::2], edges[1::2]
    up, down = _powers(1 << (len(joined) - 1).bit_length())
    sums = np.zeros(len(joined) + 1, np.uint64)
    np.cumsum((_LOWER[joined].astype(np.uint64) + np.uint64(1)) * up[: len(joined)], out=sums[1:])
    hashes = mixed((sums[ends] - sums[starts]) * down[starts])
    limits = np.cumsum([0, *(len(text) + 1 for text in texts)])
    return Words(hashes, np.searchsorted(starts, limits).astype(np.int64))


@lru_cache(maxsize=4)
def _powers(size: int) -> tuple[Hashes, Hashes]:
    up, down = np.full(size, _BASE, np.uint64), np.full(size, _INVERSE, np.uint64)
    up[0] = down[0] = 1
    return np.cumprod(up), np.cumprod(down)
