"""The judge command: what it prints, what it leaves, and its exit code."""

import json
import re

import pytest
import typer

from lora_kit.cli import judging
from lora_kit.cli.judge import judge_command
from lora_kit.errors import IncompleteError, RecipeError

KEY = "sk-canary-4f1d0c9b7e"


@pytest.fixture
def judge(tmp_path):
    app = typer.Typer()
    app.command()(judge_command)
    for name in ("ours", "theirs"):
        rows = [{"id": f"q{n}", "prompt": f"Question {n}?", "answer": f"{name} {n}"} for n in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [str(tmp_path / "ours.jsonl"), "--against", str(tmp_path / "theirs.jsonl")]
    return lambda *options: app([*files, "--out", str(tmp_path / "out"), *options], standalone_mode=False)


def test_a_table_for_people(judge, chat_stub, tmp_path, capsys):
    chat_stub.script = lambda h, _: h.complete("6 8")
    judge("--judge", chat_stub.url, "--model", "gpt", "--kind", "pair_score", "--concurrency", "2")
    said = capsys.readouterr()
    assert "ours against theirs, judged by gpt" in said.out
    assert "% of theirs, pooled" in said.out
    assert "100.00" in said.out
    assert "judged 16 of 16, asked 16 times" in said.out
    assert "16 requests" in said.err
    assert (tmp_path / "out" / "judgments.jsonl").is_file()


def test_json_for_programs(judge, chat_stub, capsys):
    chat_stub.script = lambda h, _: h.complete("3")
    judge("--judge", chat_stub.url, "--model", "gpt", "--json")
    section = json.loads(capsys.readouterr().out)
    assert (section["kind"], section["judged"]) == ("pairwise", 16)
    assert section["preference"]["estimate"]["value"] == 50.0


def test_incomplete_prints_what_there_is_then_fails_with_7(judge, chat_stub, capsys):
    chat_stub.script = lambda h, b: h.complete("hm" if "Question 0?" in b["messages"][0]["content"] else "1")
    options = ("--judge", chat_stub.url, "--model", "gpt")
    with pytest.raises(IncompleteError, match="14 of 16 judged") as caught:
        judge(*options)
    assert caught.value.exit_code == 7
    said = capsys.readouterr().out
    assert "unparsed: q0 (theirs, ours), no single verdict: 'hm'" in said
    judge(*options, "--min-judged", "0.8")


def test_a_key_comes_from_the_variable_that_is_named(judge, chat_stub, monkeypatch, capsys, tmp_path):
    chat_stub.script = lambda h, _: h.complete("1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-asked-for")
    monkeypatch.setenv("JUDGE_KEY", KEY)
    options = ("--judge", chat_stub.url, "--model", "gpt", "--json")
    judge(*options)
    assert "Authorization" not in chat_stub.headers[0]
    judge(*options, "--temperature", "0.5", "--key-env", "JUDGE_KEY")
    assert chat_stub.headers[-1]["Authorization"] == f"Bearer {KEY}"
    said = capsys.readouterr()
    files = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert KEY not in said.out + said.err + files


def test_too_expensive_asks_nothing(judge, chat_stub):
    prices = ("--price-in", "10", "--price-out", "30")
    with pytest.raises(RecipeError, match="could cost more than --max-cost"):
        judge("--judge", chat_stub.url, "--model", "gpt", *prices, "--max-cost", "0.001")
    assert chat_stub.bodies == []


def test_a_person_votes_in_the_terminal(judge, monkeypatch, capsys):
    votes = iter(["1", "2", "3", "1", "q"])
    monkeypatch.setattr(judging, "read_vote", lambda _: next(votes))
    options = ("--judge", "person", "--model", "ada", "--json")
    with pytest.raises(IncompleteError, match="4 of 8 judged"):
        judge(*options)
    said = capsys.readouterr()
    assert "Question 1 of 8" in said.err
    assert "ours" not in re.sub(r"ours \d", "", said.err)  # the answers themselves say it here
    votes = iter("1111")
    judge(*options)
    assert json.loads(capsys.readouterr().out)["judged"] == 8


def test_long_lists_are_cut(capsys):
    entries = [{"item": f"q{n}", "shown": ["a", "b"], "reason": "503"} for n in range(15)]
    judging.show_entries("without a reply", entries)
    said = capsys.readouterr().out
    assert "without a reply: q9 (a, b), 503" in said
    assert "... and 5 more" in said
