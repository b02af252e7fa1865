"""``format: auto``: tell the format from the rows, and say why.

A format fits if every row looked at has its required fields and converts; of
those that fit, the one that accounts for most of the fields wins. A tie is an
error, not a guess.
"""

from collections.abc import Sequence

from lora_kit.catalogue import FORMATS
from lora_kit.data.format import Format
from lora_kit.data.types import Row
from lora_kit.errors import DataError

LOOKED_AT_ROWS = 100


def recognise(rows: Sequence[Row], where: str) -> tuple[Format, str]:
    """Choose the format of a file.

    Args:
        rows: Its first rows, at least one.
        where: The file.

    Returns:
        The format, and one sentence on why.

    Raises:
        DataError: None fits, or two fit equally well.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.fields))
    fitting = [(_known(one, names), one) for one in FORMATS.values() if _fits(one, rows)]
    best = max((len(known) for known, _ in fitting), default=0)
    winners = [(known, one) for known, one in fitting if len(known) == best]
    if len(winners) == 1:
        known, winner = winners[0]
        return winner, f"the first {len(rows):,} rows have {', '.join(known)}"
    if winners:
        found = f"the rows could be {' or '.join(one.name for _, one in winners)}"
        raise DataError(found, where=where, key="data.format", cure="name one")
    found = f"no format fits rows with the fields {', '.join(names[:8]) or '(none)'}"
    cure = "name one, and map columns onto its fields with data.fields"
    raise DataError(found, where=where, key="data.format", cure=cure)


def _known(one: Format, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in {*one.required, *one.optional}]


def _fits(one: Format, rows: Sequence[Row]) -> bool:
    """Say whether every row has the required fields and at least one converts."""
    if not all(name in row.fields for row in rows for name in one.required):
        return False
    return one.join is not None or any(_converts(one, row) for row in rows)


def _converts(one: Format, row: Row) -> bool:
    try:
        return bool(one.convert(row))
    except DataError:
        return False
