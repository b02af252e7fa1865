"""The compare command against a chat server on loopback: ranking, journal, resuming, exit codes."""

import json
import re

import pytest
import torch
import typer

from lora_kit.artifacts.adapter import save_adapter
from lora_kit.assemble import tokenizer_files
from lora_kit.cli.app import run as run_cli
from lora_kit.cli.compare import compare_command
from lora_kit.errors import IncompleteError, RecipeError
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
from lora_kit.model.base import find_base
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

PROMPTS = 8
PLANNED = 6 * PROMPTS * 2


@pytest.fixture
def suite(tmp_path):
    prompts = [{"id": f"q{n}", "category": "generic", "prompt": f"Question {n}?"} for n in range(PROMPTS)]
    golds = [{"id": f"q{n}", "answer": f"The gold answer {n}."} for n in range(PROMPTS)]
    for name, rows in (("p", prompts), ("r", golds), ("chatgpt", golds)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    header = "name: small\ndescription: eight\nprompts: p.jsonl\nreferences: r.jsonl\nmetrics: [chrf]\n"
    (tmp_path / "small.yaml").write_text(header)
    return tmp_path / "small.yaml"


@pytest.fixture
def adapters(tiny_llama, tmp_path):
    """Two adapters of one base."""
    files = find_base(BaseSpec(model=str(tiny_llama)))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    adapted = add_adapter(model, LoraSpec(rank=4), files.family, seed=0)
    folders = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            name: torch.randn(value.shape, generator=generator) / 3
            for name, value in adapter_tensors(adapted).items()
        }
        folders.append(tmp_path / f"adapter-{seed}")
        save_adapter(
            folders[-1],
            tensors=tensors,
            config=adapter_config(adapted, str(tiny_llama)),
            provenance={"base": {"source": str(tiny_llama), "fingerprint": files.fingerprint}},
            files=tokenizer_files(files.folder),
        )
    return [str(folder) for folder in folders]


@pytest.fixture
def four(adapters, suite, tmp_path):
    """Base, two adapters and a file of answers, with suite and folder."""
    words = [f"{adapters[0]}@base", *adapters, str(tmp_path / "chatgpt.jsonl")]
    return [*words, "--suite", str(suite), "--out", str(tmp_path / "out"), "--max-new-tokens", "6"]


def prefers_gold(handler, body):
    """A judge that likes the file of answers, else whoever is shown first."""
    shown = re.findall(r"The gold answer", body["messages"][0]["content"].partition("Answer 2")[0])
    second = re.findall(r"The gold answer", body["messages"][0]["content"].partition("Answer 2")[2])
    handler.complete("2" if second and not shown else "1")


def test_base_two_adapters_and_a_file_in_one_ranking_cut_and_resumed(four, chat_stub, tmp_path, capsys):
    served = []

    def dies(handler, body):
        if len(served) >= 20:
            handler.send(402, "{}")  # stops at once
        else:
            served.append(body)
            prefers_gold(handler, body)

    judge = ["--judge", chat_stub.url, "--model", "gpt", "--concurrency", "1"]
    chat_stub.script = dies
    assert run_cli(["compare", *four, *judge]) == 7
    assert "20 of 96 judged" in capsys.readouterr().err
    answers = (tmp_path / "out" / "answers.jsonl").read_text()

    chat_stub.script = lambda handler, body: served.append(body) or prefers_gold(handler, body)
    assert run_cli(["compare", *four, *judge]) == 0
    said = capsys.readouterr()
    asked = [json.dumps(body, sort_keys=True) for body in served]
    assert len(asked) == len(set(asked)) == PLANNED
    assert (tmp_path / "out" / "answers.jsonl").read_text() == answers
    assert "4 systems on 8 prompts of small, judged by gpt" in said.out
    assert "76 requests" in said.err
    assert re.search(r"^1 \(1-1\) +chatgpt", said.out, re.MULTILINE)

    before = len(chat_stub.bodies)
    assert run_cli(["compare", *four, *judge, "--json"]) == 0
    assert len(chat_stub.bodies) == before
    ranking = json.loads(capsys.readouterr().out)
    assert ranking == json.loads((tmp_path / "out" / "results.json").read_text())["ranking"]
    check_ranking(ranking)
    assert len((tmp_path / "out" / "judgments.jsonl").read_text().splitlines()) == PLANNED


