"""results.json is shared: who writes a part keeps what is still true of the others, and drops the rest."""

import json

import pytest

from lora_kit.errors import DataError
from lora_kit.harness.results_file import (
    answer_hashes,
    carried_over,
    read_results,
    with_answers,
    without_stale,
)


def item(name, *, prompt="Q", reference="R", **answers):
    texts = {player: {"text": text} for player, text in answers.items()}
    return {
        "id": name,
        "category": "",
        "prompt": f"{prompt} {name}",
        "reference": reference,
        "answers": texts,
    }


def evaluation(*items, models=("base", "tuned")):
    found = [{"name": name, "fingerprint": f"print of {name}"} for name in models]
    return {"models": found, "items": list(items), "notes": []}


def section(items, system="tuned", against="base", **more):
    ids = [one["id"] for one in items]
    hashes = answer_hashes(items, (system, against), ids)
    return {
        "kind": "pairwise",
        "judge": {"model": "gpt"},
        "system": system,
        "against": against,
        "items": ids,
        "answers": hashes,
        **more,
    }


@pytest.fixture
def items():
    return [item("1", base="b1", tuned="t1"), item("2", base="b2", tuned="t2")]


@pytest.fixture
def old(items):
    sections = [section(items), section(items, against="reference", judge={"model": "claude"})]
    ranking = section(items)
    return {**evaluation(*items), "judgments": sections, "ranking": ranking, "lm_eval": {"tasks": []}}


def test_the_same_answers_keep_everything(old, items):
    new = carried_over(old, evaluation(*items))
    for name in ("judgments", "ranking", "lm_eval"):
        assert new[name] == old[name]
    assert new["notes"] == []


@pytest.mark.parametrize("field", ["prompt", "reference", "answer"])
def test_what_is_about_others_is_dropped_with_a_note(old, items, field):
    changed = json.loads(json.dumps(items))
    if field == "answer":
        changed[1]["answers"]["base"]["text"] = "other"
    else:
        changed[1][field] = "other"
    new = carried_over(old, evaluation(*changed))
    kept = {one["judge"]["model"] for one in new["judgments"]}
    assert kept == {"prompt": set(), "reference": {"gpt"}, "answer": {"claude"}}[field]
    dropped = [note for note in new["notes"] if note.startswith("dropped: what ")]
    assert len(dropped) == 2 - len(kept)
    assert ("ranking" in new) == (field == "reference")


def test_a_suite_that_grew_or_shrank_is_not_what_was_judged(old, items):
    for others in ([*items, item("3", base="b3", tuned="t3")], items[:1]):
        new = carried_over(old, evaluation(*others))
        assert new["judgments"] == []
        assert "ranking" not in new
        assert len(new["notes"]) == 3


def test_answers_of_others_stay_with_what_was_said_of_them(items):
    asked = [item(one["id"], chatgpt=f"c{one['id']}", tuned=f"t{one['id']}") for one in items]
    results = with_answers(evaluation(*items), asked)
    results["judgments"] = [section(results["items"], against="chatgpt")]
    new = carried_over(results, evaluation(*items))
    assert new["judgments"] == results["judgments"]
    assert new["items"][0]["answers"]["chatgpt"] == {"text": "c1"}


def test_other_weights_lose_what_lm_eval_said(old, items):
    new = evaluation(*items)
    new["models"][1]["fingerprint"] = "another"
    assert "lm_eval" not in carried_over(old, new)


@pytest.mark.parametrize(
    "broken",
    [{"judgments": [1], "items": [{"id": 1}]}, {"judgments": 5}, {"ranking": 3}, {"lm_eval": 1, "models": 4}],
)
def test_a_file_that_somebody_edited_stops_no_evaluation(items, broken):
    new = carried_over(broken, evaluation(*items))
    assert new["items"] == items
    assert new["notes"] == ["dropped: what was judged before; nobody can say of which answers"]


def test_a_section_without_hashes_can_not_outlive_an_evaluation(items):
    results = {**evaluation(*items), "judgments": [section(items, answers={})]}
    assert without_stale(results)["judgments"] != []
    assert carried_over(results, evaluation(*items))["judgments"] == []


def test_a_folder_of_judgments_alone_takes_new_answers_and_forgets_the_old(items):
    first = with_answers({}, items)
    first["judgments"] = [section(first["items"]), section(first["items"], against="reference")]
    assert with_answers(first, items)["judgments"] == first["judgments"]
    changed = [item("1", base="other", tuned="t1"), item("2", base="b2", tuned="t2")]
    second = with_answers(first, changed)
    assert [one["against"] for one in second["judgments"]] == ["reference"]
    assert second["items"][0]["answers"]["base"] == {"text": "other"}
    more = with_answers(first, [item("3", base="b3", tuned="t3")])
    assert len(more["items"]) == 3
    assert more["judgments"] == first["judgments"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (item("3", tuned="t3"), "no such prompt"),
        (item("1", prompt="P", tuned="t1"), "no such prompt"),
        (item("1", tuned="other"), "another answer of 'tuned'"),
        (item("1", reference="other", tuned="t1"), "another reference"),
    ],
)
def test_judgments_of_something_else_do_not_join_an_evaluation(items, asked, found):
    with pytest.raises(DataError, match=f"the evaluation in this folder has {found}; pass another --out"):
        with_answers(evaluation(*items), [asked])


def test_answers_of_others_and_prompts_without_references_may_join(items):
    results = with_answers(evaluation(*items), [item("1", reference="", chatgpt="c1")])
    assert results["items"][0]["reference"] == "R"
    assert set(results["items"][0]["answers"]) == {"base", "tuned", "chatgpt"}


def test_hashes_are_of_prompts_and_answers_in_any_order(items):
    assert answer_hashes(items, ["base"], ["1", "2"]) == answer_hashes(items[::-1], ["base"], ["2", "1"])
    assert answer_hashes(items, ["base"], ["1"]) != answer_hashes(items, ["base"], ["2"])
    assert answer_hashes(items, ["nobody"], ["1"]) == {}
    assert answer_hashes(items, ["reference"], ["1"]).keys() == {"reference"}


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "results.json"
    assert read_results(path, "s") == {"results_version": 1, "suite": {"name": "s"}}
    for text in ("[", "5", '"x"'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"not a results\.json"):
            read_results(path, "s")
