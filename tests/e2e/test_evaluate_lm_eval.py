"""`lora-kit evaluate --lm-eval`: a local task, its section in results.json and on the page; wrong options."""

import json
import sys
from types import SimpleNamespace

import pytest

from lora_kit.cli.app import run

TASK = """
task: lk_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no"]
doc_to_target: "{{{{label}}}}"
metric_list:
  - metric: acc
"""


@pytest.fixture
def command(tiny_llama, tiny_suite, tmp_path):
    quick = ("--max-new-tokens", "4")
    return ["evaluate", str(tiny_llama), "--suite", str(tiny_suite), "--out", str(tmp_path / "out"), *quick]


@pytest.mark.filterwarnings("ignore")
def test_its_rows_stand_beside_the_suite_and_stay(command, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="extra lm-eval is not installed")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"{n}?", "label": n % 2}) + "\n" for n in range(4)))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "lk_choice.yaml").write_text(TASK.format(rows=rows))
    more = ["--lm-eval", "lk_choice", "--lm-eval-tasks", str(tmp_path / "tasks")]
    assert run([*command, *more]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    [row] = results["lm_eval"]["tasks"]
    assert (row["task"], row["model"], row["metric"], row["n"]) == ("lk_choice", "base", "acc", 4)
    assert "lk_choice" in (tmp_path / "out" / "report.html").read_text()
    assert run(command) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["lm_eval"] == results["lm_eval"]


def test_without_the_library_one_line_says_how_to_get_it(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert run([*command, "--lm-eval", "arc_easy"]) == 5
    assert "pip install 'lora-kit[lm-eval]'" in " ".join(capsys.readouterr().err.split())


def test_an_engine_that_is_not_there_is_one_line(command, capsys):
    assert run([*command, "--engine", "vlm"]) == 2
    assert "no engine 'vlm'" in capsys.readouterr().err


def test_a_gguf_file_is_answered_by_llama_cpp(tiny_llama, tiny_gguf, tiny_suite, tmp_path, monkeypatch):
    config = json.loads((tiny_llama / "config.json").read_text())

    class Llama:
        def __init__(self, *, n_ctx, **_):
            self.n_ctx = lambda: n_ctx

        def n_vocab(self):
            return config["vocab_size"]

        def reset(self):
            pass

        def generate(self, tokens, **_):
            while True:
                yield tokens[-1]

    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=Llama))
    words = ["evaluate", str(tiny_gguf), "--suite", str(tiny_suite), "--max-new-tokens", "4"]
    assert run([*words, "--out", str(tmp_path / "out")]) == 2
    assert run([*words, "--out", str(tmp_path / "out"), "--base", str(tiny_llama)]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [model["name"] for model in results["models"]] == ["tiny"]
    assert results["items"][0]["answers"]["tiny"]["nats"] is None
