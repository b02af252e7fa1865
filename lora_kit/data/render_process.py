"""The parent's end of ``render_worker.py``: one child process per chat template.

A child that dies (memory, time) is an error that names the template, and the next call starts a new
one. A forked copy of the parent starts its own child. The child ends when its stdin closes, so none
is left behind even if the parent is killed.
"""

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_kit.errors import MachineError, ModelError

_WORKER = Path(__file__).with_name("render_worker.py")
_CHUNK_ROWS = 256
_CHUNK_CHARS = 4_000_000


class RenderProcess:
    """Renders conversations through one chat template; threads may share it.

    Args:
        source: The Jinja source.
        constants: What every rendering sees: the special tokens.
        cpu_seconds: What one request may take, and at most one second more.
    """

    def __init__(self, source: str, constants: dict[str, Any], *, cpu_seconds: int = 10) -> None:
        self.source = source
        self.constants = constants
        self.cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._owner = 0

    def render(self, messages: Sequence[dict[str, str]], *, generation_prompt: bool) -> str:
        """Render one conversation.

        Raises:
            ModelError: The template raised, or broke the limits of time, memory or size.
        """
        [text] = self.render_many([messages], generation_prompt=generation_prompt)
        if isinstance(text, ModelError):
            raise text
        return text

    def render_many(
        self, conversations: Sequence[Sequence[dict[str, str]]], *, generation_prompt: bool
    ) -> list[str | ModelError]:
        """Render conversations; those that fail become errors in their place."""
        rendered: list[str | ModelError] = []
        for chunk in _chunks(conversations):
            contexts = [
                {**self.constants, "messages": messages, "add_generation_prompt": generation_prompt}
                for messages in chunk
            ]
            with self._lock:
                answers = self._ask(contexts)
            rendered += [_read(answer) for answer in answers]
        return rendered

    def _ask(self, contexts: list[dict[str, Any]]) -> list[dict[str, str]]:
        child = self._start()
        answers: list[dict[str, str]] | None = self._exchange(child, contexts)
        if answers is not None:
            return answers
        code = self._stop(child)
        if len(contexts) > 1:  # find the culprit
            return [answer for context in contexts for answer in self._ask([context])]
        reason = "it used more time or memory than a chat template may" if code < 0 else "its process stopped"
        return [{"error": f"{reason} (exit code {code})"}]

    def _start(self) -> "subprocess.Popen[str]":
        if self._child is not None and self._owner == os.getpid():
            return self._child
        try:
            # -P: the worker's folder must not be on the path, its types.py would hide the library's.
            child = subprocess.Popen(  # noqa: S603 - our own file
                [sys.executable, "-P", str(_WORKER), str(self.cpu_seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is the parent's affair
            )
        except OSError as error:
            raise MachineError(f"can't start the process that renders chat templates ({error})") from error
        self._child, self._owner = child, os.getpid()
        weakref.finalize(self, _close, child, os.getpid())
        compiled = self._exchange(child, self.source)
        if compiled is None or "error" in compiled:
            code = self._stop(child)
            reason = f"its process stopped (exit code {code})" if compiled is None else compiled["error"]
            raise ModelError(f"the chat template can't be used: {reason}", key="data.template")
        return child

    def _exchange(self, child: "subprocess.Popen[str]", message: object) -> Any:  # noqa: ANN401 - JSON
        """Send a line and read a line; None if the child is gone."""
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(message) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            return None
        except BaseException:  # Ctrl-C: an answer that nobody reads would be taken for the next one
            self._stop(child)
            raise
        return json.loads(line) if line.endswith("\n") else None

    def _stop(self, child: "subprocess.Popen[str]") -> int:
        self._child = None
        return _close(child, os.getpid())


def _chunks(conversations: Sequence[Sequence[dict[str, str]]]) -> Iterator[list[Sequence[dict[str, str]]]]:
    """Cut into requests that are worth a trip to the child and fit into its memory."""
    chunk: list[Sequence[dict[str, str]]] = []
    chars = 0
    for messages in conversations:
        chunk.append(messages)
        chars += sum(len(message["content"]) for message in messages)
        if len(chunk) == _CHUNK_ROWS or chars >= _CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def _read(answer: dict[str, str]) -> str | ModelError:
    if "error" in answer:
        return ModelError(f"the chat template can't write this: {answer['error']}", key="data.template")
    return answer["text"]


def _close(child: "subprocess.Popen[str]", owner: int) -> int:
    """Close the pipes and reap the child, in the process that started it."""
    if owner != os.getpid():
        return 0
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                continue  # the child was gone before the last line
    child.terminate()
    return child.wait()
