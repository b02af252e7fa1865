import json

import pytest

from lora_kit.errors import DataError, IncompleteError, RecipeError
from lora_kit.harness.judging.budget import Budget
from lora_kit.harness.judging.run import JudgeJob, judge, require_judged
from lora_kit.harness.judging.sides import read_pairing


@pytest.fixture
def pairing(answer_files):
    return read_pairing(*map(str, answer_files), None)


def test_journal_results_and_numbers(tmp_path, scripted, pairing):
    told = []
    backend = scripted(lambda question: "1" if question.showing.players[0] == "ours" else "2")
    section = judge(pairing, backend, JudgeJob(), tmp_path, on_estimate=told.append)
    assert (section["planned"], section["judged"], section["asked"]) == (16, 16, 16)
    assert section["preference"]["estimate"]["value"] == 100.0
    assert section["preference"]["difference"]["verdict"] == "better"
    assert section["layers"] == {"last line": 16}
    assert told[0].requests == 16
    assert len((tmp_path / "judgments.jsonl").read_text().splitlines()) == 16
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["judgments"] == [section]
    line = json.loads((tmp_path / "judgments.jsonl").read_text().splitlines()[0])
    assert {"key", "item", "shown", "scores", "reply", "attempt", "judge", "date"} <= line.keys()


def test_a_second_run_replaces_its_section_and_keeps_the_rest(tmp_path, scripted, pairing):
    (tmp_path / "results.json").write_text('{"results_version": 1, "models": []}')
    for kind, reply in (("pairwise", "1"), ("pair_score", "8 8"), ("pairwise", "1")):
        judge(pairing, scripted(lambda _, reply=reply: reply), JudgeJob(kind=kind), tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["models"] == []
    assert [section["kind"] for section in stored["judgments"]] == ["pair_score", "pairwise"]
    assert stored["judgments"][1]["asked"] == 0


def test_too_expensive_asks_nothing(tmp_path, scripted, pairing):
    backend = scripted(lambda _: "1")
    with pytest.raises(RecipeError, match="could cost more than --max-cost"):
        judge(pairing, backend, JudgeJob(budget=Budget(1000.0, 1000.0, 0.01)), tmp_path)
    assert backend.asked == []
    assert not (tmp_path / "results.json").exists()


def test_reminders_beyond_the_limit_are_not_sent(tmp_path, scripted, pairing):
    backend = scripted(lambda _: "Well..." * 500)
    estimate = []
    judge(pairing, backend, JudgeJob(), tmp_path / "free", on_estimate=estimate.append)
    whole = estimate[0].prompt_tokens + estimate[0].completion_tokens
    asked = len(backend.asked)
    section = judge(pairing, backend, JudgeJob(budget=Budget(1e6, 1e6, whole)), tmp_path / "capped")
    assert (asked, section["asked"]) == (32, 16)
    assert len(section["unparsed"]) == 16


def test_incomplete_is_an_error_with_its_counts(tmp_path, scripted, pairing):
    def script(question):
        name = question.showing.prompt.id
        return OSError("503") if name == "q1" else "Well..." if name == "q2" else "3"

    section = judge(pairing, scripted(script), JudgeJob(), tmp_path)
    assert (section["judged"], section["share_judged"]) == (12, 0.75)
    assert {entry["item"] for entry in section["errors"]} == {"q1"}
    assert [entry["reply"] for entry in section["unparsed"]] == ["Well..."] * 2
    require_judged(section, 0.75)
    with pytest.raises(IncompleteError, match=r"12 of 16 judged \(2 unparsed, 2 without a reply; most often"):
        require_judged(section, 1.0)


def test_results_that_are_none_are_not_overwritten(tmp_path, scripted, pairing):
    (tmp_path / "results.json").write_text("[")
    with pytest.raises(DataError, match=r"not a results\.json"):
        judge(pairing, scripted(lambda _: "1"), JudgeJob(), tmp_path)
    assert (tmp_path / "results.json").read_text() == "["


def test_an_unknown_kind_is_answered(tmp_path, scripted, pairing):
    with pytest.raises(RecipeError, match="did you mean 'pairwise'"):
        judge(pairing, scripted(lambda _: "1"), JudgeJob(kind="pairwize"), tmp_path)
