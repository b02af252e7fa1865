import pytest

from lora_kit.catalogue import JUDGES
from lora_kit.errors import RecipeError
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.journal import open_journal
from lora_kit.harness.judging.asking import Asking, AskSettings, read_extra
from lora_kit.harness.judging.plan import plan_showings


@pytest.fixture
def showings(prompts):
    answers = ({p.id: f"ours {p.id}" for p in prompts}, {p.id: f"theirs {p.id}" for p in prompts})
    return plan_showings(JUDGES["pairwise"], prompts, ("ours", "theirs"), answers)


def run(path, judge, showings, **options):
    with open_journal(path) as journal:
        asking = Asking(JUDGES["pairwise"], judge, journal, **options)
        return asking.ask(showings), asking.asked


def test_everything_is_asked_once_and_never_again(tmp_path, scripted, showings):
    judge = scripted(lambda _: "Reasons.\n1")
    first, asked = run(tmp_path / "j.jsonl", judge, showings)
    assert asked == len(showings) == 16
    assert {judgment.status for judgment in first} == {"parsed"}
    assert [judgment.showing for judgment in first] == showings
    again, asked = run(tmp_path / "j.jsonl", judge, showings)
    assert asked == 0
    assert [judgment.ruling for judgment in again] == [judgment.ruling for judgment in first]


def test_an_unreadable_reply_is_asked_again_once_with_a_reminder(tmp_path, scripted, showings):
    judge = scripted(lambda question: "3" if question.attempt == 2 else "Well...")
    judgments, asked = run(tmp_path / "j.jsonl", judge, showings[:3])
    assert asked == 6
    assert [question.attempt for question in judge.asked] == [1, 1, 1, 2, 2, 2]
    first, second = judge.asked[0].body, judge.asked[3].body
    added = second["messages"][0]["content"].removeprefix(first["messages"][0]["content"])
    assert added.strip() == JUDGES["pairwise"].reminder
    assert [judgment.ruling.scores for judgment in judgments] == [(0.5, 0.5)] * 3
    assert [reply.text for reply in judgments[0].replies] == ["Well...", "3"]
    assert run(tmp_path / "j.jsonl", judge, showings[:3])[1] == 0


def test_what_stays_unreadable_has_no_ruling_and_is_asked_by_the_next_run(tmp_path, scripted, showings):
    judge = scripted(lambda _: "Well...")
    judgments, asked = run(tmp_path / "j.jsonl", judge, showings[:2])
    assert asked == 4
    assert [(j.status, j.ruling, j.why) for j in judgments] == [("unparsed", None, "no single verdict")] * 2
    judge.script = lambda _: "1"
    judgments, asked = run(tmp_path / "j.jsonl", judge, showings[:2])
    assert asked == 2
    assert {judgment.status for judgment in judgments} == {"parsed"}


def test_a_failure_is_not_kept(tmp_path, scripted, showings):
    judge = scripted(lambda question: OSError("503") if question.showing.prompt.id == "q0" else "1")
    judgments, asked = run(tmp_path / "j.jsonl", judge, showings)
    assert asked == 14
    assert [(j.status, j.why) for j in judgments[:2]] == [("error", "503")] * 2
    judge.script = lambda _: "2"
    judgments, asked = run(tmp_path / "j.jsonl", judge, showings)
    assert asked == 2
    assert {judgment.status for judgment in judgments} == {"parsed"}


def test_a_run_that_was_cut_before_the_reminders_only_sends_those(tmp_path, scripted, showings):
    judge = scripted(lambda _: "Well...")
    with open_journal(tmp_path / "j.jsonl") as journal:
        Asking(JUDGES["pairwise"], judge, journal).ask(showings, may_ask=lambda _: False)
    judge.script = lambda _: "1"
    _, asked = run(tmp_path / "j.jsonl", judge, showings)
    assert asked == len(showings)
    assert {question.attempt for question in judge.asked[len(showings) :]} == {2}


@pytest.mark.parametrize(
    "change",
    [
        {"settings": AskSettings(temperature=0.2)},
        {"settings": AskSettings(max_tokens=7)},
        {"settings": AskSettings(extra={"seed": 1})},
    ],
)
def test_another_request_is_another_judgment(tmp_path, scripted, showings, change):
    judge = scripted(lambda _: "1")
    run(tmp_path / "j.jsonl", judge, showings)
    assert run(tmp_path / "j.jsonl", judge, showings, **change)[1] == len(showings)


def test_another_judge_is_another_judgment(tmp_path, scripted, showings):
    judge = scripted(lambda _: "1")
    run(tmp_path / "j.jsonl", judge, showings)
    judge.model = "other"
    assert run(tmp_path / "j.jsonl", judge, showings)[1] == len(showings)


def test_equal_prompts_are_asked_once(tmp_path, scripted, prompts):
    same = {p.id: "the same answer" for p in prompts}
    showings = plan_showings(JUDGES["pairwise"], prompts, ("a", "b"), (same, same))
    judgments, asked = run(tmp_path / "j.jsonl", scripted(lambda _: "3"), showings)
    assert (asked, len(judgments)) == (8, 16)
    assert all(judgment.ruling for judgment in judgments)


def test_a_field_can_be_added_replaced_or_dropped(tmp_path, scripted, showings):
    judge = scripted(lambda _: "1")
    extra = read_extra('{"max_tokens": null, "max_completion_tokens": 99, "seed": 1}')
    run(tmp_path / "j.jsonl", judge, showings[:1], settings=AskSettings(extra=extra))
    body = judge.asked[0].body
    assert (body["max_completion_tokens"], body["seed"], "max_tokens" in body) == (99, 1, False)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"messages": []}', '{"stream": true}', '{"model": "x"}'])
def test_fields_that_are_not_the_users(text):
    with pytest.raises(RecipeError, match="--request"):
        read_extra(text)


def test_probabilities_survive_the_journal(tmp_path, scripted, prompts):
    kind = JUDGES["logprob_pair"]
    answers = ({p.id: "a" for p in prompts}, {p.id: "b" for p in prompts})
    showings = plan_showings(kind, prompts[:1], ("a", "b"), answers)
    judge = scripted(lambda _: ChatReply("m", "judge", top_logprobs={"m": -0.1, "M": -3.0}))
    for expected in (2, 0):
        with open_journal(tmp_path / "j.jsonl") as journal:
            asking = Asking(kind, judge, journal)
            [first, _] = asking.ask(showings)
        assert asking.asked == expected
        assert first.ruling.scores[0] > 0.9
    assert judge.asked[0].body["top_logprobs"] == 5
