"""Where output goes: results to stdout, everything that is said about them to stderr."""

import json
import os
from contextlib import suppress

from rich.console import Console

from lora_kit.errors import LoraKitError


class LastingConsole(Console):
    """A console whose reader may leave: rich would end the process, and with it a run of hours."""

    def on_broken_pipe(self) -> None:
        """Go on in silence; what is still in the stream's buffer must not fail when Python ends, either."""
        self.quiet = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)


console = LastingConsole()
messages = LastingConsole(stderr=True)


def emit_json(obj: object) -> None:
    """Write one JSON document to stdout, never wrapped and never coloured."""
    console.out(json.dumps(obj, indent=2, ensure_ascii=False), highlight=False)


def report_error(error: LoraKitError, *, json_errors: bool = False) -> None:
    """Write an error to stderr: one line with ``error:``, and one more for each problem if there are several.

    Args:
        error: What was raised.
        json_errors: Write one JSON object instead, in one line.
    """
    if json_errors:
        messages.out(json.dumps(_as_json(error)), highlight=False)
        return
    lines = [_printable(str(problem)) for problem in error.problems]
    if len(lines) == 1:
        messages.out(f"lora_kit: error: {lines[0]}", highlight=False)
        return
    messages.out("lora_kit: error: several problems:", highlight=False)
    for line in lines:
        messages.out(f"  {line}", highlight=False)


def _as_json(error: LoraKitError) -> dict[str, object]:
    problems = [
        {"where": problem.where, "key": problem.key, "found": problem.found, "cure": problem.cure}
        for problem in error.problems
    ]
    return {"error": type(error).__name__, "exit_code": error.exit_code, "problems": problems}


def _printable(text: str) -> str:
    """Escape control characters: a message may quote a file that wants to drive the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
