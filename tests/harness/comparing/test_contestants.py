import json
from pathlib import Path

import pytest

from lora_kit.errors import DataError, RecipeError
from lora_kit.harness.comparing.contestants import read_field
from lora_kit.harness.suite import load_suite


def names(sources, suite):
    return [one.name for one in read_field(sources, suite, max_new_tokens=8).contestants]


@pytest.fixture
def run_folder(tmp_path, small_suite):
    """A run that was evaluated on the small suite, with answers of at most 8 tokens."""

    def build(name: str = "first", **changes):
        folder = tmp_path / name / "evaluations" / "small"
        folder.mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
        suite = load_suite(small_suite)
        items = [
            {
                "id": item.id,
                "category": item.category,
                "prompt": item.prompt,
                "reference": item.reference,
                "answers": {who: {"text": f"{who} {item.id}"} for who in ("base", "tuned")},
            }
            for item in suite.items
        ]
        results = {
            "suite": {"name": "small", "fingerprint": suite.fingerprint},
            "models": [{"name": "base"}, {"name": "tuned"}],
            "settings": {"max_new_tokens": 8},
            "items": items,
        }
        (folder / "results.json").write_text(json.dumps(results | changes))
        return tmp_path / name

    return build


def test_files_references_and_given_names(answers, small_suite):
    field = read_field(
        ["gpt=" + answers("x", "{}"), answers("y", "{}"), "reference"], small_suite, max_new_tokens=8
    )
    assert [one.name for one in field.contestants] == ["gpt", "y", "reference"]
    assert field.contestants[2].side.answers["q3"] == "Gold 3."
    assert all(one.side.name == one.name for one in field.contestants)
    assert (field.suite.name, len(field.prompts)) == ("small", 8)


def test_an_evaluated_run_comes_with_its_answers(run_folder, answers, small_suite):
    run = run_folder()
    field = read_field([str(run), f"{run}@base", answers("y", "{}")], small_suite, max_new_tokens=8)
    tuned, base, _ = field.contestants
    assert (tuned.name, tuned.side.answers["q1"]) == ("first", "tuned q1")
    assert (base.name, base.side.answers["q1"]) == ("base", "base q1")


@pytest.mark.parametrize(
    "changes", [{"settings": {"max_new_tokens": 9}}, {"suite": {"fingerprint": "other"}}]
)
def test_a_run_is_asked_again_where_its_evaluation_was_another(run_folder, answers, small_suite, changes):
    field = read_field([str(run_folder(**changes)), answers("y", "{}")], small_suite, max_new_tokens=8)
    assert field.contestants[0].side is None


def test_evaluations_by_folder_file_and_model(run_folder, small_suite):
    folder = run_folder() / "evaluations" / "small"
    assert names([str(folder), f"{folder}/results.json@base"], small_suite) == ["first", "base"]
    with pytest.raises(RecipeError, match="no answers of a model 'tuned2'") as caught:
        names([f"{folder}@tuned2", str(folder)], small_suite)
    assert "did you mean 'tuned'" in str(caught.value)


def test_models_have_to_be_asked_and_paths_may_hold_any_sign(tmp_path, small_suite, answers):
    odd = tmp_path / "a=b@c"
    odd.mkdir()
    field = read_field([str(odd), "org/model", answers("y", "{}")], small_suite, max_new_tokens=8)
    assert [(one.name, one.source) for one in field.contestants[:2]] == [
        ("a=b@c", str(odd)),
        ("model", "org/model"),
    ]
    assert [one.side is None for one in field.contestants] == [True, True, False]


def test_two_of_one_name_are_told_apart_or_refused(tmp_path, answers, small_suite):
    path = answers("y", "{}")
    other = tmp_path / "other" / "y.jsonl"
    other.parent.mkdir()
    other.write_text(Path(path).read_text())
    assert names([path, str(other)], small_suite) == [f"{tmp_path.name}/y", "other/y"]
    with pytest.raises(RecipeError, match="used twice") as caught:
        names([path, path], small_suite)
    assert "NAME=SOURCE" in str(caught.value)


def test_prompts_come_with_answers_or_from_a_file(tmp_path, answers):
    rows = [{"id": f"q{n}", "prompt": f"What is {n}?", "answer": "x"} for n in range(8)]
    path = tmp_path / "with.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    field = read_field([str(path), answers("y", "{}")], None, max_new_tokens=8)
    assert field.prompts[2].question == "What is 2?"
    assert field.suite.items[2].messages[0].content == "What is 2?"
    assert names([answers("y", "{}"), answers("z", "{}")], str(path)) == ["y", "z"]
    with pytest.raises(RecipeError, match="what was asked"):
        names([answers("y", "{}"), answers("z", "{}")], None)


def test_a_reference_has_to_be_there(tmp_path, answers):
    path = tmp_path / "with.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{n}", "prompt": "p"}) + "\n" for n in range(8)))
    with pytest.raises(DataError, match="8 prompts have no reference, such as 'q0'"):
        names([answers("y", "{}"), "reference"], str(path))


def test_one_is_nothing_to_compare(answers, small_suite):
    with pytest.raises(RecipeError, match="nothing to compare"):
        names([answers("y", "{}")], small_suite)
