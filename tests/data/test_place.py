"""Sides, near duplicates, suites and several sources, through the preparation that a run does."""

import json
from pathlib import Path

import pytest

from lora_kit.data.overlap import SuiteText
from lora_kit.data.prepare import prepare_data
from lora_kit.errors import DataError

TEXT = (
    "The small update of rank R is added to the frozen weight and nothing else of the model is ever changed"
)


def row(n: int, text: str = "") -> dict[str, str]:
    return {"instruction": f"question number {n} of the file", "output": text or f"answer {n} is a short one"}


ROWS = [row(n) for n in range(40)]


def origins(examples: object) -> list[str]:
    return [example.origin for example in examples]


def test_near_duplicates_are_counted_listed_and_kept_together(write_rows, make_spec, byte_encoder) -> None:
    twins = [row(99, f"{TEXT} w{n}") for n in range(20)]
    data = prepare_data(make_spec(write_rows([*ROWS, *twins]), validation_fraction=0.4), byte_encoder)
    report = data.report.to_json()
    near = report["near_duplicates"]
    assert near["count"] == 19  # of one cluster all but the first
    assert near["pairs"][0]["row"] == "rows.jsonl:42"
    assert near["pairs"][0]["like"] == "rows.jsonl:41"
    assert 0.8 <= near["pairs"][0]["similarity"] < 1.0
    assert (near["similarity"], near["is_complete"], near["indexed_rows"]) == (0.8, False, 60)
    assert near["crowded"] > 0
    sides = [
        {int(one.rpartition(":")[2]) > 40 for one in origins(side)} for side in (data.train, data.validation)
    ]
    assert sum(True in side for side in sides) == 1
    split = report["split"]
    assert (split["clusters"], split["largest_cluster"], split["clustered_examples"]) == (1, 20, 20)
    assert split["random_split"]["leaked_examples"] == pytest.approx(20 * 0.4, abs=0.1)
    assert split["random_split"]["validation_examples"] == 24.0


def test_a_training_row_nearly_in_the_validation_file_goes(write_rows, make_spec, byte_encoder) -> None:
    held = write_rows([row(1, f"{TEXT} today")], "held.jsonl")
    path = write_rows([row(0), row(1, f"{TEXT} now"), row(1, f"{TEXT} TODAY")])
    data = prepare_data(make_spec(path, validation=str(held)), byte_encoder)
    assert data.report.to_json()["dropped"] == {
        "near_validation": {"count": 1, "rows": ["rows.jsonl:2"]},
        "overlap_with_validation": {"count": 1, "rows": ["rows.jsonl:3"]},
    }
    with pytest.raises(DataError) as caught:
        prepare_data(make_spec(path, validation=str(held), on_overlap="error"), byte_encoder)
    assert [str(one) for one in caught.value.problems] == [
        f"rows.jsonl:{n}: this row {what} a validation row (held.jsonl:1); set data.on_overlap=drop"
        for n, what in ((2, "is nearly"), (3, "is also"))
    ]


def test_suites_are_looked_for_in_training_rows_only(write_rows, make_spec, byte_encoder) -> None:
    held = write_rows([row(7)], "held.jsonl")
    spec = make_spec(write_rows([row(0), row(1, f"So: {TEXT}.")]), validation=str(held))
    suites = [
        SuiteText("s", "seen", TEXT, "short"),
        SuiteText("s", "held", "Question number 7 of the file", "x"),
    ]
    first = prepare_data(spec, byte_encoder, suites=suites).report.to_json()["suite_overlap"]
    assert [(one["id"], one["level"], one["rows"]) for one in first["s"]["found"]] == [
        ("seen", "exact", ["rows.jsonl:2"])
    ]
    again = prepare_data(spec, byte_encoder, suites=suites).report.to_json()["suite_overlap"]
    assert again == first
    assert prepare_data(spec, byte_encoder).report.to_json()["suite_overlap"] == {}
    other = prepare_data(spec, byte_encoder, suites=suites[1:]).report.to_json()["suite_overlap"]
    assert other["s"]["found"] == []


MORE = [{"question": f"what is {n}", "answer": f"it is {n}"} for n in range(30)]
FIELDS = {"instruction": "question", "output": "answer"}


