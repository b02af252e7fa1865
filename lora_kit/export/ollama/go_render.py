"""A small, strict interpreter of Go templates: the part of text/template that ``go_source`` writes.

The witness for Ollama's side of the same-tokens certificate: it takes the template back out of the
Modelfile, and anything that it does not know is an error. Language: https://pkg.go.dev/text/template.
Known are text, ``-`` trimming, strings, ``$variables`` and ``.Fields``, ``eq``, ``ne``, ``and``, ``not``,
``if``/``else if``/``else`` and ``range $i, $m :=``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lora_kit.data.types import Message
from lora_kit.errors import ModelError

_ACTION = re.compile(r"\{\{(-(?=\s))?\s*(.*?)\s*((?<=\s)-)?\}\}", re.DOTALL)
_STRING = r'"(?:[^"\\\n]|\\["\\nrt])*"'
_WORD = re.compile(rf"\s*({_STRING}|\$?(?:\.?\w+)+|\$|[()]|:=|,|\d+)")
_UNESCAPES = {'\\"': '"', "\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t"}

Scope = Mapping[str, Any]


class Output(NamedTuple):
    """Write text (``words`` empty) or the value of an expression."""

    text: str
    words: tuple[str, ...]


@dataclass
class Block:
    """An ``if`` with its branches, or a ``range`` with one."""

    keyword: str
    branches: list[tuple[tuple[str, ...], list["Output | Block"]]] = field(default_factory=list)


Nodes = list[Output | Block]


def render_go(source: str, messages: Sequence[Message]) -> str:
    """Render a template as Ollama does for a chat.

    Args:
        source: The template.
        messages: The conversation.

    Raises:
        ModelError: The template uses something that this interpreter does not know.
    """
    collated: list[dict[str, str]] = []
    for message in messages:
        if collated and collated[-1]["Role"] == message.role:
            collated[-1]["Content"] += "\n\n" + message.content
        else:
            collated.append({"Role": message.role, "Content": message.content})
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    data = {"Messages": collated, "System": system}
    return _write(parse_go(source), {"$": data, ".": data})


def parse_go(source: str) -> Nodes:
    """Parse a template.

    Raises:
        ModelError: It uses something that this interpreter does not know.
    """
    root: Nodes = []
    open_blocks: list[tuple[Block, Nodes]] = []
    nodes = root
    for words, text in _pieces(source):
        if text is not None:
            nodes.append(Output(text, ()))
        elif words[0] in ("if", "range"):
            block = Block(words[0], [(words[1:], [])])
            nodes.append(block)
            open_blocks.append((block, nodes))
            nodes = block.branches[-1][1]
        elif words[0] in ("else", "end"):
            if not open_blocks or (words[0] == "else" and open_blocks[-1][0].keyword != "if"):
                raise _unknown(words[0])
            nodes = _next_branch(open_blocks, words)
        else:
            nodes.append(Output("", words))
    if open_blocks:
        raise _unknown("an open block")
    return root


def _next_branch(open_blocks: list[tuple[Block, Nodes]], words: tuple[str, ...]) -> Nodes:
    if words[0] == "end":
        return open_blocks.pop()[1]
    block = open_blocks[-1][0]
    condition = words[2:] if words[1:2] == ("if",) else ("true",)
    block.branches.append((condition, []))
    return block.branches[-1][1]


def _pieces(source: str) -> list[tuple[tuple[str, ...], str | None]]:
    """Cut a template into actions (words) and the text between them, trimmed as ``-`` says."""
    pieces: list[tuple[tuple[str, ...], str | None]] = []
    end, trims = 0, False
    for match in [*_ACTION.finditer(source), None]:
        text = source[end : match.start() if match else None]
        text = text.lstrip(" \t\r\n") if trims else text
        text = text.rstrip(" \t\r\n") if match and match[1] else text
        if "{{" in text or "}}" in text:
            raise _unknown(text)
        pieces += [((), text)] if text else []
        if match:
            pieces.append((_words(match[2]), None))
            end, trims = match.end(), bool(match[3])
    return pieces


def _words(action: str) -> tuple[str, ...]:
    words, at = [], 0
    while at < len(action):
        match = _WORD.match(action, at)
        if match is None:
            raise _unknown(action)
        words.append(match[1])
        at = match.end()
    if not words:
        raise _unknown("an empty action")
    return tuple(words)


def _write(nodes: Nodes, scope: Scope) -> str:
    return "".join(
        _block(node, scope) if isinstance(node, Block) else node.text or _shown(node.words, scope)
        for node in nodes
    )


def _shown(words: tuple[str, ...], scope: Scope) -> str:
    value = _value(words, scope) if words else ""
    if not isinstance(value, str):
        raise _unknown(f"writing {type(value).__name__}")
    return value


def _block(block: Block, scope: Scope) -> str:
    if block.keyword == "if":
        chosen = next((nodes for words, nodes in block.branches if _value(words, scope)), [])
        return _write(chosen, scope)
    [(words, nodes)] = block.branches
    if len(words) != 5 or words[1] != "," or words[3] != ":=":
        raise _unknown("range " + " ".join(words))
    index, item = words[0], words[2]
    return "".join(
        _write(nodes, {**scope, ".": value, index: n, item: value})
        for n, value in enumerate(_value(words[4:], scope))
    )


def _value(words: tuple[str, ...], scope: Scope) -> Any:  # noqa: ANN401 - templates have no types
    """Value of a pipeline: one operand, or a function and its operands."""
    operands, rest = _operands(words, scope, called=words[0] in _FUNCTIONS)
    if rest:
        raise _unknown(" ".join(words))
    if words[0] in _FUNCTIONS:
        return _FUNCTIONS[words[0]](*operands)
    if len(operands) != 1:
        raise _unknown(" ".join(words))
    return operands[0]


def _operands(words: tuple[str, ...], scope: Scope, *, called: bool) -> tuple[list[Any], tuple[str, ...]]:
    values, at = [], int(called)
    while at < len(words):
        if words[at] == "(":
            end = _closing(words, at)
            values.append(_value(words[at + 1 : end], scope))
            at = end + 1
        else:
            values.append(_operand(words[at], scope))
            at += 1
    return values, words[at:]


def _closing(words: tuple[str, ...], start: int) -> int:
    depth = 0
    for at in range(start, len(words)):
        depth += {"(": 1, ")": -1}.get(words[at], 0)
        if depth == 0:
            return at
    raise _unknown("an open bracket")


def _operand(word: str, scope: Scope) -> Any:  # noqa: ANN401 - templates have no types
    if word.startswith('"'):
        return re.sub(r"\\.", lambda escape: _UNESCAPES[escape[0]], word[1:-1])
    if word.isdigit():
        return int(word)
    if word == "true":
        return True
    name, *fields = word.split(".")
    value = scope.get(name or ".")
    for key in fields:
        if not isinstance(value, dict) or key not in value:
            raise _unknown(word)
        value = value[key]
    if value is None:
        raise _unknown(word)
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "not": lambda value: not value,
}


def _unknown(what: str) -> ModelError:
    return ModelError(f"the Go template has something that lora_kit does not know: {what[:80]!r}")
