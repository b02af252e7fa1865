"""Recipe text to plain data, with the line of every key.

Built from YAML's events, not from objects: aliases, tags and merge keys are
refused as they appear, so nothing is expanded and nothing is run. Scalars follow
the core schema of YAML 1.2: ``2e-4`` is a number, ``010`` is ten, and ``no``,
``1:30``, ``1_000`` and dates are text.
"""

import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from lora_kit.errors import Problem, RecipeError
from lora_kit.recipe.draft import COMMAND_LINE, Draft, clipped, collected, dotted, shown

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 2000
_CONSTANTS = {"": None, "~": None} | {
    spelling: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelling in (word, word.capitalize(), word.upper())
}
_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], int | float]], ...] = (
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text, 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"([-+]?\.(inf|Inf|INF))|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)
_CURES = {
    r"'\t'": "indent with spaces, not tabs",
    "mapping values are not allowed": "check the indentation, and quote text that contains ': '",
    "could not find expected ':'": "every line of a section is 'key: value'",
    "but got '<stream end>'": "a bracket or brace is never closed",
    "unexpected end of stream": "a quote is never closed",
    "special characters are not allowed": "remove the control character",
}


def plain_scalar(text: str) -> bool | int | float | str | None:
    """Resolve an unquoted scalar by the core schema of YAML 1.2.

    Example:
        >>> [plain_scalar(text) for text in ("2e-4", "010", "no", "1:30", "true", "~")]
        [0.0002, 10, 'no', '1:30', True, None]
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= 64:  # a longer run of digits is no number that a recipe can mean
        for pattern, convert in _NUMBERS:
            if pattern.fullmatch(text):
                return convert(text)
    return text


def read_draft(path: Path) -> Draft:
    """Read a recipe file.

    Raises:
        RecipeError: The file can't be read, is too big, is not UTF-8 or not YAML, or nests too deeply.
    """
    draft = Draft(str(path))
    text = _decoded(_read_bytes(path), draft.file)
    reader = _Reader(text, draft, lambda line: f"{draft.file}:{line}")
    values = reader.document()
    if values is None:
        raise RecipeError(
            "the recipe is empty", where=draft.file, cure="`lora-kit recipes list` shows ready ones"
        )
    if not isinstance(values, dict):
        what = "a list" if isinstance(values, list) else shown(values)
        raise RecipeError(f"a recipe is a mapping of sections, got {what}", where=f"{draft.file}:1")
    draft.values = values
    return draft


def read_value(text: str, draft: Draft, key: str, *, braces: bool = False) -> Any:  # noqa: ANN401
    """Read the value of an override: a list in brackets, a quoted text, or else one plain scalar.

    Args:
        text: What stands behind the equals sign.
        draft: Takes the problems.
        key: Dotted key.
        braces: Whether ``{`` opens a mapping rather than a text.

    Raises:
        RecipeError: Brackets or quotes that don't close.
    """
    if not text.startswith(("[", "'", '"', "{") if braces else ("[", "'", '"')):
        return plain_scalar(text)
    return _Reader(text, draft, lambda _line: COMMAND_LINE).document(key)


def _read_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would block for ever
            raise RecipeError("is not a regular file", where=str(path))
        if status.st_size > MAX_BYTES:
            raise RecipeError(
                f"is {status.st_size} bytes long; a recipe has at most {MAX_BYTES}",
                where=str(path),
                cure="is this the data file?",
            )
        return path.read_bytes()
    except OSError as error:
        raise RecipeError(f"can't be read: {error.strerror}", where=str(path)) from error


def _decoded(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"byte 0x{data[error.start]:02x} at offset {error.start} is not UTF-8",
            where=f"{file}:{line}",
            cure="save the file as UTF-8",
        ) from error


class _Reader:
    """Turns one document's events into values; ``place`` says where a line is."""

    def __init__(self, text: str, draft: Draft, place: Callable[[int], str]) -> None:
        self.text = text
        self.draft = draft
        self.place = place
        self.values = 0
        self.events: Iterator[Any] = iter(YAML(typ="safe", pure=True).parse(text))

    def document(self, key: str = "") -> Any:  # noqa: ANN401
        try:
            next(self.events)  # the start of the stream
            start = next(self.events)
            if isinstance(start, StreamEndEvent):
                return None
            if start.version or start.tags:
                self.fatal("directives (%YAML, %TAG) are not allowed", start)
            value = self.node(next(self.events), key, 1)
            next(self.events)  # the end of the document
            after = next(self.events)
        except (YAMLError, ValueError) as error:  # ValueError: an escape such as "\U00110000"
            raise collected([*self.draft.problems.values(), self.syntax_problem(error, key)]) from error
        if not isinstance(after, StreamEndEvent):
            self.fatal("a second document starts here; a recipe is one", after)
        return value

    def node(self, event: Any, key: str, depth: int) -> Any:  # noqa: ANN401
        self.values += 1
        if depth > MAX_DEPTH:
            self.fatal(f"nested more than {MAX_DEPTH} deep", event)
        if self.values > MAX_VALUES:
            self.fatal(f"more than {MAX_VALUES} keys and values; a recipe has some fifty", event)
        if event.anchor is not None:
            self.report(event, key, "anchors and aliases (& and *) are not allowed", "write the value out")
        elif getattr(event, "tag", None) is not None:
            self.report(event, key, "tags (!) are not allowed", "write the value alone")
        if isinstance(event, AliasEvent):
            return None
        if isinstance(event, ScalarEvent):
            return plain_scalar(event.value) if event.style is None else event.value
        if isinstance(event, SequenceStartEvent):
            return self.sequence(key, depth)
        return self.mapping(key, depth)

    def sequence(self, key: str, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            items.append(self.node(event, key, depth + 1))
        return items

    def mapping(self, prefix: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            line = event.start_mark.line + 1
            name = self.name(event, prefix, depth)
            key = dotted(prefix, name)
            if name in lines:
                found = f"given twice; line {lines[name]} has it too"
                self.report(event, key, found, "keep one of the two")
            elif name:
                self.draft.places[key] = self.place(line)
            value = self.node(next(self.events), key, depth + 1)
            if name and name not in lines:
                values[name], lines[name] = value, line
        return values

    def name(self, event: Any, prefix: str, depth: int) -> str:  # noqa: ANN401
        """Return a key; it is empty where there is a list, a mapping or nothing in its place."""
        self.node(event, prefix, depth + 1)
        if not isinstance(event, ScalarEvent) or not event.value:
            self.report(event, prefix, "a key must be a word")
            return ""
        if event.value == "<<":
            self.report(event, dotted(prefix, "<<"), "merge keys (<<) are not allowed", "write the keys out")
        return event.value

    def report(self, event: Any, key: str, found: str, cure: str = "") -> None:  # noqa: ANN401
        self.draft.report(clipped(key), found, cure, where=self.place(event.start_mark.line + 1))

    def fatal(self, found: str, event: Any) -> None:  # noqa: ANN401
        problem = Problem(found, where=self.place(event.start_mark.line + 1))
        raise collected([*self.draft.problems.values(), problem])

    def syntax_problem(self, error: Exception, key: str) -> Problem:
        """Say where YAML itself stopped; the text is not quoted, because it may hold a secret."""
        where, found = self.place(1), str(error)
        if isinstance(error, MarkedYAMLError):
            is_unclosed = error.context_mark and re.search("stream end|end of stream", str(error.problem))
            mark = error.context_mark if is_unclosed else error.problem_mark
            column = "" if self.place(1) == COMMAND_LINE else f":{mark.column + 1}"
            where = self.place(mark.line + 1) + column
            found = ", ".join(part for part in (error.context, error.problem) if part)
        elif isinstance(error, ReaderError):
            where = self.place(self.text.count("\n", 0, error.position) + 1)
            found = f"character U+{ord(self.text[error.position]):04X}: {error.reason}"
        cure = next((cure for mark, cure in _CURES.items() if mark in found), "")
        return Problem(f"not YAML: {found}", where=where, key=key, cure=cure)
