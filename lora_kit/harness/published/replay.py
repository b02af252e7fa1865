"""The whole way from answers to a published table, against a server that replays the recorded judge.

The server is a script beside the manifest, run on loopback; with its faults switched on
(429, 500, garbage, empty replies, death in the middle) the numbers must not move.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from lora_kit.errors import MachineError
from lora_kit.harness.client import ChatClient
from lora_kit.harness.endpoint import Endpoint
from lora_kit.harness.judging.backends.endpoint import EndpointJudge
from lora_kit.harness.judging.run import JudgeJob, judge
from lora_kit.harness.judging.sides import Pairing, read_pairing
from lora_kit.harness.published.case import Case, Check, MissingInputError, compare
from lora_kit.harness.retry import RetryRules, Timer

START_SECONDS, LONGEST_SLEEP_SECONDS = 30.0, 0.05
FAULTS = ("--p429", "0.1", "--p500", "0.05", "--pgarbage", "0.02", "--pempty", "0.01")
ORDERS = {"ref_first": "reference_first", "sys_first": "system_first"}
JOB = JudgeJob(kind="pair_score")


def check_replay(case: Case) -> list[Check]:
    """Each system clean and a second time from the journal; the first also with faults and with a death."""
    systems = [system for system in case.expected["systems"] if f"qlora-relative-{system}" in case.others]
    if not case.thorough:
        systems = systems[:1]
    checks = []
    for number, system in enumerate(systems):
        checks += _clean(case, system)
        if number == 0 and case.thorough:
            checks += [*_with_faults(case, system), *_with_death(case, system)]
    return checks


def _clean(case: Case, system: str) -> list[Check]:
    pairing = _pairing(case, system)
    with _folder() as folder, _server(case) as url:
        section = _judge(pairing, url, folder, parallel=16)
        first = _stats(url)
        again = _judge(pairing, url, folder, parallel=1)
        second = _stats(url)
    return [
        *_numbers(f"{system}", case, system, section),
        *_numbers(f"{system} again", case, system, again),
        Check(f"{system}: prompts sent twice", 0, first["repeats"]),
        Check(f"{system}: requests of a second run", 0, second["requests"] - first["requests"]),
    ]


def _with_faults(case: Case, system: str) -> list[Check]:
    """Whatever stays unreadable is asked again by a second run, and only that."""
    pairing = _pairing(case, system)
    with _folder() as folder, _server(case, *FAULTS) as url:
        section = _judge(pairing, url, folder, parallel=8)
        listed = len(section["unparsed"]) + len(section["errors"]) + section["judged"]
        section = _judge(pairing, url, folder, parallel=8)
    return [
        *_numbers(f"{system} with faults", case, system, section),
        Check(f"{system} with faults: judged or listed", section["planned"], listed),
    ]


def _with_death(case: Case, system: str) -> list[Check]:
    pairing = _pairing(case, system)
    with _folder() as folder:
        with _server(case, "--die-after", "70") as url:
            before = _judge(pairing, url, folder, parallel=4)
        with _server(case) as url:
            after = _judge(pairing, url, folder, parallel=4)
            requests = _stats(url)["requests"]
    return [
        *_numbers(f"{system} after a death", case, system, after),
        Check(f"{system} after a death: asked again", 0, before["judged"] + requests - after["planned"]),
    ]


def _numbers(name: str, case: Case, system: str, section: Mapping[str, Any]) -> list[Check]:
    relative = case.others[f"qlora-relative-{system}"]
    tolerance = float(relative.get("tolerance", {}).get("reference_impl", 1e-6))
    expected, got = relative["expected_recovered"], section["relative"]
    checks = [Check(f"{name}: judged", section["planned"], section["judged"])]
    for theirs, ours in ORDERS.items():
        checks += compare(f"{name}: {theirs}", expected[theirs], got[ours], tolerance)
    for key in ("mean_of_orders", "pooled"):
        checks.append(Check(f"{name}: {key}", expected[key], got[key], tolerance))
    return checks


def _pairing(case: Case, system: str) -> Pairing:
    answers = case.folder / "vicuna80" / "answers"
    for name in (system, "gpt35"):
        if not (answers / f"{name}.jsonl").is_file():
            raise MissingInputError(f"no answers of {name}")
    return read_pairing(str(answers / f"{system}.jsonl"), str(answers / "gpt35.jsonl"), None)


def _judge(pairing: Pairing, url: str, folder: Path, *, parallel: int) -> dict[str, Any]:
    timer = Timer(sleep=lambda seconds: time.sleep(min(seconds, LONGEST_SLEEP_SECONDS)))
    with ChatClient(Endpoint(url), rules=RetryRules(4), timer=timer, connections=parallel) as client:
        return judge(pairing, EndpointJudge(client, "gpt-4-replay", parallel=parallel), JOB, folder)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lora-kit-replay-") as folder:
        yield Path(folder)


@contextmanager
def _server(case: Case, *options: str) -> Iterator[str]:
    """The replaying judge on a free port; ended with the block."""
    script = case.folder / case.fields["file"]
    if not script.is_file():
        raise MissingInputError(f"no {case.fields['file']}")
    port = _free_port()
    arguments = ["--root", str(case.folder), "--protocol", "relative", "--port", str(port), *options]
    command: Sequence[str] = [sys.executable, str(script), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    url = f"http://127.0.0.1:{port}/v1"
    try:
        _wait_for(process, url)
        yield url
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            _stats(url)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise MachineError("the replaying judge does not start")


def _stats(url: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        httpx.get(url.removesuffix("/v1") + "/stats", trust_env=False, timeout=10.0).text
    )
    return found
