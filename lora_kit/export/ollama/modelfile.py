"""Ollama's Modelfile: written, and read back by a strict parser.

Written from https://github.com/ollama/ollama/blob/main/docs/modelfile.md: one instruction a line, its name in
any case, ``#`` for comments, several lines between triple quotation marks. Nothing can be escaped between
those, so a text that holds them itself can't be written.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lora_kit.errors import ModelError

QUOTES = '"""'
INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE")
_NUMBERS = ("num_ctx", "num_predict", "seed", "temperature", "top_k", "top_p", "min_p", "repeat_penalty")
PARAMETERS = ("stop", "repeat_last_n", *_NUMBERS)
_ONCE = ("FROM", "TEMPLATE", "SYSTEM")


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What a Modelfile says.

    Args:
        source: The GGUF file, relative to the Modelfile.
        template: The Go template.
        stops: Texts that end an answer.
        system: System prompt, or None.
        context_tokens: Value of ``num_ctx``, or None.
    """

    source: str
    template: str
    stops: tuple[str, ...]
    system: str | None = None
    context_tokens: int | None = None


def write_modelfile(modelfile: Modelfile) -> str:
    """Write a Modelfile, and read it back.

    Raises:
        ModelError: A text can't be written.
    """
    lines = [f"FROM {modelfile.source}", f"TEMPLATE {_quoted(modelfile.template)}"]
    lines += [f"SYSTEM {_quoted(modelfile.system)}"] if modelfile.system else []
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in modelfile.stops]
    lines += [f"PARAMETER num_ctx {modelfile.context_tokens}"] if modelfile.context_tokens else []
    text = "\n".join(lines) + "\n"
    if read_modelfile(text) != modelfile:
        raise ModelError("a Modelfile can't hold the template or the system prompt as they are")
    return text


def _quoted(text: str) -> str:
    if QUOTES in text or text.startswith('"') or text.endswith('"') or "\r" in text:
        raise ModelError(
            "a Modelfile can't hold a text with three quotation marks, or one at an end",
            cure="change the template or the system prompt",
        )
    return f"{QUOTES}{text}{QUOTES}"


def read_modelfile(text: str) -> Modelfile:
    """Read a Modelfile.

    Raises:
        ModelError: It is not one, or says something twice or not at all.
    """
    found: dict[str, list[str]] = {}
    for name, argument in _instructions(text):
        found.setdefault(name, []).append(argument)
    twice = [name for name in _ONCE if len(found.get(name, ())) > 1]
    if twice or "FROM" not in found:
        raise _wrong(f"{twice[0]} occurs twice" if twice else "FROM is missing")
    parameters = [_parameter(argument) for argument in found.get("PARAMETER", ())]
    contexts = [value for name, value in parameters if name == "num_ctx"]
    return Modelfile(
        source=found["FROM"][0],
        template=found.get("TEMPLATE", ["{{ .Prompt }}"])[0],
        stops=tuple(value for name, value in parameters if name == "stop"),
        system=found.get("SYSTEM", [None])[0],
        context_tokens=int(contexts[-1]) if contexts else None,
    )


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction's name and argument, quotation marks removed."""
    lines = iter(text.split("\n"))
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, argument = line.strip().partition(" ")
        if name.upper() not in INSTRUCTIONS or not argument.strip():
            raise _wrong(f"not an instruction: {line[:60]!r}")
        if name.upper() == "PARAMETER":
            key, _, value = argument.strip().partition(" ")
            yield "PARAMETER", f"{key} {_argument(value, lines)}"
        else:
            yield name.upper(), _argument(argument, lines)


def _argument(first: str, lines: Iterator[str]) -> str:
    first = first.strip() if QUOTES not in first else first.lstrip()
    if not first.startswith(QUOTES):
        quoted = len(first) > 1 and first[0] == first[-1] == '"'
        return first[1:-1] if quoted else first
    collected = [first.removeprefix(QUOTES)]
    while QUOTES not in collected[-1]:
        following = next(lines, None)
        if following is None:
            raise _wrong("three quotation marks that are not closed")
        collected.append(following)
    content, _, rest = "\n".join(collected).partition(QUOTES)
    if rest.strip():
        raise _wrong(f"text behind the closing quotation marks: {rest[:40]!r}")
    return content


def _parameter(argument: str) -> tuple[str, str]:
    name, _, value = argument.partition(" ")
    if name not in PARAMETERS:
        raise _wrong(f"unknown parameter {name!r}")
    if name in _NUMBERS and not _is_number(value):
        raise _wrong(f"{name} is {value!r}, not a number")
    return name, value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong(what: str) -> ModelError:
    return ModelError(f"not a Modelfile that Ollama reads: {what}")
