"""The ledger of rows: first and last loss of each, rows that never learn, labels that may be wrong.

Wrong labels are learned late and poorly, so rows whose loss stays high while that of rows like them falls are
worth a look (small-loss criterion; Swayamdipta et al. 2020, arXiv 2009.10795, on mislabelled rows among the
hard to learn). A row is held against rows of the same epoch, seen at about the same time and of about the
same length, with the modified z-score of Iglewicz and Hoaglin (1993): distance from the median over
1.4826 MAD. Losses lean to the right, so the deviation is taken of those above the median. It is a hint.
"""

import csv
import io
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_kit.report.wording import finite

LIKE = 64  # rows that a row is compared with, at least
AT_A_TIME = 32  # visits whose median is the loss of the time
NOISE = 0.05  # nats per token; what differs by less is taken as equal
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
SUSPECT = 3.5  # Iglewicz and Hoaglin's limit
PER_ROW = ("rows", "row_nats", "row_tokens")
COLUMNS = ("row", "times", "tokens", "first", "last", "change", "score", "never_learned", "maybe_wrong")
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Visits:
    """What the training log says of rows, gathered line by line: 32 bytes for each time a row is seen."""

    def __init__(self) -> None:
        self.origins: dict[str, int] = {}
        self.rows, self.epochs, self.tokens = array("q"), array("q"), array("q")
        self.nats = array("d")

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line of the log; one without numbers of its rows, or with damaged ones, says nothing."""
        columns = [line.get(name) for name in PER_ROW]
        epoch = line.get("epoch")
        if not isinstance(epoch, int) or not _is_count(epoch):
            return
        if not all(isinstance(column, list) for column in columns):
            return
        entries = list(zip(*columns, strict=False))
        if not all(map(_is_sound, entries)):
            return
        for origin, nats, tokens in entries:
            self.rows.append(self.origins.setdefault(origin, len(self.origins)))
            self.epochs.append(epoch)
            self.nats.append(nats)
            self.tokens.append(tokens)


def _is_sound(entry: tuple[object, object, object]) -> bool:
    origin, nats, tokens = entry
    return isinstance(origin, str) and finite(nats) is not None and _is_count(tokens) and tokens != 0


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


@dataclass(frozen=True, slots=True)
class Ledger:
    """Each of R rows once, in the order in which training met them; losses in nats per trained token.

    Args:
        origins: ``file:row``.
        times: In how many epochs it was seen.
        tokens: Trained tokens.
        first: Loss when it was first seen, before the update.
        last: Loss when it was last seen.
        score: How far its loss stays above that of rows like it, in deviations; the mean over all epochs but
            the first, where there are more.
    """

    origins: tuple[str, ...]
    times: Ints
    tokens: Ints
    first: Floats
    last: Floats
    score: Floats

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def repeats(self) -> bool:
        """Whether any row was seen more than once: only then a row can learn, or not."""
        return bool((self.times > 1).any())

    @property
    def never_learned(self) -> Flags:
        """Rows that were seen again, have no lower loss than at first, and one that is not low.

        Not lower means by less than NOISE, or less than a quarter of what rows fall by if that is less yet.
        """
        again = self.times > 1
        fall = self.first - self.last
        if not again.any():
            return again
        noise = float(np.clip(np.median(fall[again]) / 4, 0.0, NOISE))
        flags: Flags = again & (fall <= noise) & (self.last > max(NOISE, float(np.median(self.last[again]))))
        return flags

    @property
    def maybe_wrong(self) -> Flags:
        """Rows that were seen again, and whose loss stays far above that of rows like them."""
        flags: Flags = (self.times > 1) & (self.score >= SUSPECT)
        return flags

    def hardest(self) -> Ints:
        """All rows, by score."""
        order: Ints = np.argsort(-self.score, kind="stable")
        return order

    def to_csv(self) -> bytes:
        """One line a row, by score."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(self._lines())
        return text.getvalue().encode("utf-8", "backslashreplace")

    def _lines(self) -> Iterator[tuple[object, ...]]:
        never, wrong = self.never_learned, self.maybe_wrong
        for row in self.hardest().tolist():
            first, last = float(self.first[row]), float(self.last[row])
            losses = tuple(f"{value:.4f}" for value in (first, last, last - first, float(self.score[row])))
            flags = (int(never[row]), int(wrong[row]))
            yield self.origins[row], int(self.times[row]), int(self.tokens[row]), *losses, *flags


