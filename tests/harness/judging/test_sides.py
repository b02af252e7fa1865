import json

import pytest

from lora_kit.errors import DataError, RecipeError
from lora_kit.harness.judging.sides import default_folder, read_pairing


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_two_files_with_prompts_need_no_suite(answer_files, prompts):
    pairing = read_pairing(*map(str, answer_files), None)
    assert [(p.id, p.question) for p in pairing.prompts] == [(p.id, p.question) for p in prompts]
    assert (pairing.system.name, pairing.against.name) == ("ours", "theirs")
    assert pairing.system.answers["q3"] == "Our answer to q3"
    assert str(default_folder(pairing)) == "evaluations/ours-against-theirs"


def test_prompts_from_a_file(tmp_path):
    ours = write(tmp_path / "a" / "x.jsonl", [{"id": 1, "answer": ""}])
    theirs = write(tmp_path / "b" / "x.jsonl", [{"id": "1", "answer": "T", "model": "m"}])
    questions = write(tmp_path / "q.jsonl", [{"id": "1", "category": "c", "prompt": "P", "context": "C"}])
    pairing = read_pairing(ours, theirs, questions)
    [prompt] = pairing.prompts
    assert (prompt.category, prompt.question, prompt.cluster) == ("c", "P\n\nC", "1")
    assert (pairing.system.name, pairing.against.name) == ("a/x", "b/x")
    assert pairing.system.answers == {"1": ""}


def test_a_shipped_suite_and_its_references(tmp_path):
    from lora_kit.harness.suite import load_suite

    suite = load_suite("quickstart")
    ours = write(tmp_path / "x.jsonl", [{"id": item.id, "answer": "A"} for item in suite.items])
    pairing = read_pairing(ours, "reference", "quickstart")
    assert pairing.against.answers == {item.id: item.reference for item in suite.items}
    assert pairing.prompts[0].gold == suite.items[0].reference


def results(path, models=("base", "tuned")):
    answers = {name: {"text": f"{name} says"} for name in models}
    item = {"id": "1", "category": "c", "prompt": "P", "reference": "R", "answers": answers}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"models": [{"name": name} for name in models], "items": [item]}))


def test_a_run_that_was_evaluated(tmp_path):
    results(tmp_path / "run" / "evaluations" / "s" / "results.json")
    pairing = read_pairing(str(tmp_path / "run"), "base", None)
    assert (pairing.system.name, pairing.against.name) == ("tuned", "base")
    assert pairing.system.answers == {"1": "tuned says"}
    assert default_folder(pairing) == tmp_path / "run" / "evaluations" / "s"
    assert read_pairing(str(tmp_path / "run"), "reference", None).against.answers == {"1": "R"}
    results(tmp_path / "run" / "evaluations" / "t" / "results.json")
    with pytest.raises(RecipeError, match="2 evaluations"):
        read_pairing(str(tmp_path / "run"), "base", None)


def test_everything_that_does_not_fit_is_said_at_once(tmp_path):
    ours = write(tmp_path / "ours.jsonl", [{"id": "1", "answer": "A"}, {"id": "9", "answer": "A"}])
    theirs = write(tmp_path / "theirs.jsonl", [{"id": "1", "answer": "A"}])
    questions = write(tmp_path / "q.jsonl", [{"id": "1", "prompt": "P"}, {"id": "2", "prompt": "P"}])
    with pytest.raises(DataError) as caught:
        read_pairing(ours, theirs, questions)
    found = "\n".join(map(str, caught.value.problems))
    assert "no answer of ours to prompt '2'" in found
    assert "no answer of theirs to prompt '2'" in found
    assert "answer '9' of ours has no prompt" in found


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([{"answer": "A"}], "missing field 'id'"),
        ([{"id": "1"}], "missing field 'answer'"),
        ([{"id": "1", "answer": 7}], "must be text"),
        ([{"id": "1", "answer": "A"}, {"id": "1", "answer": "B"}], "id '1' twice"),
        ([{"id": True, "answer": "A"}], "must be text"),
        ([], "the file is empty"),
    ],
)
def test_bad_answers_name_the_row(tmp_path, rows, found):
    ours = write(tmp_path / "ours.jsonl", rows)
    with pytest.raises(DataError, match=found):
        read_pairing(ours, ours, write(tmp_path / "q.jsonl", [{"id": "1", "prompt": "P"}]))


def test_what_can_not_be_found(tmp_path, answer_files):
    ours = str(answer_files[0])
    with pytest.raises(RecipeError, match="no answers 'nobody' to compare with"):
        read_pairing(ours, "nobody", None)
    with pytest.raises(DataError, match="no answers here"):
        read_pairing(str(tmp_path / "nowhere"), "reference", None)
    bare = write(tmp_path / "bare.jsonl", [{"id": "1", "answer": "A"}])
    with pytest.raises(RecipeError, match="what was asked"):
        read_pairing(bare, ours, None)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError, match="not the results"):
        read_pairing(str(tmp_path), "reference", None)
