"""A finished run on disk, written by the same code that writes real ones; only the models are stand-ins."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.data.account import Account, DataReport, measure
from lora_kit.data.types import Conversation, Message
from lora_kit.harness.engine import Generation, Likelihood
from lora_kit.harness.run import evaluate
from lora_kit.harness.suite import Item, Suite
from lora_kit.recipe.schema import EvaluateSpec
from lora_kit.train.observe import StepRecord


class StandIn:
    """An engine with a fixed answer and likelihood for each prompt."""

    measures_likelihood = True

    def __init__(self, name: str, text: str, nats: Callable[[int], float]) -> None:
        self.name = self.fingerprint = name
        self.text = text
        self.nats = nats

    def generate(self, prompts: Sequence[Sequence[Message]], **_: int) -> Iterator[tuple[int, Generation]]:
        for index, prompt in enumerate(prompts):
            yield index, Generation(f"{self.text} {prompt[-1].content}", 7, stopped=index % 2 == 0)

    def likelihood(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Likelihood]]:
        for index, conversation in enumerate(conversations):
            length = len(conversation.messages[-1].content.encode())
            yield index, Likelihood(self.nats(index), 9, length)


def make_suite(count: int = 12) -> Suite:
    items = [
        Item(
            f"q-{n}",
            "open_qa",
            (Message("user", f"What does rank {n} do?"),),
            f"It sets the size {n} of A and B.",
            f"q-{n}",
            "q",
        )
        for n in range(count)
    ]
    return Suite("quickstart", "Questions about LoRA.", tuple(items), ("rouge_l", "chrf"))


def results_json(
    tuned: Callable[[int], float] | None, *, suite: Suite | None = None, answer: str = "tuned says"
) -> dict[str, Any]:
    """Results of a base at 30 nats an item and, maybe, a tuned model."""
    engines = [StandIn("base", "base says", lambda n: 30.0 + n % 3)]
    if tuned is not None:
        engines.append(StandIn("tuned", answer, tuned))
    spec = EvaluateSpec(bootstrap_samples=200)
    results = evaluate(engines, suite or make_suite(), spec).to_json()
    return json.loads(json.dumps(results | {"seconds": 1.5, "versions": {}}))


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """What tests make their own results with."""
    return SimpleNamespace(results_json=results_json, StandIn=StandIn, make_suite=make_suite)


def write_metrics(run: RunDir, losses: Sequence[float], validate_every: int = 4) -> None:
    log = MetricsLog(run.metrics)
    for step, loss in enumerate(losses, start=1):
        validation = loss + 0.1 if step % validate_every == 0 else None
        rows = (f"rows.jsonl:{step}",)
        record = StepRecord(step, 0, loss, 1e-3, 0.5, 40, 100, rows, 2.0, 50.0, 10**9, validation)
        log.append(record.to_json())
    log.close()


FOUND = {
    "near_duplicates": {
        "count": 3,
        "rows": ["rows.jsonl:7"],
        "pairs": [{"row": "rows.jsonl:7", "like": "rows.jsonl:2", "similarity": 0.913}],
        "similarity": 0.8,
        "is_complete": False,
        "indexed_rows": 5,
    },
    "split": {
        "clusters": 2,
        "clustered_examples": 6,
        "random_split": {"validation_examples": 4.5, "leaked_examples": 2.2},
    },
    "suite_overlap": {
        "quickstart": {
            "items": 12,
            "found": [
                {"id": "q-1", "part": "prompt", "level": "possible", "rows": ["rows.jsonl:1"]},
                {"id": "q-1", "part": "reference", "level": "exact", "rows": ["rows.jsonl:4"]},
            ],
        },
        "chat": {"items": 80, "found": []},
    },
    "mix": [
        {"source": "b.csv", "format": "alpaca", "rows_read": 90, "rows_taken": 31, "conversations": 31},
    ],
}


def data_report() -> dict[str, Any]:
    account = Account(rows_read=10, rows_used=9)
    account.settle("rows.jsonl:3", kept=0, lost=["overlong"])
    account.rows_used = 9
    account.categories["open_qa"] = 9
    account.duplicates.add("rows.jsonl:5")
    lengths = np.array([20, 50, 70, 300])
    sources = ({"role": "train", "file": "/home/me/rows.jsonl", "sha256": "ab" * 32},)
    return (
        DataReport(
            account=account,
            format="dolly",
            format_reason="named in the recipe",
            sources=sources,
            encoder_fingerprint="e" * 64,
            train_rows=8,
            validation_rows=1,
            lengths=measure(lengths, 440, lambda at: f"rows.jsonl:{lengths[at]}"),
        ).to_json()
        | FOUND
    )


ADAPTER = {
    "base": {"source": "tiny/base", "revision": None, "fingerprint": "f" * 64, "dtype": "float32"},
    "quantization": {"method": "none"},
    "template": {"name": "model", "fingerprint": "a" * 64},
    "system": None,
    "training_fingerprint": "t" * 64,
    "runtime": {"versions": "torch 2.13.0, peft 0.21.2", "threads": "2", "hardware": "AVX2"},
}
CERTIFICATE = {
    "folder": "/home/me/run/merged",
    "dtype": "float32",
    "base": "original",
    "modules": 14,
    "tokens": 200,
    "max_logit_difference": 3.2e-6,
    "mean_logit_difference": 1e-7,
    "max_logit": 21.5,
    "greedy_agreement": 1.0,
    "tolerance": 2.15e-4,
}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def bare_run(tmp_path: Path) -> RunDir:
    """A run that has only been trained a few steps."""
    run = open_run(tmp_path / "my run")
    write_metrics(run, [3.0 / step for step in range(1, 25)])
    return run


@pytest.fixture(scope="session")
def better_results() -> dict[str, Any]:
    return results_json(lambda n: 20.0 + n % 4)


@pytest.fixture
def full_run(bare_run: RunDir, better_results: dict[str, Any]) -> RunDir:
    """A run with every part on disk."""
    run = bare_run
    run.recipe.write_text("name: quickstart\nlora:\n  rank: 16\n", encoding="utf-8")
    run.update_state(name="quickstart", status="finished", kept_step=20, validation_loss=0.25, inexact=[])
    write_json(run.data_report, data_report())
    write_json(run.adapter / "lora_kit.json", ADAPTER)
    write_json(run.merged / "certificate.json", CERTIFICATE)
    write_json(run.evaluations / "quickstart" / "results.json", better_results)
    return run
