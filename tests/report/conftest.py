"""A finished run on disk, written by the same code that writes real ones; only the models are stand-ins."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.data.account import Account, DataReport, measure
from lora_kit.data.types import Conversation, Message
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.client import ChatFailureError
from lora_kit.harness.comparing.run import CompareJob, Contest, compare
from lora_kit.harness.engine import Generation, Likelihood
from lora_kit.harness.judging.backend import Question
from lora_kit.harness.judging.kind import Prompt
from lora_kit.harness.judging.run import JudgeJob, judge
from lora_kit.harness.judging.sides import Pairing, Side, read_pairing
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
        record = StepRecord(step, 0, loss, 1e-3, 0.5, 40, 100, rows, 2.0, 50.0, 10**9, validation, 25)
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


class StandInJudge:
    """Says what a function of the question says; a failure for None."""

    host, model, costs = "judges.example", "gpt-stand-in", False

    def __init__(self, script: Callable[[Question], str | None]) -> None:
        self.script = script

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Any]]:
        for index, question in enumerate(questions):
            said = self.script(question)
            reply = ChatFailureError("503 busy") if said is None else ChatReply(said, self.model)
            yield index, reply

    def close(self) -> None:
        pass


def verdict(question: Question) -> str | None:
    """Prompt 0: the first shown wins; 1: unreadable; 2: no reply; of the others every fourth is lost."""
    number, shown = int(question.showing.prompt.id.rpartition("-")[2]), question.showing.players
    if number in (1, 2):
        return "Well..." if number == 1 else None
    if number == 0:
        return f"The first is fine.\n{HOSTILE}\n1"
    tuned_wins = number % 4 != 3
    return f"About {question.showing.prompt.id}.\n{1 if (shown[0] == 'tuned') == tuned_wins else 2}"


HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)> \x1b[31m\u202e\u2028 | [a](b:c)'
GRADES = {"tuned": 7, "base": 5}


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an evaluation of two models, two judges' sections, rule checks and leaked prompts."""
    folder = tmp_path_factory.mktemp("evaluation")
    suite = make_suite(24)
    items = [replace(i, category=("open_qa", "writing")[n % 2]) for n, i in enumerate(suite.items)]
    results = results_json(lambda n: 20.0 + n % 4, suite=replace(suite, items=tuple(items)))
    results["items"][5]["answers"]["tuned"]["text"] = f"{HOSTILE} {'x' * 3000}"
    checks = [
        {"type": "number", "wanted": "the last number is 137", "passed": False, "reason": "it is 147"},
        {"type": "contains", "wanted": "contains 'years'", "passed": True, "reason": ""},
    ]
    results["items"][3]["answers"]["tuned"]["checks"] = checks
    found = [{"part": "prompt", "level": "exact", "share": 1.0, "rows": ["rows.jsonl:12"]}]
    counts = {"exact": 1, "probable": 0, "possible": 0, "none": 23}
    leaked = [{"id": "q-4", "level": "exact", "found": found}]
    results["leakage"] = {"status": "known", "reason": "", "counts": counts, "items": leaked, "subsets": []}
    write_json(folder / "results.json", results)
    pairing = read_pairing(str(folder), "base", None)
    judge(pairing, StandInJudge(verdict), JudgeJob(), folder)
    judge(
        pairing,
        StandInJudge(lambda q: f"[[{GRADES[q.showing.players[0]]}]]"),
        JudgeJob("single"),
        folder,
    )
    return folder


@pytest.fixture(scope="session")
def only_judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `judge` on two files of answers, without an evaluation."""
    folder = tmp_path_factory.mktemp("judged")
    prompts = tuple(Prompt(f"p-{n}", "", f"p-{n}", f"Question {n}?", "") for n in range(8))
    sides = [
        Side(name, {p.id: f"{name} {p.id}" for p in prompts}, {}, f"{name}.jsonl")
        for name in ("tuned", "other")
    ]
    judge(Pairing("made", prompts, *sides), StandInJudge(lambda _: "3"), JudgeJob(), folder)
    return folder


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `compare`: three systems on twelve prompts; a beats all, b and c tie by place."""
    folder = tmp_path_factory.mktemp("compared")
    prompts = tuple(Prompt(f"p-{n}", "qa", f"p-{n}", f"Question {n}?", f"Gold {n}") for n in range(12))
    said = {name: {p.id: f"{name} says {p.id} {'so ' * n}" for n, p in enumerate(prompts)} for name in "abc"}
    sides = tuple(Side(name, answers, {}, f"{name}.jsonl") for name, answers in said.items())
    script = StandInJudge(lambda question: "2" if question.showing.players[1] == "a" else "1")
    compare(Contest("made", prompts, sides), script, CompareJob(), folder)
    return folder
