import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_kit.data.account import measure
from lora_kit.data.encode import Encoder
from lora_kit.data.prepare import prepare_data
from lora_kit.data.row_file import Blocks
from lora_kit.data.sources import read_rows
from lora_kit.data.template import load_template
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import DataError, Problem

GOOD = [{"instruction": f"q{n}", "input": "", "output": f"answer {n}"} for n in range(40)]


def origins(examples: tuple[Example, ...]) -> list[str]:
    return [example.origin for example in examples]


def test_rows_become_examples_in_order_with_their_origins(write_rows, make_spec, byte_encoder) -> None:
    data = prepare_data(make_spec(write_rows(GOOD)), byte_encoder)
    assert origins(data.train) == [f"rows.jsonl:{n}" for n in range(1, 41)]
    assert data.validation == ()
    report = data.report.to_json()
    assert (report["rows_read"], report["rows_used"], report["train_rows"]) == (40, 40, 40)
    assert report["tokens"] == sum(len(example.input_ids) for example in data.train)
    assert report["trained_tokens"] == sum(len(f"answer {n}") + 1 for n in range(40))
    assert report["encoder_fingerprint"] == byte_encoder.fingerprint
    assert report["sources"][0]["file"] == "rows.jsonl"
    assert len(report["sources"][0]["sha256"]) == 64
    assert json.loads(json.dumps(report)) == report


def test_every_value_of_the_report_counts_what_it_says(write_rows, make_spec, byte_encoder) -> None:
    rows = [
        {"instruction": "q", "context": "c" * 100, "response": "yes", "category": "closed_qa"},
        {"instruction": "", "response": "n\0", "category": "open_qa"},
        {"instruction": "r", "context": None, "response": " \u200b", "category": "open_qa"},
        {"instruction": "", "response": "n\0"},
        {"instruction": "q", "response": "y" * 99},
    ]
    spec = make_spec(
        write_rows(rows), format="dolly", on_empty="drop", overlong="truncate_prompt", max_tokens=60
    )
    report = prepare_data(spec, byte_encoder).report.to_json()
    assert (report["rows_read"], report["rows_used"]) == (5, 3)
    assert report["dropped"] == {
        "empty_answer": {"count": 1, "rows": ["rows.jsonl:3"]},
        "overlong": {"count": 1, "rows": ["rows.jsonl:5"]},
    }
    assert report["truncated"] == {"count": 1, "rows": ["rows.jsonl:1"]}
    assert report["duplicates"] == {"count": 1, "rows": ["rows.jsonl:4"]}
    assert report["empty_prompts"] == {"count": 2, "rows": ["rows.jsonl:2", "rows.jsonl:4"]}
    assert report["nul_characters"]["count"] == 2
    assert report["categories"] == {"closed_qa": 1, "open_qa": 2}
    assert report["longest"][0] == {"row": "rows.jsonl:1", "tokens": 60}
    assert report["histogram"] == [{"up_to": 32, "examples": 2}, {"up_to": 64, "examples": 1}]


ANSWERS = st.sampled_from(["", "\u200b", "yes", "no", "n" * 30])
QUESTIONS = st.sampled_from(["", "why?", "Why? ", "q" * 40])
ROWS = st.lists(st.fixed_dictionaries({"instruction": QUESTIONS, "output": ANSWERS}), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS,
    others=st.none() | ROWS,
    overlong=st.sampled_from(["drop", "truncate_prompt"]),
    fraction=st.sampled_from([0.0, 0.3]),
    limit=st.none() | st.integers(1, 9),
)
@pytest.mark.fault("P11")
def test_rows_read_are_rows_used_plus_rows_dropped(
    write_rows,
    make_spec,
    byte_encoder,
    *,
    rows: list,
    others: list | None,
    overlong: str,
    fraction: float,
    limit: int | None,
) -> None:
    extra = {} if others is None else {"validation": str(write_rows(others, "v.jsonl"))}
    spec = make_spec(
        write_rows(rows),
        overlong=overlong,
        on_empty="drop",
        max_tokens=33,
        validation_fraction=fraction,
        limit=limit,
        **extra,
    )
    try:
        data = prepare_data(spec, byte_encoder)
    except DataError as error:
        nothing = re.search("no rows are left|the file is empty", str(error))
    else:
        nothing = None
    if nothing:
        return
    report = data.report.to_json()
    assert report["rows_read"] == len(rows[:limit]) + len((others or [])[:limit])
    assert report["rows_read"] == report["rows_used"] + sum(
        entry["count"] for entry in report["dropped"].values()
    )
    assert report["rows_used"] == report["train_rows"] + report["validation_rows"]
    assert report["tokens"] == sum(len(example.input_ids) for example in (*data.train, *data.validation))
    assert all(len(example.input_ids) <= 33 for example in (*data.train, *data.validation))
    listed = [row for entry in report["dropped"].values() for row in entry["rows"]]
    assert len({*listed, *origins(data.train), *origins(data.validation)}) == report["rows_read"]


