from pathlib import Path

import pytest

from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.prepare import prepare_data
from lora_kit.data.survey import file_spec, names_rows, survey, truncated_hashes
from lora_kit.errors import DataError, RecipeError

ROWS = [{"instruction": f"q{n}", "input": "b" * 90 * (n % 2), "output": f"answer {n}"} for n in range(6)]
IN_TOKENS = {"encoder_fingerprint", "tokens", "trained_tokens", "longest", "histogram"}


def test_a_survey_is_what_a_run_reports(write_rows, make_spec, byte_encoder) -> None:
    spec = make_spec(write_rows([*ROWS, ROWS[0]]), overlong="truncate_prompt", max_tokens=60)
    found = survey(spec, byte_encoder)
    assert found == prepare_data(spec, byte_encoder).report.to_json()
    assert (found["rows_read"], found["truncated"]["count"], found["duplicates"]["count"]) == (7, 3, 1)


def test_without_a_tokenizer_only_the_figures_in_tokens_are_missing(
    write_rows, make_spec, byte_encoder
) -> None:
    rows = [*ROWS, ROWS[0], {"instruction": "q", "output": " "}]
    spec = make_spec(write_rows(rows), on_empty="drop", validation_fraction=0.3)
    with_tokens, without = survey(spec, byte_encoder), survey(spec, None)
    assert without["dropped"] == {"empty_answer": {"count": 1, "rows": ["rows.jsonl:8"]}}
    assert {key for key in with_tokens if with_tokens[key] != without[key]} == IN_TOKENS
    assert not any(without[key] for key in IN_TOKENS)


def test_what_a_format_counts_stands_beside_the_rest(shared_data: Path) -> None:
    found = survey(file_spec(shared_data / "train" / "en_100_tree.jsonl", "openassistant"), None)
    assert (found["rows_read"], found["trees"], found["messages"], found["conversations"]) == (
        100,
        100,
        1167,
        400,
    )


def test_cut_examples_are_found_by_their_content(write_rows, make_spec, tiny_tokenizer: Path) -> None:
    encoder = open_encoder(tiny_tokenizer, "alpaca", None)
    for limit, flags in ((200, [False, True] * 3), (1000, [False] * 6)):
        spec = make_spec(write_rows(ROWS), overlong="truncate_prompt", max_tokens=limit)
        data = prepare_data(spec, encoder)
        cut = truncated_hashes(data, spec)
        assert [one.content_hash in cut for one in data.train] == flags


def test_a_file_without_a_recipe_is_taken_whole(write_rows, byte_encoder) -> None:
    path = write_rows([{"instruction": "q" * 5000, "output": "a"}])
    found = survey(file_spec(path, "alpaca"), byte_encoder)
    assert (found["rows_used"], found["validation_rows"]) == (1, 0)
    with pytest.raises(RecipeError, match="did you mean 'alpaca'"):
        file_spec(path, "alpacca")
    with pytest.raises(DataError, match=r"rows\.jsonl:1: response: missing"):
        survey(file_spec(path, "dolly"), None)


def test_a_name_is_that_of_a_recipe_or_of_rows(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "recipe.yaml", "run/recipe.yaml", "folder/rows.json", "notes"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}", "utf-8")
    rows = ("rows.jsonl", "folder", "notes", "gone.json")
    recipes = ("recipe.yaml", "run", "quickstart", "gone.yml", "x" * 5000)
    assert [names_rows(str(tmp_path / name)) for name in rows] == [True] * 4
    assert [names_rows(str(tmp_path / name)) for name in recipes] == [False] * 5
