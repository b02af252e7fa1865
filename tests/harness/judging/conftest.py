"""Judges without a network, and two systems to judge."""

import json

import pytest

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.client import ChatFailureError
from lora_kit.harness.judging.kind import Prompt


class ScriptedJudge:
    """Answers from a function ``(question) -> reply text, ChatReply or failure``; keeps what it was asked."""

    host, model, costs = "scripted", "judge", False

    def __init__(self, script):
        self.script = script
        self.asked = []

    def answer(self, questions):
        for index, question in enumerate(questions):
            self.asked.append(question)
            said = self.script(question)
            reply = ChatReply(said, self.model) if isinstance(said, str) else said
            yield index, ChatFailureError(str(said)) if isinstance(said, Exception) else reply

    def close(self):
        pass


@pytest.fixture
def scripted():
    return ScriptedJudge


@pytest.fixture
def prompts():
    return [Prompt(f"q{n}", "generic", f"q{n}", f"Question number {n}?", f"Gold {n}") for n in range(8)]


@pytest.fixture
def answer_files(tmp_path, prompts):
    """Two files of answers, with prompts in their rows."""
    for name, text in (("ours", "Our answer to {}"), ("theirs", "Their answer, somewhat longer, to {}")):
        rows = [{"id": p.id, "prompt": p.question, "answer": text.format(p.id)} for p in prompts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
