"""scripts/bench: its sub-commands, and that what it compares is compared rightly."""

import json
import os
import subprocess
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from runpy import run_module
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "scripts" / "bench"
SPEEDS = ("data", "train", "memory", "losses", "scale", "prefixes", "nf4", "generate")
SUBCOMMANDS = (*SPEEDS, "plan", "export", "deadline", "startup")


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_subcommand_has_the_options_of_all(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        import_module(f"benches.{name}").main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"scripts/bench {name}" in text
    assert all(option in text for option in ("--base", "--json", "--plot"))


def test_without_a_subcommand_it_lists_them_all() -> None:
    done = bench()
    assert done.returncode == 2
    assert [line.split()[0] for line in done.stderr.splitlines() if line.startswith("  ")] == list(
        SUBCOMMANDS
    )


def test_a_plot_of_another_kind_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        import_module("benches.scale").main(["--plot", "speed.doc"])
    assert "neither .svg nor .png" in capsys.readouterr().err


def test_train_names_the_extra_that_trl_is_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = import_module("benches.train")
    monkeypatch.setattr(train, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        train.main(["rows.json"])
    assert "'.[bench]'" in capsys.readouterr().err
    assert train.parse(["rows.json", "--sides", "plain"], "train", None).sides == ["plain"]


# --- losses -------------------------------------------------------------------------------------------------


def alpaca(path: Path, count: int) -> Path:
    things = ("a fox", "the dog", "a brown cat", "the sun", "a lazy question", "a quick word")
    rows = [
        {
            "instruction": f"Say {n} words about {things[n % 6]}",
            "input": "",
            "output": f"{things[-n % 6]} is {n}",
        }
        for n in range(count)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


class ForkedSide:
    """In place of Popen: a copy of this process becomes the side, which has imported most already."""

    def __init__(self, command: list[str], **_: Any) -> None:
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads of ours only wait
            self.pid = os.fork()
        if not self.pid:
            self._become(command, theirs_in, theirs_out, ours_out)
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin, self.stdout = os.fdopen(ours_out, "w"), os.fdopen(ours_in)

    @staticmethod
    def _become(command: list[str], given: int, told: int, others: int) -> None:
        try:
            os.close(others)
            sys.stdin, sys.stdout = os.fdopen(given), os.fdopen(told, "w")
            module, job = command[-2:]
            sys.argv = [module, job]
            warnings.simplefilter("ignore")
            run_module(module, run_name="__main__")
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def communicate(self) -> None:
        self.stdin.close()
        self.stdout.close()
        self.wait()


def test_losses_of_a_tiny_model_equal_the_plain_loop(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = SimpleNamespace(Popen=ForkedSide, PIPE=subprocess.PIPE)
    monkeypatch.setattr(import_module("benches.processes"), "subprocess", stand_in)
    found, drawn = tmp_path / "found.json", tmp_path / "drawn.svg"
    asked = ["--base", tiny_llama, "--steps", 3, "--limit", 12, "--batch", 4, "--micro", 128]
    asked += ["--json", found] + (["--plot", drawn] if has_matplotlib() else [])
    words = map(str, [alpaca(tmp_path / "rows.json", 12), *asked])
    assert import_module("benches.losses").main(list(words)) == 0
    figures = json.loads(found.read_text("utf-8"))
    assert figures["equal"]
    assert figures["largest_difference"] <= 1e-4
    losses = [step["lora_kit"] for step in figures["steps"]]
    assert len(set(losses)) == 3  # the adapter moved between them
    assert figures["largest_difference"] == max(step["difference"] for step in figures["steps"])
    assert {"date", "machine", "versions", "options"} <= set(figures)
    assert "equal (within 1e-04)" in capsys.readouterr().out
    assert not has_matplotlib() or "<svg" in drawn.read_text("utf-8")


def has_matplotlib() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def losses_of(monkeypatch: pytest.MonkeyPatch, ours: list[float], theirs: list[float]) -> int:
    """The exit code when the sides found these losses."""
    losses = import_module("benches.losses")
    found = {"benches.real_run": ours, "benches.train_sides": theirs}

    class Fake:
        def __init__(self, module: str, _: Any) -> None:
            self.left = list(found[module])

        def step(self, what: Any) -> dict[str, Any]:
            assert isinstance(what, int) or what == ["rows.json:1"]
            return {"loss": self.left.pop(0), "rows": ["rows.json:1"], "tokens": 9}

        def close(self) -> None:
            assert not self.left

    monkeypatch.setattr(losses, "Side", Fake)
    monkeypatch.setattr(losses, "found_base", str)
    return losses.main(["rows.json", "--steps", str(len(ours))])


@pytest.mark.parametrize(
    ("theirs", "code"),
    [([2.0, 1.00009], 0), ([2.0, 1.00011], 1), ([float("nan"), 1.0], 1)],
    ids=["within", "beyond", "not a number"],
)
def test_losses_fail_where_one_step_differs_by_more_than_1e_4(
    monkeypatch: pytest.MonkeyPatch, theirs: list[float], code: int
) -> None:
    assert losses_of(monkeypatch, [2.0, 1.0], theirs) == code


# --- scale --------------------------------------------------------------------------------------------------


def test_scale_makes_the_steps_of_all_runs_in_proportion() -> None:
    scale = import_module("benches.scale")
    order = [times for _, times in scale.in_proportion(3)]
    assert {times: order.count(times) for times in (1, 4, 16)} == {1: 3, 4: 12, 16: 48}
    half = order[: len(order) // 2]
    assert abs(half.count(16) - 24) <= 1
    assert abs(half.count(4) - 6) <= 1


def test_scale_repeats_rows_that_are_equally_long_and_all_different() -> None:
    scale = import_module("benches.scale")
    rows = [{"instruction": "one two three", "output": "a b c d"}, {"instruction": "four", "output": "e"}]
    made = scale.copies(rows, 16, 2)
    assert len({row["instruction"] for row in made}) == 32
    assert {len(row["instruction"]) for row in made} == {len("000 one two"), len("000 four")}
    assert made[0]["output"] == "a b"
    assert scale.copies(rows, 1, 0)[0]["output"] == "a b c d"


@pytest.mark.parametrize(
    ("speeds", "peaks", "linear", "flat"),
    [
        ({1: 100, 4: 109, 16: 91}, {1: 100, 4: 80, 16: 109}, True, True),
        ({1: 100, 4: 100, 16: 88}, {1: 100, 4: 100, 16: 100}, False, True),
        ({1: 100, 4: 112, 16: 100}, {1: 100, 4: 111, 16: 100}, False, False),
    ],
    ids=["fine", "slower", "quicker and larger"],
)
def test_scale_says_whether_cost_is_linear_and_memory_flat(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, speeds: Any, peaks: Any, *, linear: bool, flat: bool
) -> None:
    scale = import_module("benches.scale")

    class Fake:
        def __init__(self, _: str, job: Any) -> None:
            self.times = json.loads(Path(job["recipe"]).read_text("utf-8"))["data"]["limit"] // 8
            self.steps = 0

        def step(self, number: int) -> dict[str, float]:
            assert number == self.steps
            self.steps += 1
            warm = 100.0 if number else 1.0  # a warm-up that must not count
            return {"tokens": speeds[self.times], "seconds": 1.0 if number else warm * 50, "gemm": 1e9}

        def close(self) -> dict[str, float]:
            assert self.steps == 2 * self.times
            return {"peak_bytes": peaks[self.times], "other_seconds": 1.0}

    monkeypatch.setattr(scale, "Side", Fake)
    monkeypatch.setattr(scale, "found_base", str)
    found = tmp_path / "found.json"
    asked = [str(alpaca(tmp_path / "rows.json", 8)), "--count", "8", "--batch", "4", "--json", str(found)]
    assert scale.main(asked) == 0
    figures = json.loads(found.read_text("utf-8"))
    assert (figures["linear"], figures["flat"]) == (linear, flat)
    assert [one["rows"] for one in figures["scale"]] == [8, 32, 128]
    assert [one["tokens_per_second"] for one in figures["scale"]] == list(speeds.values())


def test_train_scale_asks_scale_for_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    train, asked = import_module("benches.train"), []
    monkeypatch.setattr(train.scale, "main", lambda arguments: asked.append(arguments) or 0)
    assert train.main(["rows.json", "--scale", "--limit", "16", "--low"]) == 0
    assert asked[0][:5] == ["rows.json", "--count", "16", "--words", "0"]
    assert asked[0][-1] == "--low"
