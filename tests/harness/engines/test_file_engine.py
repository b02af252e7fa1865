import json

import pytest

from lora_kit.catalogue import ENGINES
from lora_kit.data.types import Message
from lora_kit.errors import DataError
from lora_kit.harness.engines.file_engine import open_answers
from lora_kit.harness.run import evaluate
from lora_kit.harness.suite import Item, Suite
from lora_kit.recipe.schema import EvaluateSpec


def suite(*prompts):
    items = [
        Item(f"i{n}", "c", (Message("user", text),), f"Reference {n}", f"i{n}", f"p:{n}")
        for n, text in enumerate(prompts)
    ]
    return Suite("small", "", tuple(items), ("chrf",))


def write(path, answers):
    path.write_text("".join(json.dumps({"id": k, "answer": v, "model": "x"}) + "\n" for k, v in answers))
    return path


def test_answers_are_scored_like_a_model_s(tmp_path):
    path = write(tmp_path / "gpt.jsonl", [("i0", "Reference 0"), ("i1", "zzz")])
    two = suite("P0", "P1")
    results = evaluate([open_answers(path, two)], two, EvaluateSpec(bootstrap_samples=100))
    assert [item.answers["gpt"].text for item in results.items] == ["Reference 0", "zzz"]
    assert results.items[0].answers["gpt"].scores["chrf"] == pytest.approx(100.0)
    assert "bits_per_byte" not in results.models[0].metrics


def test_an_edited_file_is_another_engine(tmp_path):
    one = open_answers(write(tmp_path / "a.jsonl", [("i0", "x")]), suite("P"))
    other = open_answers(write(tmp_path / "a.jsonl", [("i0", "y")]), suite("P"))
    assert one.fingerprint != other.fingerprint


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    path = write(tmp_path / "a.jsonl", [("i0", "x"), ("i0", "y"), ("i7", "z")])
    with pytest.raises(DataError) as caught:
        open_answers(path, suite("P0", "P1"))
    found = [problem.found for problem in caught.value.problems]
    assert found == [
        "id 'i0' twice",
        "no answer to prompt 'i1' of suite small",
        "answer 'i7' has no prompt in suite small",
    ]


def test_equal_prompts_need_equal_answers(tmp_path):
    path = write(tmp_path / "a.jsonl", [("i0", "x"), ("i1", "y")])
    with pytest.raises(DataError, match="occurs twice, with different answers"):
        open_answers(path, suite("P", "P"))


def test_a_prompt_of_another_suite_has_no_answer(tmp_path):
    engine = open_answers(write(tmp_path / "a.jsonl", [("i0", "x")]), suite("P"), name="mine")
    with pytest.raises(DataError, match="mine has no answer"):
        list(engine.generate([(Message("user", "Q"),)], max_new_tokens=1, batch_size=1))
    with pytest.raises(NotImplementedError):
        engine.likelihood([])
    assert ENGINES["file"].build is open_answers
