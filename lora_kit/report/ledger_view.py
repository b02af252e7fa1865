"""The ledger of rows in words: what it found, and the rows that are worth a look."""

from dataclasses import dataclass

import numpy as np

from lora_kit.report.ledger import SUSPECT, Flags, Ledger
from lora_kit.report.wording import Facts, number, plain, signed, stated

LISTED = 20
Table = tuple[tuple[str, ...], ...]
TITLES = ("Row", "First loss", "Last loss", "Change", "Times seen", "Trained tokens", "Score")
_SCORE = (
    "The score says how many deviations a row's loss lies above that of rows of like length at that time."
)


@dataclass(frozen=True, slots=True)
class RowTable:
    """Some rows of the ledger.

    Args:
        caption: What they have in common.
        note: What to make of it.
        rows: Cells in the order of TITLES.
    """

    caption: str
    note: str
    rows: Table


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The part of a report on single rows; without facts there is none.

    Args:
        facts: Label and value.
        tables: Rows worth a look, the worst first.
        file: Where all rows are.
        titles: Of the tables' columns.
    """

    facts: Facts
    tables: tuple[RowTable, ...]
    file: str
    titles: tuple[str, ...] = TITLES


def ledger_view(ledger: Ledger | None, file: str) -> LedgerView:
    """Lay out a ledger.

    Args:
        ledger: None where the log says nothing of rows.
        file: Name of the file that holds all of it.
    """
    if ledger is None:
        return LedgerView((), (), file)
    if not ledger.repeats:
        note = (
            "Each row was seen once, so nothing can be said of what rows learn, or of wrong labels: these "
            f"are only the hardest. {_SCORE}"
        )
        tables = [_table(ledger, np.ones(len(ledger), dtype=bool), "Hardest rows", note)]
    else:
        wrong = (
            f"A hint, not a verdict: their loss stays {SUSPECT} deviations or more above that of rows like "
            f"them, as it does with wrong answers, and with hard or rare ones too. {_SCORE}"
        )
        never = "Their loss was no lower when they were last seen than when they first were."
        tables = [
            _table(ledger, ledger.maybe_wrong, "Answers that may be wrong", wrong),
            _table(ledger, ledger.never_learned, "Rows that were never learned", never),
        ]
    return LedgerView(_facts(ledger), tuple(table for table in tables if table.rows), file)


def _facts(ledger: Ledger) -> Facts:
    least, most = int(ledger.times.min()), int(ledger.times.max())
    middle = (float(np.median(losses)) for losses in (ledger.first, ledger.last))
    rows: list[tuple[str, object]] = [
        ("Rows trained on", number(len(ledger))),
        ("Times each was seen", number(most) if least == most else f"{number(least)} to {number(most)}"),
    ]
    if ledger.repeats:
        fell = "A row's loss, first → last (medians)"
        rows += [
            (fell, " → ".join(number(value, 3) for value in middle) + " nats per token"),
            ("Never learned", _share(ledger, ledger.never_learned)),
            ("Answers that may be wrong", _share(ledger, ledger.maybe_wrong)),
        ]
    return stated(rows)


def _share(ledger: Ledger, flags: Flags) -> str:
    found, seen = int(flags.sum()), int((ledger.times > 1).sum())
    share = f"{found / seen:.1%}".replace("%", " %")
    return f"{number(found)} of {number(seen)} rows ({share})" if found else f"none of {number(seen)} rows"


def _table(ledger: Ledger, chosen: Flags, caption: str, note: str) -> RowTable:
    order = ledger.hardest()
    rows = order[chosen[order]][:LISTED].tolist()
    return RowTable(caption, note, tuple(_cells(ledger, row) for row in rows))


def _cells(ledger: Ledger, row: int) -> tuple[str, ...]:
    first, last = float(ledger.first[row]), float(ledger.last[row])
    change = signed(last - first, 3) if ledger.times[row] > 1 else number(None)
    counts = number(int(ledger.times[row])), number(int(ledger.tokens[row]))
    return (
        plain(ledger.origins[row]),
        number(first, 3),
        number(last, 3),
        change,
        *counts,
        number(float(ledger.score[row]), 1),
    )