def build_ledger(visits: Visits) -> Ledger | None:
    """Add up what was gathered; None if the log holds nothing of rows (it is of an older version)."""
    if not visits.rows:
        return None
    rows, epochs, tokens = (
        np.asarray(part, np.int64) for part in (visits.rows, visits.epochs, visits.tokens)
    )
    order = np.lexsort((epochs, rows))  # stable: visits of one row in one epoch keep their order
    starts = np.flatnonzero(_differs(rows[order]) | _differs(epochs[order]))
    # Conversations of one row (paths of a message tree) count together.
    nats = np.add.reduceat(np.asarray(visits.nats)[order], starts)
    tokens = np.add.reduceat(tokens[order], starts)
    rows, epochs, when = rows[order][starts], epochs[order][starts], order[starts]
    loss = nats / tokens
    begins = np.flatnonzero(_differs(rows))
    times = np.diff([*begins, len(rows)])
    ends = begins + times - 1
    counted = (times > 1).repeat(times)
    counted[begins] = times == 1  # the first visit tells what a row was, not what is left of it
    score = np.where(counted, _scores(loss, epochs, when, tokens), 0.0)
    return Ledger(
        origins=tuple(visits.origins),
        times=times,
        tokens=tokens[ends],
        first=loss[begins],
        last=loss[ends],
        score=np.add.reduceat(score, begins) / np.maximum(times - 1, 1),
    )


def _differs(values: Ints) -> Flags:
    """Whether each value differs from the one before."""
    flags: Flags = np.concatenate([[True], values[1:] != values[:-1]])
    return flags


def _scores(loss: Floats, epochs: Ints, when: Ints, tokens: Ints) -> Floats:
    """Deviations of each visit's loss from those of the same epoch, near in time, and alike in length."""
    near = _neighbours((when, epochs), AT_A_TIME)
    rest = loss - _medians(loss, near)[near]
    alike = _neighbours((when, tokens, epochs), LIKE)
    rest = rest - _medians(rest, alike)[alike]
    above = rest > 0
    deviation = np.zeros(alike.max() + 1)
    middle = _medians(rest[above], alike[above])
    deviation[: len(middle)] = MAD_TO_DEVIATION * middle
    scores: Floats = rest / np.maximum(deviation, NOISE)[alike]
    return scores


def _neighbours(keys: tuple[Ints, ...], least: int) -> Ints:
    """Cut each epoch (the last key), ordered by the other keys, into even groups of ``least`` or a few more.

    Returns:
        The group of each visit, counted from 0 through all epochs.
    """
    order = np.lexsort(keys)
    groups = np.empty(len(order), np.int64)
    starts = np.flatnonzero(_differs(keys[-1][order]))
    begun = 0
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        count = max(1, (stop - start) // least)
        groups[order[start:stop]] = begun + np.arange(stop - start) * count // (stop - start)
        begun += count
    return groups


def _medians(values: Floats, groups: Ints) -> Floats:
    """Median of each group from 0 to the last; 0 for one without values."""
    counts = np.bincount(groups)
    ordered = np.append(values[np.lexsort((values, groups))], 0.0)
    starts = np.cumsum(counts) - counts
    middles: Floats = (ordered[starts + (counts - 1).clip(0) // 2] + ordered[starts + counts // 2]) / 2
    return np.where(counts > 0, middles, 0.0)
