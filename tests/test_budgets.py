"""The size limits of the house: a file, a function, a class of settings fits into one sitting."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "lora_kit").rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "other"}
NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the code without the signature and the docstring."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


def depth(node: ast.AST, level: int = 0) -> int:
    deepest = level
    for child in ast.iter_child_nodes(node):
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse
        deeper = level + (isinstance(child, NESTING) and not is_elif)
        deepest = max(deepest, depth(child, deeper))
    return deepest


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_is_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_functions_are_short_and_flat(path: Path) -> None:
    too_much = []
    for function in functions(path):
        arguments = function.args.args + function.args.kwonlyargs + function.args.posonlyargs
        count = len([a for a in arguments if a.arg not in {"self", "cls"}])
        limit = 25 if "/cli/" in str(path) else 60
        options = "/cli/" in str(path)  # there, a parameter is an option of a command
        if body_lines(function) > limit or (count > 6 and not options) or depth(function) > 3:
            sizes = f"{body_lines(function)} lines, {count} parameters, {depth(function)} deep"
            too_much.append(f"{function.name}: {sizes}")
    assert not too_much


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_specs_have_at_most_15_fields(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    large = {
        node.name: fields
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Spec")
        if (fields := sum(isinstance(item, ast.AnnAssign) for item in node.body)) > 15
    }
    assert not large


def test_no_drawer_for_odds_and_ends() -> None:
    assert not [relative(path) for path in FILES if path.stem in FORBIDDEN_NAMES]


def test_every_package_says_what_it_is() -> None:
    documented = {path: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in FILES}
    silent = [relative(path) for path, text in documented.items() if text is None]
    assert not silent


def test_scripts_are_short() -> None:
    shell = [p for p in (ROOT / "scripts").iterdir() if p.is_file() and p.read_bytes()[:9] == b"#!/bin/sh"]
    assert shell
    assert not [p.name for p in shell if len(p.read_text("utf-8").splitlines()) > 20]
