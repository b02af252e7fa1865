"""Child process that renders chat templates, which are programs that came with a download.

Jinja's sandbox keeps a template from reaching Python, but not from using all memory or never ending
(200 MB in 0.1 s, measured). So it runs here, under the kernel's limits, without the right to write a
file. The environment is that of transformers' ``apply_chat_template`` (utils/chat_template_utils.py)
with a frozen clock. This file imports nothing of lora_kit: it is run by path.
"""

import json
import resource
import sys
from datetime import UTC, datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_BYTES = 1 << 30
MAX_CHARS = 16_000_000
# The date that Llama 3's templates fall back to when there is no clock.
FROZEN_NOW = datetime(2024, 7, 26, 12, tzinfo=UTC)


class Generation(jinja2.ext.Extension):
    """``{% generation %}``: transformers' mark of the assistant's text; here it just renders its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Parse the block into a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class PlainDict:
    """``dict`` as a template sees it: something to call, not a type to climb."""

    def __call__(self, *args: object, **kwargs: object) -> dict[Any, Any]:
        """Return ``dict(...)``."""
        made: dict[Any, Any] = dict(*args, **kwargs)
        return made

    def fromkeys(self, *args: object) -> dict[Any, Any]:
        """Return ``dict.fromkeys(...)``."""
        return dict.fromkeys(*args)  # type: ignore[call-overload]


class PublicNamespace(jinja2.utils.Namespace):
    """``namespace()`` without names that begin with an underscore, which reach Python's internals."""

    def __init__(*args: Any, **kwargs: object) -> None:  # noqa: ANN401 - as jinja2 has it
        self, *positional = args
        attributes = dict(*positional, **kwargs)
        for name in attributes:
            PublicNamespace._check(name)  # by the class: attributes of a namespace are the template's
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: object) -> None:
        PublicNamespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"namespace attribute {name!r} begins with an underscore")


def compile_template(source: str) -> jinja2.Template:
    """Compile a chat template as transformers would."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": FROZEN_NOW.strftime,
        "dict": PlainDict(),
        "namespace": PublicNamespace,
    }
    return environment.from_string(source)


def render(template: jinja2.Template, context: dict[str, Any]) -> str:
    """Render one conversation.

    Raises:
        ValueError: The text is longer than ``MAX_CHARS``.
    """
    chunks: list[str] = []
    size = 0
    for chunk in template.generate(**context):
        size += len(chunk)
        if size > MAX_CHARS:
            raise ValueError(f"more than {MAX_CHARS:,} characters of output")
        chunks.append(chunk)
    return "".join(chunks)


def _raise(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - templates pass it by position as with transformers
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _answer(template: jinja2.Template, context: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": render(template, context)}
    except MemoryError:
        return {"error": f"more than {MEMORY_BYTES >> 20} MB of memory"}
    except Exception as error:  # noqa: BLE001 - a template can raise anything
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _limit_cpu(more_seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + more_seconds + 1)


def _limit(kind: int, amount: int) -> None:
    """Lower the soft limit; the hard one stays, so that the next request can get more CPU time."""
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))
    except (OSError, ValueError):
        return  # macOS refuses RLIMIT_AS


def main(cpu_seconds: int) -> None:
    """Serve: a line with the source, then a line with a list of contexts for each line of answers."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit_cpu(cpu_seconds)
    requests = (json.loads(line) for line in sys.stdin)
    try:
        template = compile_template(next(requests))
        reply: object = {"text": ""}
    except Exception as error:  # noqa: BLE001 - a syntax error, or whatever the compiler trips over
        reply = {"error": f"{type(error).__name__}: {error}"[:300]}
    _limit(resource.RLIMIT_FSIZE, 0)
    while True:
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
        contexts = next(requests, None)
        if contexts is None:
            return
        _limit_cpu(cpu_seconds)
        reply = [_answer(template, context) for context in contexts]


if __name__ == "__main__":
    main(int(sys.argv[1]))
