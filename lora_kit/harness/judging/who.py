"""From what the user typed to somebody who judges.

``--judge`` is the address of a chat server, ``local:MODEL`` (a model or run in this
process), ``person``, or ``replay:FILE``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_kit.errors import RecipeError
from lora_kit.harness.client import ChatClient
from lora_kit.harness.endpoint import read_endpoint
from lora_kit.harness.engine import Engine
from lora_kit.harness.judging.backend import JudgeBackend
from lora_kit.harness.judging.backends.endpoint import EndpointJudge
from lora_kit.harness.judging.backends.local import LocalJudge
from lora_kit.harness.judging.backends.person import PersonJudge, Terminal
from lora_kit.harness.judging.backends.replay import ReplayJudge

PERSON, LOCAL, REPLAY = "person", "local:", "replay:"
MOST_PARALLEL = 64


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """Who is to judge.

    Args:
        source: Address, ``local:MODEL``, ``person`` or ``replay:FILE``.
        model: Name of the model at that address, or of the person.
        key_env: Variable with the key; empty for none.
        parallel: Questions at once.
    """

    source: str
    model: str = ""
    key_env: str = ""
    parallel: int = 8


def open_judge(
    choice: JudgeChoice, *, terminal: Terminal | None = None, environment: Mapping[str, str] | None = None
) -> JudgeBackend:
    """Make the backend.

    Args:
        choice: Who.
        terminal: Where a person votes.
        environment: Where the key is; the process's own if None.

    Raises:
        RecipeError: An address or a key that can't be used, or no name for the judge.
        DataError: A record that can't be read.
        ModelError: A local model that can't be opened.
    """
    if choice.source == PERSON:
        return _person(choice, terminal)
    if choice.source.startswith(REPLAY):
        return ReplayJudge(Path(choice.source.removeprefix(REPLAY)), choice.model or "recorded")
    if choice.source.startswith(LOCAL):
        return LocalJudge(_local_engine(choice.source.removeprefix(LOCAL)))
    if not choice.model:
        raise RecipeError("which model judges?", key="--model", cure="give its name as the server knows it")
    if not 1 <= choice.parallel <= MOST_PARALLEL:
        raise RecipeError(f"must be 1 to {MOST_PARALLEL}, got {choice.parallel}", key="--concurrency")
    endpoint = read_endpoint(
        choice.source, choice.key_env, os.environ if environment is None else environment
    )
    client = ChatClient(endpoint, connections=choice.parallel)
    return EndpointJudge(client, choice.model, parallel=choice.parallel)


def require_judge(source: str | None) -> str:
    """The source, if there is one.

    Raises:
        RecipeError: Nobody was named; says who can judge.
    """
    if not source:
        cure = "a chat server (--judge URL --model NAME), local:MODEL, person, or replay:FILE"
        raise RecipeError("nobody judges", key="--judge", cure=f"{cure}; without one: lora-kit evaluate")
    return source


def _person(choice: JudgeChoice, terminal: Terminal | None) -> PersonJudge:
    if terminal is None:
        raise RecipeError("a person votes in a terminal, and there is none")
    if not choice.model:
        raise RecipeError("who votes?", key="--model", cure="give a name, under which the votes are kept")
    return PersonJudge(choice.model, terminal)


def _local_engine(target: str) -> Engine:
    from lora_kit.assemble import open_target
    from lora_kit.harness.engines.transformers_engine import TransformersEngine

    opened = open_target(target)
    return TransformersEngine(
        opened.name,
        opened.model,
        opened.encoder,
        adapter=opened.adapter is not None,
        base_fingerprint=opened.files.fingerprint,
    )
