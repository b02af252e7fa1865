r"""Rows that say nearly the same: shingles, MinHash and locality-sensitive hashing.

Two texts are near duplicates if their sets of 5-word shingles (runs of words, ``\w+`` in lower case)
have a Jaccard similarity of at least 0.8. MinHash (Broder 1997) in 16 bands of 4 finds the pairs worth
a look: a pair at 0.8 is missed once in 4,600 times, one at 0.9 never in practice. Each of them is then
compared by its shingles, so a pair that is reported is one. Written with numpy over blocks of rows, after
datasketch's scheme, whose cost per row would be that of encoding it; the tests compare the two.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lora_kit.data.word_hashes import Hashes, Words, hash_runs, hash_whole, hash_words, mixed

THRESHOLD = 0.8
SHINGLE_WORDS = 5
BANDS, BAND_HASHES = 16, 4
INDEXED_ROWS = 100_000  # 2 KB each: later rows are compared with these, not with one another
KEPT_SHINGLES = 512  # of longer texts the smallest, from which the similarity is estimated
COMPARED_ROWS = 16  # at most, per row; those that share most bands come first
BUCKET_ROWS = 8

_ODD = mixed(np.arange(1, BANDS * BAND_HASHES + 1, dtype=np.uint64)) | np.uint64(1)
_BAND_STEP = np.uint64(0x9FB21C651E98DF25)
_NO_SHINGLES = np.zeros(0, np.uint32)


class Sketch(NamedTuple):
    """What is kept of a text to compare it.

    Args:
        bands: One 64-bit key per band; texts that share one may be near duplicates. Empty for no words.
        shingles: Uint32 (S,), S at most `KEPT_SHINGLES`, in no order, possibly repeated.
    """

    bands: tuple[int, ...]
    shingles: npt.NDArray[np.uint32]


def sketch(texts: Sequence[str]) -> list[Sketch]:
    """Sketch texts; best many at once."""
    shingles = _shingles(hash_words(texts))
    some = np.flatnonzero(np.diff(shingles.bounds))
    keys = _band_keys(shingles.hashes, shingles.bounds[some]).tolist() if len(some) else []
    found = [Sketch((), _NO_SHINGLES)] * len(texts)
    short = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
    for key, row in zip(keys, some.tolist(), strict=True):
        found[row] = Sketch(tuple(key), _kept(short[shingles.bounds[row] : shingles.bounds[row + 1]]))
    return found


def similarity(one: Sketch, other: Sketch) -> float:
    """Jaccard similarity of two sketches; exact up to `KEPT_SHINGLES` shingles, else estimated."""
    ours, theirs = np.unique(one.shingles), np.unique(other.shingles)
    values, counts = np.unique(np.concatenate([ours, theirs]), return_counts=True)
    if max(len(ours), len(theirs)) >= KEPT_SHINGLES:
        counts = counts[:KEPT_SHINGLES]
    return float(np.count_nonzero(counts == 2) / len(counts)) if len(values) else 0.0


@dataclass(slots=True)
class NearIndex:
    """Sketches by their bands, to find the earlier rows that a row is like.

    Args:
        limit: How many rows are entered; what comes later is compared with these only.
        rows: Number of the sketches so far.
        crowded: Times that so many rows shared a band that not all of them were kept or compared.
    """

    limit: int = INDEXED_ROWS
    rows: int = 0
    crowded: int = 0
    _sketches: dict[int, Sketch] = field(default_factory=dict)
    _buckets: dict[int, int | list[int]] = field(default_factory=dict)

    def like(self, row: Sketch, wanted: Callable[[int], bool]) -> Iterator[tuple[int, float]]:
        """Yield (entered row, similarity) of near duplicates, the likeliest first.

        Args:
            row: What to look for.
            wanted: Says whether a row is worth comparing; asked just before.
        """
        shared: Counter[int] = Counter()
        for key in row.bands:
            bucket = self._buckets.get(key)
            if bucket is not None:
                shared.update([bucket] if isinstance(bucket, int) else bucket)
        if not shared:
            return
        self.crowded += len(shared) > COMPARED_ROWS
        for other, _ in shared.most_common(COMPARED_ROWS):
            if wanted(other) and (found := similarity(row, self._sketches[other])) >= THRESHOLD:
                yield other, found

    def enter(self, number: int, row: Sketch) -> None:
        """Keep a row for later ones to be compared with, while there is room."""
        self.rows += 1
        if len(self._sketches) >= self.limit or not row.bands:
            return
        self._sketches[number] = row
        is_left_out = False
        for key in row.bands:
            bucket = self._buckets.setdefault(key, number)
            if isinstance(bucket, int):
                if bucket != number:
                    self._buckets[key] = [bucket, number]
            elif len(bucket) < BUCKET_ROWS:
                bucket.append(number)
            else:
                is_left_out = True
        self.crowded += is_left_out

    @property
    def is_complete(self) -> bool:
        """Whether every row was compared with every earlier one."""
        return self.rows <= self.limit and not self.crowded


def _shingles(words: Words) -> Words:
    """Runs of five words; a shorter text is one shingle."""
    runs = hash_runs(words, SHINGLE_WORDS)
    counts = np.diff(words.bounds)
    short = np.flatnonzero((counts > 0) & (counts < SHINGLE_WORDS))
    if not len(short):
        return runs
    whole = [hash_whole(words.hashes[words.bounds[n] : words.bounds[n + 1]]) for n in short.tolist()]
    hashes = np.insert(runs.hashes, runs.bounds[short], np.array(whole, np.uint64))
    sizes = np.diff(runs.bounds)
    sizes[short] = 1
    return Words(hashes, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]))


def _band_keys(hashes: Hashes, starts: npt.NDArray[np.int64]) -> Hashes:
    """Smallest of each permutation, row by row, folded into one key per band: (rows, BANDS)."""
    folded = np.empty((len(starts), BANDS), np.uint64)
    for band in range(BANDS):
        key = np.full(len(starts), band, np.uint64)
        for odd in _ODD[band * BAND_HASHES : (band + 1) * BAND_HASHES]:
            key = key * _BAND_STEP + np.minimum.reduceat(hashes * odd, starts)
        folded[:, band] = mixed(key)
    return folded


def _kept(shingles: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    if len(shingles) <= KEPT_SHINGLES:
        return shingles.copy()
    return np.unique(shingles)[:KEPT_SHINGLES].copy()
