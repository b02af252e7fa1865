"""Several sources of rows as one: which files each has, and which of its rows take part.

Rows are chosen by a hash of the seed and of their place in the source, so the choice is the same on every
machine and a row that is added moves at most one other in or out.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_kit.data.format import Format, Options
from lora_kit.data.hub import PREFIX, fetch_split
from lora_kit.data.sources import read_rows, source_sha256
from lora_kit.data.types import Row
from lora_kit.data.word_hashes import mixed
from lora_kit.errors import DataError, Problem
from lora_kit.recipe.schema import DataSpec, MixSpec

Chosen = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Source:
    """One place that rows come from.

    Args:
        role: ``train``, ``mix`` or ``validation``.
        text: As in the recipe, a path made absolute.
        key: The recipe's key that names it.
        format_name: As in the recipe.
        fields: Columns by the format's field.
        options: Of the format.
        share: What the recipe says of how many rows to take; None for all.
        name: What origins call it.
        format: Once it is known.
        why: Why it is this format.
        chosen: A flag for each row, once they are counted; None for all.
        rows: Rows of it that were entered, broken ones included, those that don't take part aside.
        bad_rows: Broken ones among them.
        taken: Rows that gave conversations.
        conversations: In these.
        files: Paths with what origins call them, once it is located.
        commit: Of a data set on the hub.
    """

    role: str
    text: str
    key: str
    format_name: str
    fields: Mapping[str, str]
    options: Options
    share: MixSpec | None = None
    name: str = ""
    format: Format | None = None
    why: str = "named in the recipe"
    chosen: Chosen | None = None
    rows: int = 0
    bad_rows: int = 0
    taken: int = 0
    conversations: int = 0
    files: tuple[tuple[Path, str], ...] = field(default=())
    commit: str = ""

    def locate(self) -> tuple[tuple[Path, str], ...]:
        """Return its files, after fetching them if they are on the hub.

        Raises:
            DataError: There is no such data set or split on the hub.
            MachineError: The hub can't be reached and the cache does not have it.
        """
        if not self.files and self.text.startswith(PREFIX):
            found = fetch_split(self.text)
            self.commit = found.commit
            self.files = tuple((found.folder / file, f"{found.name}/{file}") for file in found.files)
        elif not self.files:
            self.files = ((Path(self.text), self.name),)
        return self.files

    def read(self, limit: int | None, on_problem: Callable[[Problem], None]) -> Iterator[Row]:
        """Yield its rows; broken ones go to the callback and count towards the limit."""
        left = limit

        def count(problem: Problem) -> None:
            nonlocal left
            left = None if left is None else left - 1
            on_problem(problem)

        for path, name in self.locate():
            for row in read_rows(path, limit=left, name=name, on_problem=count):
                yield row
                left = None if left is None else left - 1

    def describe(self) -> dict[str, str]:
        """Say what it is, with the sha256 of its content.

        Raises:
            DataError: A file is missing, or is none.
            MachineError: A file can't be read.
        """
        files = self.locate()
        if not self.commit:
            path = files[0][0]
            return {"role": self.role, "file": path.name, "sha256": source_sha256(path)}
        digest = hashlib.sha256()
        for path, name in files:
            digest.update(f"{source_sha256(path)}  {name}\n".encode())
        shown = {"role": self.role, "file": self.text, "revision": self.commit}
        return shown | {"sha256": digest.hexdigest()}

    def account(self) -> dict[str, Any]:
        """Say what it gave, after the first pass."""
        left = 0 if self.chosen is None else len(self.chosen) - int(self.chosen.sum())
        return {
            "source": self.name or self.text,
            "role": self.role,
            "format": self.format.name if self.format else self.format_name,
            "rows_read": self.rows + left,
            "bad_rows": self.bad_rows,
            "not_in_mix": left,
            "rows_taken": self.taken,
            "conversations": self.conversations,
        }

    def wanted(self, total: int, train_rows: int) -> int:
        """Return how many of its rows take part.

        Args:
            total: Rows that it has.
            train_rows: Rows of ``data.train``.

        Raises:
            DataError: It does not have that many.
        """
        share = self.share
        if share is None or (share.count is None and share.weight is None):
            return total
        by_weight = share.count is None
        wanted = share.count or max(1, round((share.weight or 0.0) * train_rows))
        if wanted > total:
            part = "weight" if by_weight else "count"
            found = f"asks for {wanted:,} rows, and there are {total:,}"
            raise DataError(found, where=self.name, key=f"{self.key}.{part}", cure="take fewer")
        return wanted


def sources_of(spec: DataSpec) -> list[Source]:
    """Return the sources of a recipe: data.train, data.mix in order, data.validation."""
    first = Source("train", spec.train, "data.train", spec.format, spec.fields, spec.options)
    found = [first]
    for at, one in enumerate(spec.mix):
        key = f"data.mix[{at}]"
        found.append(Source("mix", one.train, key, one.format, one.fields, one.options, share=one))
    if spec.validation is not None:
        key = "data.validation"
        found.append(Source("validation", spec.validation, key, spec.format, spec.fields, spec.options))
    names = [Path(source.text).name for source in found]
    for source, name in zip(found, names, strict=True):
        is_taken = names.count(name) > 1
        source.name = f"{Path(source.text).parent.name}/{name}" if is_taken else name
    return found


def choose(total: int, wanted: int, seed: int) -> Chosen:
    """Choose rows: a flag for each of `total`, `wanted` of them true, the same on every machine."""
    chosen = np.zeros(total, np.bool_)
    places = np.arange(total, dtype=np.uint64)
    ranks = mixed(places ^ mixed(np.full(total, seed + 1, np.uint64)))
    chosen[np.argsort(ranks, kind="stable")[:wanted]] = True
    return chosen
