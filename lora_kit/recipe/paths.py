"""Where the files of a recipe are: relative to it, inside its directory, expanded by nobody.

A recipe is something that one person writes and another runs, so it must not
reach for ``../../etc/passwd``. What stands on the command line is the user's own
will: relative to the current directory, and free to point anywhere.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_kit.catalogue import TEMPLATES
from lora_kit.errors import RecipeError
from lora_kit.recipe.draft import COMMAND_LINE, Draft, shown
from lora_kit.recipe.shipped import shipped_dir
from lora_kit.registry import did_you_mean

SAMPLE = "sample:"
HUB = "hub:"
_DATA_SET = re.compile(
    r"hub:[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){1,3}(@[A-Za-z0-9._/-]+)?"
)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_EXPANDED = re.compile(r"^~|\$[A-Za-z_{(]")
_NOT_A_PATH = (
    (re.compile("\0"), "holds a NUL byte", ""),
    (re.compile(r"://|^file:"), "is a URL", "download it and name the file"),
    (_EXPANDED, "~ and $NAME are not expanded", "write the path out"),
    (re.compile(r"^(//|\\\\)"), "is a network path", "copy the file and name the copy"),
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a path may be relative to and where it may lead.

    Args:
        directory: Start of relative paths.
        roots: Further directories that a path may lead into; None for anywhere.
    """

    directory: Path
    roots: tuple[Path, ...] | None = None


def resolve_paths(draft: Draft, recipe: Path, allow_outside: Sequence[Path | str] = ()) -> None:
    """Make every path of the draft absolute and check that it exists; problems are added to the draft.

    Args:
        draft: Values not yet checked; what is not text is left for the schema to refuse.
        recipe: The recipe file.
        allow_outside: Directories besides the recipe's own that its paths may lead into.
    """
    inside = Scope(recipe.absolute().parent, tuple(Path(root).absolute() for root in allow_outside))
    for key, resolve in _RESOLVERS.items():
        value = draft.get(key)
        scope = Scope(Path.cwd()) if draft.place(key) == COMMAND_LINE else inside
        try:
            if isinstance(value, str) and value:
                draft.set(key, resolve(value, scope), draft.place(key))
            elif isinstance(value, list):
                draft.set(key, [_item(item, resolve, scope) for item in value], draft.place(key))
        except RecipeError as error:
            draft.add(replace(error.problems[0], where=draft.place(key), key=key))
        except OSError as error:  # a name that is too long, a directory that may not be read
            draft.report(key, f"can't be looked up: {error.strerror}")


def _item(item: object, resolve: Callable[[str, Scope], str], scope: Scope) -> object:
    """Resolve an entry of a list: a path, or a mapping with one under ``train``."""
    if isinstance(item, dict) and isinstance(item.get("train"), str) and resolve is _data_file:
        return {**item, "train": resolve(item["train"], scope)}
    return resolve(item, scope) if isinstance(item, str) and resolve is not _data_file else item


def locate(text: str, scope: Scope) -> Path:
    """Resolve one path; only its last part may still be a symbolic link, which keeps its suffix.

    Raises:
        RecipeError: Not a plain path, or one that leads out of the scope.
    """
    for pattern, found, cure in _NOT_A_PATH:
        if pattern.search(text):
            raise RecipeError(found, cure=cure)
    path = scope.directory / text
    if scope.roots is not None:
        _confine(path, text, scope.directory, scope.roots)
    if path.name in {"", ".."}:
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def _confine(path: Path, text: str, directory: Path, roots: tuple[Path, ...]) -> None:
    is_absolute = Path(text).is_absolute()
    allowed = roots if is_absolute else (directory, *roots)
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(root)) for root in allowed):
        found = (
            f"{shown(text)} is absolute"
            if is_absolute
            else f"{shown(text)} leads out of the recipe's directory"
        )
        outside = real if real.is_dir() else real.parent
        raise RecipeError(
            found, cure=f"allow it with --allow-outside {outside}, or give it on the command line"
        )


def _data_file(text: str, scope: Scope) -> str:
    if text.startswith(SAMPLE):
        return str(_sample(text.removeprefix(SAMPLE)))
    if text.startswith(HUB):
        if not _DATA_SET.fullmatch(text):
            cure = "write hub:OWNER/NAME, hub:OWNER/NAME/SPLIT or hub:OWNER/NAME/CONFIG/SPLIT, and @REVISION"
            raise RecipeError(f"not the name of a data set: {shown(text)}", cure=cure)
        return text
    path = locate(text, scope)
    if not path.exists():
        raise RecipeError(f"no such file: {shown(text)}", cure=_missing_cure(path, text))
    return str(path)


def _missing_cure(path: Path, text: str) -> str:
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    near = did_you_mean(path.name, [sibling.name for sibling in path.parent.iterdir()])
    from_here = Path(text).exists()
    return near or (
        "a recipe's paths start from its own directory, not from the current one" if from_here else ""
    )


def _sample(name: str) -> Path:
    folder = shipped_dir("data")
    known = sorted(path.name for path in folder.glob("*.json*"))
    if name not in known:
        hint = did_you_mean(name, known) or f"known: {', '.join(known)}"
        raise RecipeError(f"no shipped sample {shown(name)}", cure=hint)
    return folder / name


def _base_model(text: str, scope: Scope) -> str:
    """Resolve a folder; a hub id and ``package:...`` pass through untouched."""
    if text.startswith("package:"):
        return text
    looks_local = text.startswith((".", "/", "\\", "~")) or any(mark in text for mark in ("\0", ":", "$"))
    if not looks_local and not (scope.directory / text).is_dir():
        return text
    path = locate(text, scope)
    if not path.is_dir():
        raise RecipeError(f"no such folder: {shown(text)}", cure=_missing_cure(path, text))
    return str(path)


def _suite(text: str, scope: Scope) -> str:
    """Resolve a suite file; a suite's name passes through."""
    if _NAME.fullmatch(text) and not text.endswith((".yaml", ".yml")):
        return text
    return _data_file(text, scope)


def _template(text: str, scope: Scope) -> str:
    """Resolve a Jinja file; a template's name passes through."""
    if text.endswith(".jinja"):
        return _data_file(text, scope)
    if text != "model" and text not in TEMPLATES:
        known = ("model", *TEMPLATES)
        hint = did_you_mean(text, list(known))
        cure = f"{hint} known: {', '.join(known)}, or the path of a .jinja file".strip()
        raise RecipeError(f"no template {shown(text)}", cure=cure)
    return text


_RESOLVERS: dict[str, Callable[[str, Scope], str]] = {
    "base.model": _base_model,
    "data.train": _data_file,
    "data.mix": _data_file,
    "data.validation": _data_file,
    "data.template": _template,
    "evaluate.suites": _suite,
}
