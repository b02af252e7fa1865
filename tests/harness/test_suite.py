import json
from pathlib import Path

import pytest

from lora_kit.errors import DataError
from lora_kit.harness.suite import Suite, list_suites, load_suite

PROMPTS = [
    {"id": "a", "category": "qa", "prompt": "What is LoRA?"},
    {"id": "b", "category": "summary", "prompt": "Sum up.", "context": "A long text.", "cluster": "text"},
    {
        "id": "c",
        "category": "chat",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Bye"},
        ],
    },
]
REFERENCES = [
    {"id": "b", "answer": "Short."},
    {"id": "a", "answer": "An adapter."},
    {"id": "c", "answer": "Bye!"},
]
HEADER = "name: mine\ndescription: three\nprompts: p.jsonl\nreferences: r.jsonl\nmetrics: [rouge_l, chrf]\n"


def write_suite(
    folder: Path, prompts: list = PROMPTS, references: list = REFERENCES, header: str = HEADER
) -> str:
    for name, rows in (("p.jsonl", prompts), ("r.jsonl", references)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.yaml").write_text(header)
    return str(folder / "mine.yaml")


def problems(folder: Path, **changes) -> str:
    with pytest.raises(DataError) as caught:
        load_suite(write_suite(folder, **changes))
    return str(caught.value)


def load(folder: Path, **changes) -> Suite:
    folder.mkdir(exist_ok=True)
    return load_suite(write_suite(folder, **changes))


def test_items_are_joined_by_id_in_the_order_of_the_prompts(tmp_path):
    suite = load(tmp_path)
    assert [(i.id, i.category, i.reference, i.cluster) for i in suite.items] == [
        ("a", "qa", "An adapter.", "a"),
        ("b", "summary", "Short.", "text"),
        ("c", "chat", "Bye!", "c"),
    ]
    assert suite.metrics == ("rouge_l", "chrf")
    assert suite.items[1].messages[0].context == "A long text."
    assert suite.items[1].prompt == "Sum up.\n\nA long text."
    assert suite.items[2].prompt.startswith("system: Be brief.\n\nuser: Hi\n\nassistant: Hello")
    assert suite.items[1].origin == "p.jsonl:2"


def test_only_the_reference_is_trained_in_a_conversation(tmp_path):
    conversation = load(tmp_path).items[2].with_answer("Bye!")
    assert [m.train for m in conversation.messages] == [False, False, False, False, True]
    assert conversation.messages[-1].content == "Bye!"


def test_fingerprint_is_of_the_content_alone(tmp_path):
    first = load(tmp_path / "1")
    moved = load(tmp_path / "2", references=REFERENCES[::-1], header=HEADER.replace("three", "others"))
    assert moved.fingerprint == first.fingerprint
    for changed in (
        load(tmp_path / "3", references=[REFERENCES[0] | {"answer": "Shorter."}, *REFERENCES[1:]]),
        load(tmp_path / "4", prompts=[PROMPTS[0] | {"prompt": "What is QLoRA?"}, *PROMPTS[1:]]),
        load(tmp_path / "5", prompts=[PROMPTS[0] | {"cluster": "x"}, *PROMPTS[1:]]),
        load(tmp_path / "6", header=HEADER.replace("rouge_l, ", "")),
        load(tmp_path / "7", prompts=PROMPTS[::-1]),
    ):
        assert changed.fingerprint != first.fingerprint
    assert load(tmp_path / "8", prompts=PROMPTS[::-1]).items[2].fingerprint == first.items[0].fingerprint


@pytest.mark.parametrize(
    ("prompts", "references", "expected"),
    [
        (
            [PROMPTS[0] | {"prompt": " "}],
            [REFERENCES[1]],
            "p.jsonl:1: prompt: is empty",
        ),
        ([{"id": "a", "category": "qa"}], [REFERENCES[1]], "p.jsonl:1: needs either 'prompt' or 'messages'"),
        (
            [PROMPTS[0] | {"contxt": "x"}],
            [REFERENCES[1]],
            "p.jsonl:1: contxt: unknown field; did you mean 'context'?",
        ),
        ([{"id": "a", "prompt": "x"}], [REFERENCES[1]], "p.jsonl:1: category: missing field 'category'"),
        ([PROMPTS[0], PROMPTS[0]], [REFERENCES[1]], "p.jsonl:2: id: id 'a' was used before, in p.jsonl:1"),
        ([PROMPTS[0]], REFERENCES[:1], "p.jsonl:1: id: prompt 'a' has no reference in r.jsonl"),
        ([PROMPTS[0]], REFERENCES[:2], "r.jsonl:1: id: reference 'b' has no prompt in p.jsonl"),
        ([PROMPTS[0]], [{"id": "a", "answer": ""}], "r.jsonl:1: answer: is empty"),
        ([PROMPTS[0]], [{"id": "a", "answer": 3}], "r.jsonl:1: answer: must be text, found a number"),
        ([PROMPTS[0] | {"id": 7}], [REFERENCES[1]], "p.jsonl:1: id: must be text, found a number"),
        (
            [{"id": "a", "category": "qa", "messages": [{"role": "usr", "content": "x"}]}],
            [REFERENCES[1]],
            "p.jsonl:1: messages[0].role: unknown role 'usr'; did you mean 'user'?",
        ),
        (
            [{"id": "a", "category": "qa", "messages": [{"role": "assistant", "content": "x"}]}],
            [REFERENCES[1]],
            "p.jsonl:1: messages[0]: turn is from assistant, expected user",
        ),
        ([], REFERENCES, "p.jsonl: the file is empty"),
    ],
)
def test_wrong_rows_are_named(tmp_path, prompts, references, expected):
    assert expected in problems(tmp_path, prompts=prompts, references=references)


def test_a_suite_without_prompts_is_refused(tmp_path):
    path = write_suite(tmp_path, header=HEADER.replace("jsonl", "json"))
    (tmp_path / "p.json").write_text("[]")
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(DataError, match=r"p\.json: the suite has no prompts"):
        load_suite(path)


def test_all_problems_at_once_and_not_more_than_20(tmp_path):
    bad = [{"id": str(number), "category": "", "prompt": "x"} for number in range(30)]
    answers = [{"id": str(number), "answer": "x"} for number in range(30)]
    text = problems(tmp_path, prompts=bad, references=answers)
    assert len(text.splitlines()) == 21
    assert text.endswith("... and 10 more")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rouge_l", "rougel", "mine.yaml:5: metrics: no metric \"rougel\"; did you mean 'rouge_l'?"),
        ("name: mine", "name: yours", 'mine.yaml:1: name: is "yours", but the file is called mine.yaml'),
        ("p.jsonl", "q.jsonl", "mine.yaml:3: prompts: no such file"),
        ("description", "descripton", "mine.yaml:2: descripton: unknown key; did you mean 'description'?"),
        ("[rouge_l, chrf]", "", "metrics: must be a list"),
        ("[rouge_l, chrf]", "[chrf, chrf]", "metrics: the same metric twice"),
        ("three", "[1", "not YAML"),
    ],
)
def test_wrong_headers_are_named(tmp_path, old, new, expected):
    assert expected in problems(tmp_path, header=HEADER.replace(old, new, 1))


