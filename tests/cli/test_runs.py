"""`runs` and `watch`: tables, JSON, exit codes, and a removal that asks."""

import json
from pathlib import Path

import pytest

from lora_kit.artifacts.metrics_log import MetricsLog
from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.cli.app import run as command_line


def step(number: int) -> dict[str, object]:
    return {
        "step": number,
        "loss": 3.0 / number,
        "seconds": 2.0,
        "tokens_per_second": 50.0,
        "peak_memory_bytes": 10**9,
        **({"validation_loss": 1.25} if number % 3 == 0 else {}),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, status in (("good", "finished"), ("half", "running"), ("bad", "diverged")):
        run = open_run(Path("runs") / name)
        log = MetricsLog(run.metrics)
        for number in range(1, 7):
            log.append(step(number))
        log.close()
        run.update_state(status=status, steps=10)
    return tmp_path / "runs"


def test_the_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["bad", "diverged", "6/10", "0.500"],
        ["good", "finished", "6/10", "0.500"],
        ["half", "cut", "6/10", "0.500"],
    ]
    with RunDir(folder / "half").lock():
        assert command_line(["runs", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["state"]) for one in found][2] == ("half", "running")
    assert found[2]["owner"]["pid"] > 0
    assert all(one["size_bytes"] > 100 and one["validation_loss"] == 1.25 for one in found)


def test_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["runs", "--dir", str(tmp_path / "none")]) == 0
    assert "no runs in" in capsys.readouterr().err
    assert command_line(["runs", "list", "--dir", str(tmp_path / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["runs", "compare", "good", "bad", "--svg", "x.svg"]) == 0
    out = capsys.readouterr().out
    assert "held-out loss" in out
    assert "a good" in out
    assert Path("x.svg").read_text().startswith("<svg xmlns=")
    assert command_line(["runs", "compare", "good", "bad", "--json"]) == 0
    assert [run["label"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["good", "bad"]
    assert command_line(["runs", "compare", "good", "none"]) == 2
    assert "none: no such run; in runs: bad, good, half" in capsys.readouterr().err


def test_removal_asks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(["runs", "remove", "half"]) == 2
    assert "pass --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []

    def no(text: str, **_: object) -> None:
        asked.append(text)
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.confirm", no)
    assert command_line(["runs", "remove", "half", "bad"]) == 130
    assert asked[0].startswith("Remove these 2 runs (")
    assert RunDir(folder / "half").is_run()
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    assert command_line(["runs", "remove", "half"]) == 0
    assert not (folder / "half").exists()
    assert command_line(["runs", "remove", "bad", "bad", "--yes", "--json"]) == 0
    assert [one["removed"] for one in json.loads(capsys.readouterr().out.split("\n", 1)[1])] == [
        str(folder / "bad")
    ]


def test_a_run_at_work_is_not_removed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDir(folder / "half").lock():
        assert command_line(["runs", "remove", "half", "--yes"]) == 10
    assert "in use by process" in capsys.readouterr().err
    assert (folder / "half").is_dir()


def test_watch_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["watch", "bad", "--once"]) == 0
    assert capsys.readouterr().out == (
        "diverged  step 6/10   loss 0.5000   held-out 1.2500   50 tokens/s   1.0 GB\n"
    )
    with RunDir(folder / "half").lock():
        assert command_line(["watch", "half", "--once", "--json"]) == 0
    moment = json.loads(capsys.readouterr().out)
    assert (moment["state"], moment["seconds_left"], moment["peak_memory_bytes"]) == ("running", 8.0, 10**9)


def test_watch_until_it_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, looks = RunDir(folder / "half"), []

    def meanwhile(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) % 2:
            MetricsLog(run.metrics).append(step(6 + len(looks)))
        if len(looks) == 4:
            run.update_state(status="finished")

    run.metrics.write_text("".join(json.dumps(step(n)) + "\n" for n in (1, 2, 3, 4, 5, 6)) + '{"step": 7, "l')
    monkeypatch.setattr("time.sleep", meanwhile)
    with run.lock():
        assert command_line(["watch", "half", "--json", "--every", "0.5"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (lines[0]["state"], lines[0]["step"]) == ("running", 6)
    assert (lines[-1]["state"], looks) == ("finished", [0.5] * 4)
    assert len(lines) < 5


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("good", 0, ""), ("bad", 6, "diverged after step 6"), ("half", 7, "go on with: lora-kit train")],
)
def test_the_exit_code_is_that_of_the_runs_end(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, said: str
) -> None:
    assert command_line(["watch", name]) == code
    assert said in capsys.readouterr().err


def test_leaving_does_not_fail(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", leave)
    with RunDir(folder / "half").lock():
        assert command_line(["watch", "half"]) == 0


def test_the_live_view(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    from rich.console import Console

    from lora_kit.cli import show_watch

    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, width=80, height=24, color_system="truecolor")
    monkeypatch.setattr(show_watch, "console", terminal)
    assert command_line(["watch", "good"]) == 0
    shown = text.getvalue()
    assert "step 6/10" in shown
    assert "moving mean" in shown
    open_run(folder / "new")
    assert command_line(["watch", "new", "--once"]) == 0
    assert "no step yet" in text.getvalue()
