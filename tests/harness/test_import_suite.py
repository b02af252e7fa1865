"""Other people's question and answer files become suites that load_suite accepts."""

import json
from pathlib import Path

import pytest

from lora_kit.catalogue import IMPORTERS
from lora_kit.errors import DataError, LoraKitError
from lora_kit.harness.engines.file_engine import open_answers
from lora_kit.harness.import_suite import import_suite

QUESTIONS = [
    {"question_id": 1, "text": "Why?", "category": "generic"},
    {"question_id": 2, "text": "How?", "category": "math"},
]
TURNS = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Shorter."], "reference": None},
    {"question_id": 101, "category": "math", "turns": ["1 + 1?", "Plus 1?"], "reference": ["2", "3"]},
]


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers_of(model: str, **texts) -> list:
    return [{"question_id": int(n[1:]), "text": text, "model_id": model} for n, text in texts.items()]


def imported(tmp_path, rows: list, *answers: Path, kind: str = "auto", **options):
    file = write(tmp_path / "q.jsonl", rows)
    return import_suite(file, kind=kind, name="mine", answers=answers, out=tmp_path / "out", **options)


def test_every_importer_has_the_name_that_it_is_found_by():
    assert [IMPORTERS[name].name for name in IMPORTERS] == list(IMPORTERS)


def test_vicuna_questions_with_answers_of_two_models(tmp_path):
    one = write(tmp_path / "a.jsonl", answers_of("gpt-3.5:turbo/x", q1="Because.", q2="So."))
    two = write(tmp_path / "b.jsonl", answers_of("bard", q2="Thus.", q1="Since."))
    path, suite = imported(tmp_path, QUESTIONS, one, two)
    assert [(i.id, i.category, i.prompt, i.reference) for i in suite.items] == [
        ("1", "generic", "Why?", "Because."),
        ("2", "math", "How?", "So."),
    ]
    assert "imported: Vicuna-80" in suite.description
    bard = open_answers(path.parent.parent / "references/bard/mine.jsonl", suite, name="bard")
    found = dict(bard.generate([item.messages for item in suite.items], max_new_tokens=1, batch_size=1))
    assert [found[at].text for at in (0, 1)] == ["Since.", "Thus."]
    assert (path.parent.parent / "references/gpt-3.5_turbo_x/mine.jsonl").is_file()


def test_mt_bench_turns_are_prompts_of_one_cluster(tmp_path):
    said = [{"question_id": 81, "model_id": "m", "choices": [{"index": 0, "turns": ["Long text.", "Text."]}]}]
    _, suite = imported(tmp_path, TURNS, write(tmp_path / "m.jsonl", said))
    assert [(i.id, i.cluster, i.reference) for i in suite.items] == [
        ("81-1", "81", "Long text."),
        ("81-2", "81", "Text."),
        ("101-1", "101", "2"),
        ("101-2", "101", "3"),
    ]
    turns = [(m.role, m.content) for m in suite.items[1].messages]
    assert turns == [("user", "Write."), ("assistant", "Long text."), ("user", "Shorter.")]
    assert (tmp_path / "out/references/mixed/mine.jsonl").is_file()


def test_alpaca_eval_outputs_meet_their_instructions_also_when_one_occurs_twice(tmp_path):
    outputs = [
        {"instruction": text, "output": f"{text} {n}", "generator": "base", "dataset": "self"}
        for n, text in enumerate(["Sing", "Dance", "Sing"])
    ]
    other = [{**row, "output": row["output"].upper(), "generator": "other"} for row in outputs]
    _, suite = imported(tmp_path, outputs, write(tmp_path / "o.jsonl", other))
    assert [(i.id, i.reference) for i in suite.items] == [
        ("ae-001", "Sing 0"),
        ("ae-002", "Dance 1"),
        ("ae-003", "Sing 2"),
    ]
    rows = [
        json.loads(line) for line in (tmp_path / "out/references/other/mine.jsonl").read_text().splitlines()
    ]
    assert [row["answer"] for row in rows] == ["SING 0", "DANCE 1", "SING 2"]


