"""``hub:OWNER/NAME[/CONFIG][/SPLIT][@REVISION]``: a data set on the hub -> data files of one pinned commit.

Which files make a split is `datasets`' knowledge (cards, configurations, file names), so it is asked, over
empty files of the same names; nothing is ever loaded by it. The split's own files are then fetched and read
as files on disk are: a date stays text, a missing field is missing, and a row's origin is its file and line.
No code of the repository is run, and once fetched a commit needs no network.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lora_kit.errors import DataError
from lora_kit.hub import Repository

PREFIX = "hub:"
_CARD = ("README.md", ".huggingface.yaml", "dataset_infos.json")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_FORM = re.compile(
    rf"hub:(?P<id>{_NAME}/{_NAME})(/(?P<one>{_NAME}))?(/(?P<two>{_NAME}))?(@(?P<revision>[A-Za-z0-9._/-]+))?"
)


@dataclass(frozen=True, slots=True)
class HubFiles:
    """A split of a data set, on this machine.

    Args:
        name: ``owner/name``.
        commit: The commit that was fetched.
        folder: Where it is.
        files: Paths in it, in the order of the split.
    """

    name: str
    commit: str
    folder: Path
    files: tuple[str, ...]


def fetch_split(source: str) -> HubFiles:
    """Fetch the files of one split; of the split `train` if none is named.

    Args:
        source: ``hub:owner/name/split@revision``; a commit that is in the cache needs no network.

    Raises:
        DataError: No such data set, revision, configuration or split, or one without data files.
        MachineError: The hub can't be reached or fails, and the cache does not have the files.
    """
    parts = _FORM.fullmatch(source)
    if parts is None:
        cure = f"write {PREFIX}OWNER/NAME, {PREFIX}OWNER/NAME/SPLIT or {PREFIX}OWNER/NAME/CONFIG/SPLIT"
        raise DataError("not the name of a data set on the hub", where=source, cure=cure)
    config, split = (parts["one"], parts["two"]) if parts["two"] else (None, parts["one"] or "train")
    repository = Repository(parts["id"], "dataset", "data.train", "the revision behind @")
    commit = repository.pin(parts["revision"])
    card = repository.fetch(commit, _CARD)
    files = _split_files(repository.names(commit), card, config, split, where=source)
    return HubFiles(parts["id"], commit, repository.fetch(commit, files), tuple(files))


def _split_files(names: list[str], card: Path, config: str | None, split: str, *, where: str) -> list[str]:
    """Ask `datasets` which of the names make up a split."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve() / "data_set"
        for name in names:
            path = root / name
            if not path.resolve().is_relative_to(root):
                raise DataError("a file of this data set leads out of it", where=where, key=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((card / name).read_bytes() if name in _CARD else b"")
        splits = _ask(root, config, where)
    if split not in splits:
        raise DataError(f"no split '{split}'", where=where, cure=f"it has: {', '.join(splits)}")
    return [str(Path(file).relative_to(root)) for file in splits[split]]


def _ask(root: Path, config: str | None, where: str) -> dict[str, list[str]]:
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(str(root), config)
        found = {
            str(split): [str(file) for file in files] for split, files in builder.config.data_files.items()
        }
    except Exception as error:
        told = " ".join(str(error).replace(str(root), where).split())
        raise DataError("`datasets` can't tell its files", where=where, cure=told[:200]) from error
    outside = [file for files in found.values() for file in files if not Path(file).is_relative_to(root)]
    if outside:
        raise DataError("its card names files outside of it", where=where, cure="don't use this data set")
    return found
