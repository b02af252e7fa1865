"""Which rows make a step, and which of them are computed together.

The order of an epoch is a pure function of (seed, epoch): a resumed run needs no state of a random
generator to know what comes next. It sorts by raw Philox output (Salmon et al., SC 2011), whose stream
NumPy keeps for ever (NEP 19), unlike that of ``Generator.permutation``.
"""

from collections.abc import Sequence

import numpy as np

from lora_kit.data.prefix_trie import Prefixes

MICRO_BATCH_COST = 16  # what a micro-batch costs besides its tokens, in tokens
OPEN = 16  # micro-batches that a row may still join: bounds the planning time of thousands of rows


def epoch_windows(*, seed: int, epoch: int, rows: int, batch_size: int) -> list[tuple[int, ...]]:
    """Cut one epoch's shuffled rows into the windows that the optimizer steps over.

    Args:
        seed: Non-negative.
        epoch: Counts from 0.
        rows: Number of rows.
        batch_size: Rows in a window; the epoch's last window may have fewer.

    Returns:
        Every row index exactly once; no windows if there are no rows.

    Example:
        >>> windows = epoch_windows(seed=0, epoch=0, rows=5, batch_size=2)
        >>> [len(window) for window in windows], sorted(sum(windows, ()))
        ([2, 2, 1], [0, 1, 2, 3, 4])
    """
    keys = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(rows)
    order: list[int] = np.argsort(keys, kind="stable").tolist()
    return [tuple(order[start : start + batch_size]) for start in range(0, rows, batch_size)]


def plan_micro_batches(lengths: Sequence[int], budget_tokens: int, *, padded: bool) -> list[tuple[int, ...]]:
    """Pack the rows of one window into micro-batches, longest first.

    The split changes memory and speed only; the loss is a sum over the window. The
    largest micro-batch comes first, so that a run that can't fit fails at once.

    Args:
        lengths: Tokens of each row of the window.
        budget_tokens: Most tokens in a micro-batch; a longer row gets one of its own.
        padded: Whether rows are padded to the longest of their micro-batch (padding counts)
            or laid end to end.

    Returns:
        Indices into ``lengths``, each exactly once.

    Example:
        >>> plan_micro_batches([3, 9, 4, 2], 9, padded=False)
        [(1,), (0, 2, 3)]
        >>> plan_micro_batches([3, 9, 4, 2], 9, padded=True)
        [(1,), (0, 2), (3,)]
    """
    longest_first = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    plan: list[list[int]] = []
    used: list[int] = []
    for index in longest_first:
        length = lengths[index]
        # Padded rows cost the length of the longest, which is the first of its micro-batch.
        cost = [lengths[plan[n][0]] if padded else length for n in range(len(plan))]
        fits = (n for n in range(len(plan)) if used[n] + cost[n] <= budget_tokens)
        chosen = next(fits, len(plan))
        if chosen == len(plan):
            plan.append([])
            used.append(0)
            cost.append(length)
        plan[chosen].append(index)
        used[chosen] += cost[chosen]
    return [tuple(sorted(rows)) for rows in plan]


def plan_shared_micro_batches(rows: Sequence[Sequence[int]], budget_tokens: int) -> list[tuple[int, ...]]:
    """Pack the rows of one window so that common beginnings meet in a micro-batch.

    Three plans are compared: rows in the order of their tokens, so that relatives follow each other; longest
    first, each where it adds least; and :func:`plan_micro_batches`, which ignores beginnings. The one with
    the fewest tokens to compute wins, the earlier one on a tie. The largest micro-batch comes first.

    Args:
        rows: Token ids of each row of the window.
        budget_tokens: Most tokens in a micro-batch, what is shared counted once; a longer row gets one of its
            own.

    Returns:
        Indices into ``rows``, each exactly once.

    Example:
        >>> context = list(range(100))
        >>> plan_shared_micro_batches([context + [1], [7] * 90, context + [2], [8] * 90], 110)
        [(0, 2), (1,), (3,)]
    """
    prefixes = Prefixes(rows)
    longest_first = sorted(range(len(rows)), key=lambda row: (-len(rows[row]), row))
    plans = [
        plan_micro_batches(prefixes.lengths, budget_tokens, padded=False),
        _pack(prefixes, longest_first, budget_tokens),
        _pack(prefixes, prefixes.order, budget_tokens),
    ]
    best = min(plans, key=lambda plan: sum(prefixes.tokens(part) + MICRO_BATCH_COST for part in plan))
    return sorted(best, key=lambda part: (-prefixes.tokens(part), part))


def _pack(prefixes: Prefixes, order: Sequence[int], budget_tokens: int) -> list[tuple[int, ...]]:
    """Put each row where it adds the fewest tokens and fits, or else into a new micro-batch."""
    plan: list[list[int]] = []
    used: list[int] = []
    for row in order:
        recent = range(max(0, len(plan) - OPEN), len(plan))
        grown = {n: prefixes.tokens([*plan[n], row]) for n in recent}
        fits = [n for n in recent if grown[n] <= budget_tokens]
        if fits:
            chosen = min(fits, key=lambda n: (grown[n] - used[n], n))
            plan[chosen].append(row)
            used[chosen] = grown[chosen]
        else:
            plan.append([row])
            used.append(prefixes.lengths[row])
    return [tuple(sorted(part)) for part in plan]
