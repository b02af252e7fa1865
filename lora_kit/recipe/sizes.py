"""Amounts of memory as people write them."""

UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}


def parse_size(text: str) -> int:
    """Return the bytes of a size that the schema has let through (``schema.Size``).

    Example:
        >>> parse_size("6GB"), parse_size("0.5 GiB")
        (6000000000, 536870912)
    """
    unit = text.lstrip("0123456789. ")
    return round(float(text.removesuffix(unit)) * UNITS[unit])
