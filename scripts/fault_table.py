"""Prints the table of faults: case, what it is, its tests, and whether they pass or what it waits for.

Cases are listed in tests/faults/cases.toml. A test names its case in its function's name
(``test_b7_what_the_file_is``; in tests/faults only) or with ``@pytest.mark.fault("C9", "P7")``, on the
function or as the module's ``pytestmark``. With ``--run`` the tests are run, and the table says how it went.
"""

import argparse
import ast
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "faults" / "cases.toml"
NAMED = re.compile(r"test_([a-gp])0*([1-9][0-9]?)_")


def read_cases() -> tuple[dict[str, str], dict[str, str]]:
    """Titles of all cases, and what the waiting ones wait for."""
    groups = tomllib.loads(CASES.read_text(encoding="utf-8"))
    waiting = {case: what for cases, what in groups.pop("waiting").items() for case in cases.split()}
    return {case: title for group in groups.values() for case, title in group.items()}, waiting


def find_tests() -> dict[str, list[str]]:
    """Case to the ids of its tests, read from the sources: nothing is imported."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        of_module = [
            case for node in tree.body if isinstance(node, ast.Assign) for case in marked(node.value)
        ]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                named = NAMED.match(node.name) if "faults" in path.parts else None
                cases = [f"{named[1].upper()}{named[2]}"] if named else []
                cases += [case for decorator in node.decorator_list for case in marked(decorator)] + of_module
                for case in dict.fromkeys(cases):
                    found[case].append(f"{path.relative_to(ROOT).as_posix()}::{node.name}")
    return found


def marked(node: ast.expr) -> list[str]:
    """Cases of ``pytest.mark.fault(...)`` within an expression."""
    return [
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "fault"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def outcomes(tests: set[str]) -> dict[str, str]:
    """Run tests and tell of each whether all its parameters passed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *sorted(tests)]
        subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        cases = ET.parse(report).iter("testcase")  # noqa: S314 - pytest's own
    found: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        failed = any(child.tag in ("failure", "error") for child in case)
        skipped = any(child.tag == "skipped" for child in case)
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        found[name].add("failed" if failed else "skipped" if skipped else "passed")
    order = ("failed", "passed", "skipped")
    return {name: next(word for word in order if word in words) for name, words in found.items()}


def main() -> int:
    """Print the table; 1 if a case has no test and waits for nothing, or a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="run the tests and say how they went")
    titles, waiting = read_cases()
    tests = find_tests()
    went = outcomes({test for ids in tests.values() for test in ids}) if parser.parse_args().run else {}
    print("| Case | What happens | Status | Tests |\n|---|---|---|---|")
    bad = False
    for case, title in titles.items():
        ids = tests.get(case, [])
        words = {went.get(test, "missing" if went else "tested") for test in ids}
        status = ", ".join(sorted(words)) if ids else f"waits for {waiting.get(case, '?')}"
        bad |= not (ids or case in waiting) or bool(words & {"failed", "missing"})
        print(f"| {case} | {title} | {status} | {'<br>'.join(ids)} |")
    tested, count = sum(case in tests for case in titles), len(set().union(*tests.values()))
    print(f"\n{len(titles)} cases: {tested} tested by {count} tests, {len(waiting)} wait.")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
