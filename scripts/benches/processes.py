"""Sides that take turns: each is a process of its own, so that none pays for what another has imported.

A side is a module that is run with its job (JSON) as argument and answers in lines of JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benches.figures import ROOT, Figures, peak_bytes


def command(module: str, job: Figures) -> list[str]:
    """What runs a side."""
    return [sys.executable, "-W", "ignore", "-m", module, json.dumps(job)]


def environment() -> dict[str, str]:
    """Where a side finds lora_kit and the benches."""
    paths = [str(ROOT), str(ROOT / "scripts"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def turn(module: str, job: Figures, changes: Mapping[str, str] | None = None) -> Figures:
    """Run a side to its end, with ``changes`` of its environment; its last line is what it found."""
    done = subprocess.run(
        command(module, job),
        env=environment() | dict(changes or {}),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def answer(sides: Mapping[str, Callable[[Figures], Figures]]) -> None:
    """Be the side of a :func:`turn` that the job names."""
    job = json.loads(sys.argv[1])
    print(json.dumps(sides[job["side"]](job) | {"peak_bytes": peak_bytes()}))


class Side:
    """A process that makes a step when it is told to, and says what it measured."""

    def __init__(self, module: str, job: Figures) -> None:
        self.process = subprocess.Popen(
            command(module, job), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        self._answer()  # ready

    def step(self, what: int | list[str]) -> Figures:
        """Make step ``what``: a number from 0, or the origins of its rows."""
        return self._ask(json.dumps(what))

    def close(self) -> Figures:
        """End the process; return its peak memory."""
        last = self._ask("end")
        self.process.communicate()
        return last

    def _ask(self, line: str) -> Figures:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Figures:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries may print
                return json.loads(line)
        raise SystemExit(f"a side ended with code {self.process.wait()}")


def say(figures: Figures) -> None:
    """Be a :class:`Side`: answer its parent."""
    print(json.dumps(figures), flush=True)


def plain(value: object) -> object:
    """A job's value as JSON has it; a path becomes absolute."""
    return str(value.absolute()) if isinstance(value, Path) else value
