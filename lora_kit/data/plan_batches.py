"""Which rows make a step, and which of them are computed together.

The order of an epoch is a pure function of (seed, epoch): a resumed run needs no state of a random
generator to know what comes next. It sorts by raw Philox output (Salmon et al., SC 2011), whose stream
NumPy keeps for ever (NEP 19), unlike that of ``Generator.permutation``.
"""

from collections.abc import Sequence

import numpy as np


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