def test_held_out_rows_stay_held_out_when_rows_are_added(write_rows, make_spec, byte_encoder) -> None:
    def held(rows: list) -> set[tuple[int, ...]]:
        data = prepare_data(make_spec(write_rows(rows), validation_fraction=0.2), byte_encoder)
        return {example.input_ids for example in data.validation}

    before = held(GOOD[:30])
    assert 0 < len(before) < 30
    assert before <= held([*reversed(GOOD[30:]), *GOOD[:30]])


def test_no_row_for_validation_is_fine_and_reported(write_rows, make_spec, byte_encoder) -> None:
    data = prepare_data(make_spec(write_rows(GOOD[:2]), validation_fraction=0.0001), byte_encoder)
    assert data.report.to_json()["validation_rows"] == 0


def test_a_validation_file_is_held_out_whole_and_its_rows_leave_training(
    write_rows, make_spec, byte_encoder
) -> None:
    held = write_rows([{"instruction": "Q1 ", "output": "ANSWER 1"}, *GOOD[4:6]], "held.jsonl")
    data = prepare_data(make_spec(write_rows(GOOD[:10]), validation=str(held)), byte_encoder)
    assert origins(data.validation) == ["held.jsonl:1", "held.jsonl:2", "held.jsonl:3"]
    report = data.report.to_json()
    dropped = report["dropped"]["overlap_with_validation"]
    assert dropped == {"count": 3, "rows": ["rows.jsonl:2", "rows.jsonl:5", "rows.jsonl:6"]}
    assert [source["role"] for source in report["sources"]] == ["train", "validation"]
    assert (report["rows_read"], report["rows_used"]) == (13, 10)


def test_files_of_one_name_are_told_apart_by_their_folder(
    write_rows, make_spec, byte_encoder, tmp_path: Path
) -> None:
    (tmp_path / "held").mkdir()
    held = write_rows(GOOD[:1], "held/rows.jsonl")
    data = prepare_data(make_spec(write_rows(GOOD[1:3]), validation=str(held)), byte_encoder)
    assert origins(data.validation) == ["held/rows.jsonl:1"]
    assert origins(data.train)[0].endswith("/rows.jsonl:1")


def test_progress_ends_at_the_total(write_rows, make_spec, byte_encoder) -> None:
    calls: list[tuple[int, int]] = []
    rows = [{"instruction": f"{n}", "output": "x"} for n in range(300)]
    prepare_data(make_spec(write_rows(rows)), byte_encoder, on_progress=lambda *call: calls.append(call))
    assert calls == [(256, 300), (300, 300)]


class Picky:
    """Refuses rows by the end of their origins, as an encoder does."""

    fingerprint = "0" * 64

    def __init__(self, encoder: Any, *endings: str) -> None:
        self.encoder, self.endings = encoder, endings

    def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
        return [
            Problem("the template refuses this", one.origin)
            if one.origin.endswith(self.endings)
            else self.encoder.encode(one)
            for one in conversations
        ]


def test_broken_rows_are_reported_before_anything_is_encoded(write_rows, make_spec) -> None:
    with pytest.raises(DataError) as caught:
        prepare_data(make_spec(write_rows([*GOOD, {"instruction": 5, "output": "x"}])), Picky(None))
    assert str(caught.value) == "rows.jsonl:41: instruction: must be text, found a number"


def test_an_encoder_error_names_its_rows(write_rows, make_spec, byte_encoder) -> None:
    with pytest.raises(DataError) as caught:
        prepare_data(make_spec(write_rows(GOOD[:5])), Picky(byte_encoder, "2", "3"))
    assert [problem.where for problem in caught.value.problems] == ["rows.jsonl:2", "rows.jsonl:3"]


def test_bad_rows_can_be_dropped_and_are_told_in_words(write_rows, make_spec, byte_encoder) -> None:
    path = write_rows([*GOOD[:3], {"instruction": 5, "output": "x"}, *GOOD[3:6]])
    path.write_bytes(path.read_bytes() + b'{"instruction": NaN}\n')
    data = prepare_data(make_spec(path, on_bad_row="drop"), Picky(byte_encoder, ":2", ":6"))
    report = data.report.to_json()
    assert origins(data.train) == ["rows.jsonl:1", "rows.jsonl:3", "rows.jsonl:5", "rows.jsonl:7"]
    assert (report["rows_read"], report["rows_used"]) == (8, 4)
    assert report["dropped"]["bad_row"]["count"] == 4
    assert report["bad_rows"] == [
        "rows.jsonl:4: instruction: must be text, found a number",
        "rows.jsonl:8: NaN is not JSON",
        "rows.jsonl:2: the template refuses this",
        "rows.jsonl:6: the template refuses this",
    ]


