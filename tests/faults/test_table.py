"""The table of faults is whole: every case has a test or a feature that it waits for, none has both."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fault_table.py"
CASES = {"A": 17, "B": 25, "C": 20, "D": 24, "E": 6, "F": 19, "G": 13, "P": 16}


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fault_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_case_is_tested_or_waits(table: ModuleType) -> None:
    titles, waiting = table.read_cases()
    tests = table.find_tests()
    assert list(titles) == [f"{group}{n}" for group, count in CASES.items() for n in range(1, count + 1)]
    assert not sorted(set(tests) - set(titles)), "tests name cases that are not listed"
    assert not set(waiting) - set(titles)
    assert not sorted(set(tests) & set(waiting)), "these have a test now: take them out of [waiting]"
    assert not sorted(set(titles) - set(tests) - set(waiting)), "these have neither a test nor a reason"


@pytest.mark.parametrize(
    ("source", "cases"),
    [
        ("def test_b07_x(): ...", {"B7"}),
        ("def test_b70x(): ...", set()),
        ("@pytest.mark.fault('C9', 'P7')\ndef test_x(): ...", {"C9", "P7"}),
        ("pytestmark = pytest.mark.fault('P16')\ndef test_a1_x(): ...", {"A1", "P16"}),
        ("pytestmark = [pytest.mark.fault('P16')]\ndef test_x(): ...", {"P16"}),
        ("@pytest.mark.fault('C9')\ndef help_x(): ...", set()),
    ],
)
def test_tests_say_which_case_they_hold(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, cases: set[str]
) -> None:
    (tmp_path / "tests" / "faults").mkdir(parents=True)
    (tmp_path / "tests" / "faults" / "test_it.py").write_text(source)
    monkeypatch.setattr(table, "ROOT", tmp_path)
    assert set(table.find_tests()) == cases


def test_the_script_prints_a_line_for_each_case() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert sum(line.startswith("| ") for line in lines) == sum(CASES.values()) + 1
    assert lines[-1].startswith(f"{sum(CASES.values())} cases: ")


def test_it_tells_how_the_tests_went(
    table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tests" / "faults").mkdir(parents=True)
    (tmp_path / "tests" / "faults" / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_a1_x(n): assert n == 1\n"
        "def test_a2_y(): ...\n"
        "def test_a3_z(): pytest.skip()\n"
    )
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["fault-table", "--run"])
    assert table.main() == 1
    lines = {
        line.split(" | ")[0]: line.split(" | ")[2] for line in capsys.readouterr().out.splitlines()[2:-2]
    }
    assert [lines[f"| A{n}"] for n in (1, 2, 3)] == ["failed", "passed", "skipped"]