def test_unknown_suites_get_an_answer():
    with pytest.raises(DataError, match="no suite 'quickstar'; did you mean 'quickstart'\\?"):
        load_suite("quickstar")
    with pytest.raises(DataError, match="no such suite file"):
        load_suite("./nowhere.yaml")


def test_shipped_suites_load():
    suites = {suite.name: suite for suite in list_suites()}
    assert len(suites["quickstart"].items) >= 40
    assert load_suite("quickstart").fingerprint == suites["quickstart"].fingerprint


def test_weight_references_and_checks_come_with_an_item(tmp_path):
    checks = [{"type": "contains", "value": "adapter"}, {"type": "regex", "value": "^An"}]
    prompts = [PROMPTS[0] | {"weight": 2.5, "checks": checks}, *PROMPTS[1:]]
    references = [REFERENCES[0], {"id": "a", "answer": ["An adapter.", "Low rank."]}, REFERENCES[2]]
    first, second = load(tmp_path, prompts=prompts, references=references).items[:2]
    assert first.references == ("An adapter.", "Low rank.")
    assert (first.weight, second.weight) == (2.5, 1.0)
    assert [check.run("an ADAPTER").passed for check in first.checks] == [True, False]
    assert second.checks == ()


def test_what_judges_an_answer_changes_the_suite_but_not_what_is_asked(tmp_path):
    first = load(tmp_path / "1")
    for number, (prompt, answer) in enumerate(
        [
            ({"weight": 2}, "An adapter."),
            ({"checks": [{"type": "exact", "value": "x"}]}, "An adapter."),
            ({}, ["An adapter.", "Low rank."]),
        ]
    ):
        references = [REFERENCES[0], {"id": "a", "answer": answer}, REFERENCES[2]]
        changed = load(
            tmp_path / f"c{number}", prompts=[PROMPTS[0] | prompt, *PROMPTS[1:]], references=references
        )
        assert changed.fingerprint != first.fingerprint
        assert changed.items[0].fingerprint == first.items[0].fingerprint
    same = load(tmp_path / "same", prompts=[PROMPTS[0] | {"weight": 1}, *PROMPTS[1:]])
    assert same.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ({"weight": 0}, "x", "p.jsonl:1: weight: must be a number above 0"),
        ({"weight": True}, "x", "p.jsonl:1: weight: must be a number above 0"),
        ({"weight": "2"}, "x", "p.jsonl:1: weight: must be a number above 0"),
        ({"checks": [{"type": "exact"}]}, "x", "p.jsonl:1: checks[0].value: must be text"),
        ({}, [], "r.jsonl:1: answer: is empty"),
        ({}, ["x", 3], "r.jsonl:1: answer[1]: must be text, found a number"),
        ({}, ["x", " "], "r.jsonl:1: answer[1]: is empty"),
    ],
)
def test_wrong_weights_references_and_checks_are_named(tmp_path, prompt, answer, expected):
    found = problems(tmp_path, prompts=[PROMPTS[0] | prompt], references=[{"id": "a", "answer": answer}])
    assert expected in found


def test_a_metric_that_is_not_installed_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("lora_kit.harness.metric.find_spec", lambda _: None)
    found = problems(tmp_path, header=HEADER.replace("chrf", "embedding_similarity"))
    assert "embedding_similarity is not installed; pip install 'lora-kit[embedding]'" in found


def test_shipped_references_keep_the_rules_of_their_prompts():
    items = [item for suite in list_suites() for item in suite.items if item.checks]
    assert len(items) >= 14
    broken = [(i.id, c.wanted) for i in items for c in i.checks if not c.run(i.reference).passed]
    assert broken == []
    assert not any(item.checks for item in load_suite("quickstart").items)