def test_a_broken_file_is_never_dropped(write_rows, make_spec, byte_encoder) -> None:
    path = write_rows(GOOD, "rows.json")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"rows\.json:40: the file ends in the middle of this element"):
        prepare_data(make_spec(path, on_bad_row="drop"), byte_encoder)


def test_the_real_encoder_fits_in(shared_data: Path, make_spec, make_tokenizer) -> None:
    tokenizer = make_tokenizer("byte_bpe")
    encoder = Encoder(tokenizer, load_template("alpaca", tokenizer))
    path = shared_data / "train" / "alpaca_en_demo.json"
    spec = make_spec(path, limit=40, max_tokens=300, overlong="truncate_prompt", validation_fraction=0.1)
    data = prepare_data(spec, encoder)
    report = data.report.to_json()
    examples = {example.origin: example for example in (*data.train, *data.validation)}
    assert report["rows_read"] == 40 == len(examples) + report["dropped"]["overlong"]["count"]
    assert max(len(example.input_ids) for example in examples.values()) <= 300
    for row in read_rows(path, limit=40):
        if example := examples.get(row.origin):
            learned = [token for token, flag in zip(example.input_ids, example.trained, strict=True) if flag]
            assert encoder.decode_answer(learned) == row.fields["output"]
            assert learned[-1] in encoder.stop_ids


def test_plain_text_is_learned_whole(write_rows, make_spec, make_tokenizer) -> None:
    tokenizer = make_tokenizer("byte_bpe")
    encoder = Encoder(tokenizer, load_template("plain", tokenizer))
    data = prepare_data(make_spec(write_rows([{"text": "Once upon\na time."}]), format="text"), encoder)
    (example,) = data.train
    assert all(example.trained)
    assert example.input_ids[-1] in encoder.stop_ids
    assert tokenizer.decode(example.input_ids[:-1]) == "Once upon\na time."
    assert data.report.to_json()["empty_prompts"]["count"] == 0


@pytest.mark.parametrize("change", ["a word", "the order", "the side", "what is trained"])
def test_the_fingerprint_follows_what_is_learned(change: str, write_rows, make_spec, byte_encoder) -> None:
    talk = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(9)
    ]
    more = {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}
    talk[0]["messages"] += more
    spec = make_spec(write_rows(talk), format="messages")
    before = prepare_data(spec, byte_encoder).fingerprint
    assert prepare_data(spec, byte_encoder).fingerprint == before
    if change == "a word":
        talk[3]["messages"][0]["content"] = "Q"
    elif change == "the order":
        talk.reverse()
    elif change == "the side":
        spec = make_spec(Path(spec.train), format="messages", validation_fraction=0.5)
    else:
        talk[0]["messages"][1] = {"role": "assistant", "content": "a0", "train": False}
    write_rows(talk)
    assert prepare_data(spec, byte_encoder).fingerprint != before


def test_the_fingerprint_ignores_where_the_file_lies(write_rows, make_spec, byte_encoder) -> None:
    prints = {
        prepare_data(make_spec(write_rows(GOOD, name)), byte_encoder).fingerprint
        for name in ("a.jsonl", "b.json")
    }
    assert len(prints) == 1


def test_no_examples_measure_as_nothing() -> None:
    nothing = Blocks([]).side(held_out=False)
    assert measure(nothing.lengths, 0, str) == {
        "tokens": 0,
        "trained_tokens": 0,
        "longest": [],
        "histogram": [],
    }


def test_the_999_alpaca_rows_load_with_their_14_duplicates(
    shared_data: Path, make_spec, byte_encoder
) -> None:
    spec = make_spec(shared_data / "train" / "alpaca_en_demo.json", validation_fraction=0.05, max_tokens=8192)
    report = prepare_data(spec, byte_encoder).report.to_json()
    assert (report["rows_read"], report["rows_used"]) == (999, 999)
    assert report["duplicates"]["count"] == 14
    assert 30 <= report["validation_rows"] <= 70
    assert report["dropped"] == {}


def test_the_dolly_fixture_loads_with_its_categories(shared_data: Path, make_spec, byte_encoder) -> None:
    spec = make_spec(shared_data / "train" / "litgpt_dolly_fixture.json", format="dolly", max_tokens=8192)
    report = prepare_data(spec, byte_encoder).report.to_json()
    assert (report["rows_read"], report["rows_used"], report["duplicates"]["count"]) == (12, 12, 0)
    assert sum(report["categories"].values()) == 12
    assert "closed_qa" in report["categories"]
