import json

import pytest

from lora_kit.catalogue import JUDGES
from lora_kit.data.types import Message
from lora_kit.errors import DataError, RecipeError
from lora_kit.harness.client import ChatFailureError
from lora_kit.harness.engine import Generation, Likelihood
from lora_kit.harness.journal import open_journal
from lora_kit.harness.judging.asking import Asking
from lora_kit.harness.judging.backends.local import LocalJudge
from lora_kit.harness.judging.backends.person import PersonJudge, Terminal
from lora_kit.harness.judging.backends.replay import ReplayJudge
from lora_kit.harness.judging.plan import plan_showings
from lora_kit.harness.judging.who import JudgeChoice, open_judge


@pytest.fixture
def showings(prompts):
    def build(kind="pairwise", count=4):
        answers = ({p.id: f"ours {p.id}" for p in prompts}, {p.id: f"theirs {p.id}" for p in prompts})
        return plan_showings(JUDGES[kind], prompts[:count], ("ours", "theirs"), answers)

    return build


def ask(backend, showings, kind="pairwise", path=None):
    with open_journal(path) as journal:
        asking = Asking(JUDGES[kind], backend, journal)
        return asking.ask(showings), asking.asked


class LocalStub:
    """An engine that says 2, or prefers m, and can't take prompts with 'q1' in them."""

    name, fingerprint, measures_likelihood = "tiny", "f" * 64, True

    def __init__(self):
        self.calls = []

    def generate(self, prompts, **_):
        self.calls.append(len(prompts))
        if any("Question number 1" in prompt[0].content for prompt in prompts):
            raise DataError("a prompt of 9999 tokens does not fit")
        for index in reversed(range(len(prompts))):
            yield index, Generation("2", 1, stopped=True)

    def likelihood(self, conversations):
        for index, conversation in enumerate(conversations):
            assert conversation.messages[-1] == Message("assistant", "mM"[index])
            yield index, Likelihood([1.0, 3.0][index], 2, 1)


def test_a_local_model_judges_and_one_long_prompt_costs_only_itself(showings):
    engine = LocalStub()
    judgments, asked = ask(LocalJudge(engine), showings())
    assert asked == 6
    assert [j.status for j in judgments] == ["parsed"] * 2 + ["error"] * 2 + ["parsed"] * 4
    assert "does not fit" in judgments[2].why
    assert engine.calls == [8] + [1] * 8


def test_a_local_model_s_preference_is_its_likelihood(showings):
    judgments, _ = ask(LocalJudge(LocalStub()), showings("logprob_pair"), "logprob_pair")
    assert judgments[0].ruling.scores == pytest.approx((0.8807970779778823, 0.11920292202211755))
    engine = LocalStub()
    engine.measures_likelihood = False
    with pytest.raises(RecipeError, match="how probable"):
        ask(LocalJudge(engine), showings("logprob_pair"), "logprob_pair")


class Keyboard:
    """Types what it is given, then leaves."""

    def __init__(self, *typed):
        self.typed = list(typed)
        self.seen = []

    def read(self, _):
        if not self.typed:
            raise EOFError
        return self.typed.pop(0)

    def judge(self):
        return PersonJudge("ada", Terminal(self.seen.append, self.read))


def test_a_person_votes_blind_quits_and_goes_on(tmp_path, showings):
    path = tmp_path / "judgments.jsonl"
    keyboard = Keyboard("7", " 1 ", "s", "3", "Q")
    judgments, asked = ask(keyboard.judge(), showings(), path=path)
    assert asked == 2
    assert [j.why for j in judgments] == ["", "skipped", ""] + ["not voted on yet"] * 5
    assert [j.ruling.scores for j in judgments if j.ruling] == [(1.0, 0.0), (0.5, 0.5)]
    headings = {heading for parts in keyboard.seen for heading, _ in parts}
    assert {"Answer 1", "Answer 2"} <= headings
    assert not any(text in {"ours", "theirs"} for parts in keyboard.seen for _, text in parts)
    judgments, asked = ask(Keyboard(*"222222").judge(), showings(), path=path)
    assert asked == 6
    assert all(j.ruling for j in judgments)
    assert ask(Keyboard().judge(), showings(), path=path)[1] == 0