def test_a_plain_table_keeps_what_a_suite_knows(tmp_path):
    table = tmp_path / "q.csv"
    table.write_text('question,answer,context,note\nWho?,Ada,"A, b",x\nWhen?,1843,,y\n')
    _, suite = import_suite(table, kind="auto", name="mine", out=tmp_path / "out")
    assert [(i.id, i.prompt, i.reference) for i in suite.items] == [
        ("001", "Who?\n\nA, b", "Ada"),
        ("002", "When?", "1843"),
    ]
    rows = [
        {"id": "a", "prompt": "2 + 2", "answer": "4", "weight": 2, "checks": [{"type": "number", "value": 4}]}
    ]
    _, suite = imported(tmp_path, rows, force=True)
    assert suite.items[0].weight == 2.0
    assert suite.items[0].checks[0].run("it is 4").passed


@pytest.mark.parametrize(
    ("rows", "answers", "expected"),
    [
        (QUESTIONS, None, "q.jsonl:1: question '1' has no reference answer; pass files that answer"),
        (QUESTIONS, answers_of("m", q1="x", q2=" "), "q.jsonl:2: question '2' has no reference answer"),
        (QUESTIONS, answers_of("m", q1="x", q2="y", q3="z"), "a.jsonl:3: no question '3'"),
        (QUESTIONS, answers_of("m", q1="x", q2="y") * 2, "a.jsonl:3: a second answer to '1'"),
        ([QUESTIONS[0], QUESTIONS[0]], None, "q.jsonl:2: id '1' was used before, in q.jsonl:1"),
        ([{"question_id": 1, "text": " "}], None, "q.jsonl:1: text or prompt: is missing or empty"),
        ([{"question_id": [], "text": "x"}], None, "q.jsonl:1: question_id: must be a number or text"),
        ([{"question_id": 1, "turns": ["a", 2]}], None, "q.jsonl:1: turns[1]: must be text"),
        ([{"question_id": 1, "turns": []}], None, "q.jsonl:1: turns:"),
        ([{"instruction": 3, "generator": "g", "output": "x"}], None, "q.jsonl:1: instruction: must be text"),
        ([{"prompt": "x", "answer": "y", "checks": 1}], None, "checks: must be a list"),
        ([{"nothing": "x"}], None, "q.jsonl:1: prompt or question or instruction: is missing or empty"),
    ],
)
def test_wrong_files_are_named_line_by_line_and_nothing_is_written(tmp_path, rows, answers, expected):
    files = [] if answers is None else [write(tmp_path / "a.jsonl", answers)]
    with pytest.raises(DataError) as caught:
        imported(tmp_path, rows, *files)
    assert expected in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_without_force(tmp_path):
    rows = [{"prompt": "Who?", "answer": "Ada"}]
    imported(tmp_path, rows)
    with pytest.raises(DataError, match="is there already; pass --force to replace it"):
        imported(tmp_path, rows)
    _, suite = imported(tmp_path, [{"prompt": "Who?", "answer": "Bob"}], force=True)
    assert suite.items[0].reference == "Bob"


def test_names_stay_in_their_folder(tmp_path):
    rows = [{"instruction": "x", "output": "y", "generator": "../../etc"}]
    imported(tmp_path, rows)
    assert (tmp_path / "out/references/_.._etc/mine.jsonl").is_file()
    with pytest.raises(DataError, match="can't be a suite's name"):
        import_suite(tmp_path / "q.jsonl", kind="auto", name="../x", out=tmp_path)
    with pytest.raises(LoraKitError, match="no kind of suite file 'vicunia'; did you mean 'vicuna'"):
        imported(tmp_path, rows, kind="vicunia")


def test_the_real_vicuna_80(tmp_path, shared_data):
    folder = shared_data / "evaluation/vicuna80"
    files = [folder / "answers/gpt35.jsonl", folder / "answers/65b-guanaco.jsonl"]
    path, suite = import_suite(
        folder / "questions.jsonl", kind="vicuna", name="vicuna80", answers=files, out=tmp_path
    )
    assert len(suite.items) == 80
    assert len({item.category for item in suite.items}) == 9
    first = json.loads(files[0].read_text().splitlines()[0])
    assert suite.items[0].reference == first["answer"]
    open_answers(path.parent.parent / "references/65b-guanaco/vicuna80.jsonl", suite)


def test_the_real_alpaca_eval_annotations(tmp_path, shared_data):
    file = shared_data / "evaluation/alpaca_eval/public/phi-2__alpaca_eval_gpt4.jsonl.gz"
    path, suite = import_suite(file, kind="auto", name="ae", out=tmp_path)
    assert len(suite.items) == 805
    assert {one.name for one in (path.parent.parent / "references").iterdir()} == {
        "text_davinci_003",
        "phi-2",
    }
    assert suite.items[0].reference.startswith("Some famous actors that started their careers")
