"""Judgments without a judge."""

import json

import numpy as np
import pytest

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.comparing.bouts import Bouts


class Simulation:
    """A judge with noise and a liking for whoever is shown first.

    Args:
        ties: Share of ties.
        first: Added to the chance of the first shown.
    """

    def __init__(self, *, ties: float, first: float) -> None:
        self.ties, self.first = ties, first

    def bouts(
        self, generator: np.random.Generator, prompts: int, lead: dict[tuple[int, int], float]
    ) -> Bouts:
        """Both orders of each pair; ``lead`` is what is added to the win rate of the pair's first, 0..1."""
        rows = []
        for pair, extra in lead.items():
            for shown in (pair, pair[::-1]):
                sign = 1.0 if shown == pair else -1.0
                chance = (1.0 - self.ties) / 2 + self.first + sign * extra
                toss = generator.random(prompts)
                won = np.where(toss < chance, 1.0, np.where(toss < chance + self.ties, 0.5, 0.0))
                rows += [(*shown, share, at) for at, share in enumerate(won)]
        first, second, share, item = (np.array(column) for column in zip(*rows, strict=True))
        names = tuple(f"q{at}" for at in item)
        players = tuple("abcd"[: 1 + max(max(pair) for pair in lead)])
        lengths = np.full((len(rows), 2), 100.0)
        return Bouts(players, first, second, share, np.ones(len(rows)), names, names, lengths)


@pytest.fixture
def simulation():
    return Simulation


@pytest.fixture
def small_suite(tmp_path):
    """Name of a suite file of eight prompts with references."""
    prompts = [{"id": f"q{n}", "category": "generic", "prompt": f"Question {n}?"} for n in range(8)]
    references = [{"id": f"q{n}", "answer": f"Gold {n}."} for n in range(8)]
    for name, rows in (("p", prompts), ("r", references)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    header = "name: small\ndescription: eight\nprompts: p.jsonl\nreferences: r.jsonl\nmetrics: [chrf]\n"
    (tmp_path / "small.yaml").write_text(header)
    return str(tmp_path / "small.yaml")


@pytest.fixture
def answers(tmp_path):
    """Factory ``answers(name, text)`` of answer files, ``{}`` is the number of the prompt."""

    def write(name: str, text: str) -> str:
        rows = [{"id": f"q{n}", "answer": text.format(n)} for n in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / f"{name}.jsonl")

    return write


class ScriptedJudge:
    """Answers from a function of the two answers; keeps what it was asked."""

    host, model, costs = "scripted", "judge", False

    def __init__(self, script, *, dies_after=10**9):
        self.script, self.dies_after = script, dies_after
        self.asked = []

    def answer(self, questions):
        for index, question in enumerate(questions):
            if len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(question.key)
            yield index, ChatReply(self.script(*question.showing.answers), self.model)

    def close(self):
        pass


@pytest.fixture
def scripted():
    return ScriptedJudge