def test_a_person_who_is_not_there_votes_nothing(showings):
    judgments, _ = ask(Keyboard().judge(), showings())
    assert {j.status for j in judgments} == {"error"}


def test_a_person_can_not_type_probabilities(showings):
    with pytest.raises(RecipeError, match="a person can't vote in 'logprob_pair'"):
        ask(Keyboard("1").judge(), showings("logprob_pair"), "logprob_pair")


def test_our_own_journal_replays_without_asking(tmp_path, scripted, showings):
    path = tmp_path / "judgments.jsonl"
    judge = scripted(lambda question: "1" if question.attempt == 2 else "Well...")
    first, _ = ask(judge, showings(), path=path)
    again, _ = ask(ReplayJudge(path, "recorded"), showings())
    assert [j.ruling for j in again] == [j.ruling for j in first]
    missing, _ = ask(ReplayJudge(path, "recorded"), showings(count=5))
    assert [j.why for j in missing[8:]] == ["not in the record"] * 2


def test_published_records_replay(tmp_path, showings):
    path = tmp_path / "record.jsonl"
    row = {"item_id": "q0", "a": "ours", "b": "theirs", "raw": "Both.\n3", "verdict": "tie"}
    path.write_text(json.dumps(row))
    judgments, _ = ask(ReplayJudge(path, "gpt-4"), showings(count=1))
    assert [(j.showing.players, j.status) for j in judgments] == [
        (("theirs", "ours"), "error"),
        (("ours", "theirs"), "parsed"),
    ]
    path.write_text('{"kind": "pairwise", "item": "q0"}')
    with pytest.raises(DataError, match="neither a judgment of ours"):
        ReplayJudge(path, "gpt-4")


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        (JudgeChoice("http://127.0.0.1:1/v1"), "which model judges"),
        (JudgeChoice("person"), "who votes"),
        (JudgeChoice("http://127.0.0.1:1/v1", "m", parallel=0), "must be 1 to 64"),
        (JudgeChoice("nonsense", "m"), "not an http"),
        (JudgeChoice("http://10.0.0.9/v1", "m", "KEY"), "plain http to another machine"),
    ],
)
def test_a_judge_that_can_not_be(choice, found):
    terminal = Terminal(lambda _: None, lambda _: "")
    with pytest.raises(RecipeError, match=found):
        open_judge(choice, terminal=terminal, environment={"KEY": "sk-0123456789"})


def test_a_person_needs_a_terminal():
    with pytest.raises(RecipeError, match="in a terminal"):
        open_judge(JudgeChoice("person", "ada"))


def test_a_server_on_this_machine_is_free(chat_stub):
    judge = open_judge(JudgeChoice(chat_stub.url, "m"), environment={})
    assert (judge.host, judge.model, judge.costs) == ("127.0.0.1", "m", False)
    assert list(judge.answer([])) == []
    judge.close()
    other = open_judge(JudgeChoice("https://api.example.com/v1", "m"), environment={})
    assert other.costs
    other.close()


def test_failures_carry_their_reason():
    assert str(ChatFailureError("503 Service Unavailable")) == "503 Service Unavailable"


def test_a_real_model_judges_in_process(tiny_folder, showings):
    folder = tiny_folder("llama", max_position_embeddings=4096)
    judge = open_judge(JudgeChoice(f"local:{folder}"))
    judgments, _ = ask(judge, showings("logprob_pair", count=1), "logprob_pair")
    assert [sum(j.ruling.scores) for j in judgments] == pytest.approx([1.0, 1.0])
    assert judge.host.startswith("local:")