@pytest.mark.parametrize(
    ("share", "taken"), [({}, 30), ({"count": 7}, 7), ({"weight": 0.5}, 20), ({"count": 30}, 30)]
)
def test_sources_are_mixed_with_exact_accounting(
    write_rows, make_spec, byte_encoder, share: dict, taken: int
) -> None:
    talk = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    more, talks = write_rows(MORE, "more.jsonl"), write_rows([talk], "talks.jsonl")
    mix = [
        {"train": str(more), "format": "alpaca", "fields": FIELDS, **share},
        {"train": str(talks), "format": "auto"},
    ]
    data = prepare_data(make_spec(write_rows(ROWS), mix=mix), byte_encoder)
    report = data.report.to_json()
    assert (report["rows_read"], report["rows_used"]) == (71, 41 + taken)
    left = {"not_in_mix": 30 - taken} if taken < 30 else {}
    assert {why: one["count"] for why, one in report["dropped"].items()} == left
    assert [(one["source"], one["role"], one["format"]) for one in report["mix"]] == [
        ("rows.jsonl", "train", "alpaca"),
        ("more.jsonl", "mix", "alpaca"),
        ("talks.jsonl", "mix", "messages"),
    ]
    assert [one["rows_read"] for one in report["mix"]] == [40, 30, 1]
    assert [one["rows_taken"] for one in report["mix"]] == [40, taken, 1]
    assert [source["role"] for source in report["sources"]] == ["train", "mix", "mix"]
    found = origins(data.train)
    assert found[:40] == [f"rows.jsonl:{n}" for n in range(1, 41)]
    assert found[-1] == "talks.jsonl:1"
    numbers = [int(one.rpartition(":")[2]) for one in found[40:-1]]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == taken


def test_the_choice_follows_the_seed_alone(write_rows, make_spec, byte_encoder) -> None:
    path, more = write_rows(ROWS), write_rows(MORE, "more.jsonl")

    def chosen(**share: int) -> set[str]:
        mix = [{"train": str(more), "format": "alpaca", "fields": FIELDS, "count": 9, **share}]
        data = prepare_data(make_spec(path, mix=mix), byte_encoder)
        return {one for one in origins(data.train) if one.startswith("more")}

    first = chosen()
    assert chosen() == first
    assert chosen(seed=1) != first
    assert first < chosen(count=15)
    write_rows([*MORE, {"question": "new", "answer": "row"}], "more.jsonl")
    assert len(first - chosen()) <= 1


def test_more_rows_than_there_are_is_an_error(write_rows, make_spec, byte_encoder) -> None:
    more = write_rows(MORE, "more.jsonl")
    mix = [
        {"train": str(more), "format": "alpaca", "fields": FIELDS, "count": 31},
        {"train": str(more), "format": "alpaca", "fields": FIELDS, "weight": 2.0},
    ]
    with pytest.raises(DataError) as caught:
        prepare_data(make_spec(write_rows(ROWS), mix=mix), byte_encoder)
    text = str(caught.value)
    assert "data.mix[0].count: asks for 31 rows, and there are 30; take fewer" in text
    assert "data.mix[1].weight: asks for 80 rows, and there are 30; take fewer" in text


def test_broken_rows_of_a_source_are_told_in_its_own_words(write_rows, make_spec, byte_encoder) -> None:
    more = write_rows([*MORE, {"question": "q"}, {"question": "q", "answer": " "}], "more.jsonl")
    mix = [{"train": str(more), "format": "alpaca", "fields": FIELDS}]
    path = write_rows(ROWS)
    with pytest.raises(DataError) as caught:
        prepare_data(make_spec(path, mix=mix), byte_encoder)
    assert [str(one).partition(";")[0] for one in caught.value.problems] == [
        "more.jsonl:31: answer: missing field 'answer'",
        "more.jsonl:32: answer: empty answer",
    ]
    data = prepare_data(make_spec(path, mix=mix, on_bad_row="drop", on_empty="drop"), byte_encoder)
    report = data.report.to_json()
    assert report["rows_read"] == report["rows_used"] + sum(
        one["count"] for one in report["dropped"].values()
    )
    assert (report["mix"][1]["bad_rows"], report["mix"][1]["rows_taken"]) == (1, 31)


def test_the_real_files_split_without_leaks(shared_data: Path, make_spec, byte_encoder) -> None:
    files = {
        "alpaca_en_demo.json": ("alpaca", 999, 999),
        "fastchat_dummy_conversation.json": ("sharegpt", 500, 500),
        "en_100_tree.jsonl": ("openassistant", 100, 400),
    }
    for name, (form, rows, conversations) in files.items():
        spec = make_spec(
            shared_data / "train" / name,
            format=form,
            validation_fraction=0.1,
            max_tokens=10**6,
            on_empty="drop",
        )
        report = prepare_data(spec, byte_encoder).report.to_json()
        assert (report["rows_read"], report["conversations"]) == (rows, conversations)
        dropped = sum(one["count"] for one in report["dropped"].values())
        assert report["rows_read"] == report["rows_used"] + dropped
        split = report["split"]
        assert split["random_split"]["leaked_examples"] > 0
        json.dumps(report)
    assert split["clusters"] <= 100  # trees