def check_ranking(ranking):
    names = [one["name"] for one in ranking["players"]]
    assert names[0] == "chatgpt"
    assert set(names) == {"base", "adapter-1", "adapter-2", "chatgpt"}
    for one in ranking["players"]:
        assert one["bradley_terry"]["low"] <= one["bradley_terry"]["rating"] <= one["bradley_terry"]["high"]
        assert {"elo", "win_rate", "length_controlled"} <= one.keys()
    verdicts = {(pair["a"], pair["b"]): pair["verdict"] for pair in ranking["pairs"]}
    assert len(verdicts) == 6
    for (first, _), verdict in verdicts.items():
        assert verdict == ("better" if first == "chatgpt" else "can't tell")
    assert (ranking["judged"], ranking["asked"]) == (PLANNED, 0)


@pytest.fixture
def two(tmp_path):
    """A command over two files of answers with prompts."""
    for name in ("ours", "[red]theirs"):
        rows = [{"id": f"q{n}", "prompt": f"Question {n}?", "answer": f"{name} {n}"} for n in range(PROMPTS)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    app = typer.Typer()
    app.command()(compare_command)
    files = [
        str(tmp_path / "ours.jsonl"),
        str(tmp_path / "[red]theirs.jsonl"),
        "--out",
        str(tmp_path / "out"),
    ]
    return lambda *options: app([*files, *options], standalone_mode=False)


def test_tables_for_people(two, chat_stub, capsys):
    chat_stub.script = lambda handler, _: handler.complete("1")
    two("--judge", chat_stub.url, "--model", "gpt")
    said = capsys.readouterr().out
    assert "[red]theirs" in said
    assert "can't tell" in said
    assert "same verdict in both orders 0.0% (kappa 0.00); first shown wins both 100.0%" in said
    assert "judged 16 of 16, asked 16 times" in said


def test_incomplete_shows_what_there_is_then_fails(two, chat_stub, capsys):
    chat_stub.script = lambda h, b: h.complete("hm" if "Question 0?" in b["messages"][0]["content"] else "1")
    with pytest.raises(IncompleteError, match="14 of 16 judged"):
        two("--judge", chat_stub.url, "--model", "gpt")
    assert "unparsed: q0" in capsys.readouterr().out
    two("--judge", chat_stub.url, "--model", "gpt", "--min-judged", "0.8")


def test_without_a_judge_it_says_who_can_judge(two):
    with pytest.raises(RecipeError, match="nobody judges") as caught:
        two()
    assert "local:MODEL, person, or replay:FILE" in str(caught.value)


def test_too_expensive_asks_nothing(two, chat_stub):
    prices = ("--price-in", "10", "--price-out", "30")
    with pytest.raises(RecipeError, match="could cost more than --max-cost"):
        two("--judge", chat_stub.url, "--model", "gpt", *prices, "--max-cost", "0.001")
    assert chat_stub.bodies == []


def test_a_judge_in_process_is_loaded_after_the_answers(two, tiny_llama, monkeypatch, capsys):
    from lora_kit.cli import comparing

    order = []
    answer_all, open_judge = comparing.answer_all, comparing.open_judge
    monkeypatch.setattr(
        comparing, "answer_all", lambda *a, **k: order.append("answers") or answer_all(*a, **k)
    )
    monkeypatch.setattr(comparing, "open_judge", lambda *a, **k: order.append("judge") or open_judge(*a, **k))
    two("--judge", f"local:{tiny_llama}", "--max-tokens", "4", "--min-judged", "0", "--json")
    assert order == ["answers", "judge"]
    assert json.loads(capsys.readouterr().out)["planned"] == 16
