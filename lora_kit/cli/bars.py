"""Counts as bars in a terminal."""

from collections.abc import Sequence

from rich.table import Table

BAR_COLUMNS = 40


def bar_table(counted: str, bars: Sequence[tuple[str, int]]) -> Table:
    """Lay out a histogram of tokens.

    Args:
        counted: What is counted, for the column's title.
        bars: Label and count of each.
    """
    most = max((count for _, count in bars), default=0)
    table = Table("tokens", counted, "", box=None, pad_edge=False)
    table.columns[0].justify = table.columns[1].justify = "right"
    for label, count in bars:
        table.add_row(label, f"{count:,}", "█" * -(-count * BAR_COLUMNS // max(most, 1)))
    return table
