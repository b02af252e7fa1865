"""Bad recipes, A1 to A17: exit code 2, one line per problem, and nothing done that the recipe asked for."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.cli.console import report_error
from lora_kit.errors import Problem, RecipeError
from lora_kit.recipe.load import dump_recipe, load_recipe
from lora_kit.recipe.schema import Recipe
from lora_kit.recipe.yaml_text import MAX_BYTES

HEAD = "name: x\nbase: {model: a/b}\ndata: {train: rows.jsonl, format: dolly}\n"
Load = Callable[..., Recipe]
Refused = Callable[..., list[Problem]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    (project / "rows.jsonl").write_text("{}\n", "utf-8")
    (tmp_path / "secret.jsonl").write_text("{}\n", "utf-8")
    return project


@pytest.fixture
def load(folder: Path) -> Load:
    def run(text: str | bytes, *overrides: str, **options: object) -> Recipe:
        (folder / "r.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_recipe(folder / "r.yaml", overrides, **options)

    return run


@pytest.fixture
def refused(load: Load, folder: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Load what is refused, and check every case's promise: exit code, one `error:`, one line a problem."""

    def run(text: str | bytes, *overrides: str, **options: object) -> list[Problem]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, **options)
        error = caught.value
        assert error.exit_code == 2
        report_error(error)
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].startswith("lora_kit: error: ")
        assert len(lines) == len(error.problems) + (len(error.problems) > 1)
        return [
            Problem(problem.found, problem.where.replace(f"{folder}/", ""), problem.key, problem.cure)
            for problem in error.problems
        ]

    return run


A1 = {
    "bracket": ("lora: [1, 2\n", "r.yaml:1:7", "never closed"),
    "brace": ("lora: {rank: 8\nname: x\n", "r.yaml:2:5", ""),
    "quote": ("name: 'x\n", "r.yaml:1:7", "never closed"),
    "tab": ("lora:\n\trank: 8\n", "r.yaml:2:1", "spaces, not tabs"),
    "colon": ("name: a: b\n", "r.yaml:1:8", "quote text"),
    "indentation": ("lora:\n    rank: 8\n  alpha: 1\n", "r.yaml:3:3", ""),
    "NUL": ("name: a\x00b\n", "r.yaml:1", "control character"),
    "escape": ('name: "\\U00110000"\n', "r.yaml:1", ""),
    "reserved": ("name: @x\n", "r.yaml:1:7", ""),
    "two documents": (HEAD + "---\nname: y\n", "r.yaml:4", ""),
    "list": ("- a\n- b\n", "r.yaml:1", ""),
    "scalar": ("hello\n", "r.yaml:1", ""),
    "directive": ("%YAML 1.1\n---\nname: x\n", "r.yaml:2", ""),
}


@pytest.mark.parametrize(("text", "where", "cure"), A1.values(), ids=A1.keys())
def test_a01_what_is_not_yaml_is_named_by_line_and_column(refused, text, where, cure):
    [problem] = refused(text)
    assert problem.where == where
    assert cure in problem.cure


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n"])
def test_a01_an_empty_recipe(refused, text):
    [problem] = refused(text)
    assert (problem.where, problem.found) == ("r.yaml", "the recipe is empty")


def test_a01_a_bad_alias(refused):
    assert "r.yaml:4" in {problem.where for problem in refused(HEAD + "lora: *nowhere\n")}


def test_a02_an_unknown_key_at_any_depth(refused):
    [problem] = refused(HEAD + "train:\n  lerning_rate: 1\n")
    assert str(problem) == (
        "r.yaml:5: train.lerning_rate: unknown key 'lerning_rate' in train; did you mean 'learning_rate'?"
    )
    [problem] = refused(HEAD + "trian: {steps: 1}\n")
    assert problem.cure == "did you mean 'train'?"
    [problem] = refused(HEAD + "train.steps: 1\n")
    assert problem.cure == "write 'steps' inside the section 'train'"
    [problem] = refused(HEAD + "train: {optimizer: {betas: [1, 2]}}\n")
    assert problem.key == "train.optimizer"


@pytest.mark.parametrize(("text", "value"), [("2e-4", 2e-4), ("1E-5", 1e-5), ("2.0e-4", 2e-4), ("1", 1.0)])
def test_a03_a_learning_rate_is_a_number(load, text, value):
    assert load(f"{HEAD}train: {{learning_rate: {text}}}\n").train.learning_rate == value


@pytest.mark.parametrize(
    ("key", "text", "got", "cure"),
    [
        ("train.learning_rate", ".inf", ".inf", ""),
        ("train.learning_rate", "-.inf", "-.inf", ""),
        ("train.learning_rate", ".nan", ".nan", ""),
        ("train.learning_rate", "1e999", ".inf", ""),
        ("train.steps", "1_000", '"1_000"', "write 1000"),
        ("train.steps", "'8'", '"8"', "write 8"),
        ("train.steps", "9" * 30, "9" * 30, "the largest is 1000000000"),
    ],
)
def test_a03_what_is_no_number(refused, key, text, got, cure):
    section, _, leaf = key.partition(".")
    [problem] = refused(f"{HEAD}{section}: {{{leaf}: {text}}}\n")
    assert problem.key == key
    assert problem.found.endswith(f"got {got}")
    assert problem.cure == cure


def test_a04_no_surprises_of_yaml_1_1(load, refused):
    assert load(HEAD + "train: {seed: 010}\n").train.seed == 10
    assert load(HEAD.replace("name: x", "name: no")).name == "no"
    assert load(HEAD.replace("name: x", "name: 2026-11-22")).name == "2026-11-22"
    [problem] = refused(HEAD + "train: {epochs: 1:30}\n")
    assert problem.found.endswith('got "1:30"')
    [problem] = refused(HEAD + "lora: {rank_stabilized: yes}\n")
    assert problem.cure == "write true or false"
    [problem] = refused(HEAD.replace("name: x", "name: 8"))
    assert problem.cure == "put text in quotes"


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("train.epochs", '"three"', 'must be an integer >= 1 or null, got "three"'),
        ("lora.rank", "8.5", "must be an integer >= 1, got 8.5"),
        ("lora.rank", "8.0", "must be an integer >= 1, got 8.0"),
        ("lora.rank", "true", "must be an integer >= 1, got true"),
        ("train.learning_rate", "true", "must be a number > 0 and <= 1, got true"),
        ("lora.rank_stabilized", "1", "must be true or false, got 1"),
        (
            "lora.targets",
            "q_proj",
            'must be one of all-linear, attention, mlp or a list of text, got "q_proj"',
        ),
        ("lora.targets", "[]", "must be one of all-linear, attention, mlp or a list of text, got []"),
        (
            "lora.targets",
            "[q, 3]",
            'must be one of all-linear, attention, mlp or a list of text, got ["q", 3]',
        ),
        ("evaluate.suites", "quickstart", 'must be a list of text, got "quickstart"'),
        ("data.system", "[a]", 'must be text or null, got ["a"]'),
        ("data.system", "''", 'must be text or null, got ""'),
        ("lora.rank", "null", "must be an integer >= 1, got null"),
        ("lora.rank", "{a: 1}", "must be an integer >= 1, got a mapping"),
        ("train.schedule", "cosin", 'must be one of cosine, linear, constant, got "cosin"'),
    ],
)
def test_a05_wrong_types(refused, key, text, found):
    section, _, leaf = key.partition(".")
    own = f"{section}:\n  {leaf}: {text}\n"
    head = HEAD if section != "data" else HEAD.replace("data: {", "data:\n  {").partition("data:")[0]
    rest = "" if section != "data" else "  train: rows.jsonl\n  format: dolly\n"
    [problem] = refused(head + own + rest)
    assert (problem.key, problem.found) == (key, found)


def test_a06_a_key_given_twice_names_both_lines(refused):
    problems = refused(HEAD + "lora:\n  rank: 8\n  alpha: 16\n  rank: 4\nname: y\n")
    assert [(p.where, p.key, p.found) for p in problems] == [
        ("r.yaml:7", "lora.rank", "given twice; line 5 has it too"),
        ("r.yaml:8", "name", "given twice; line 1 has it too"),
    ]


def test_a07_a_billion_laughs(refused):
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10)]
    problems = refused(HEAD + "\n".join(lines) + "\n")
    assert any("aliases" in problem.found for problem in problems)


def test_a08_recursion_and_depth(refused):
    problems = refused(HEAD + "lora: &x [*x]\n")
    assert problems[0].found == "anchors and aliases (& and *) are not allowed"
    for text in ("[" * 3000, "{a: " * 3000, "".join(" " * i + "a:\n" for i in range(300))):
        [problem] = refused("x: " + text if text[0] != " " and text[0] != "a" else text)
        assert problem.found == "nested more than 20 deep"


def test_a09_too_big_is_refused_before_it_is_read(folder, monkeypatch):
    (folder / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the file was read"))
    with pytest.raises(RecipeError, match="a recipe has at most 262144"):
        load_recipe(folder / "big.yaml")


@pytest.mark.parametrize(
    "text", ["".join(f"k{i}: 1\n" for i in range(15_000)), "k: [" + "1, " * 80_000 + "1]"]
)
def test_a09_too_many_keys_or_values(refused, text):
    [problem] = refused(HEAD + text)
    assert problem.found.startswith("more than 2000 keys and values")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch CANARY']",
        "!!python/name:os.system",
        "!!binary aGVsbG8=",
        "!!str 8",
        "!custom {a: 1}",
        "!<tag:example.org,2000:x> 1",
    ],
)
@pytest.mark.fault("P9")
def test_a10_tags_are_refused_and_nothing_runs(refused, folder, value):
    problems = refused(f"{HEAD}lora:\n  rank: {value.replace('CANARY', str(folder / 'canary'))}\n")
    assert (problems[0].where, problems[0].key) == ("r.yaml:5", "lora.rank")
    assert problems[0].found == "tags (!) are not allowed"
    assert not (folder / "canary").exists()


def test_a10_merge_keys_are_refused(refused):
    problems = refused(HEAD + "lora:\n  <<: {rank: 8}\n")
    assert [(p.where, p.key, p.found) for p in problems] == [
        ("r.yaml:5", "lora.<<", "merge keys (<<) are not allowed")
    ]


def test_a11_encodings(load, refused):
    for text in (HEAD.encode("utf-8-sig"), HEAD.replace("\n", "\r\n").encode()):
        assert load(text) == load(HEAD)
    [problem] = refused(HEAD.encode() + b"# caf\xe9\n")
    assert (problem.where, problem.found) == ("r.yaml:4", f"byte 0xe9 at offset {len(HEAD) + 5} is not UTF-8")
    [problem] = refused(HEAD.encode("utf-16"))
    assert "is not UTF-8" in problem.found


A12 = {
    "../secret.jsonl": "leads out of the recipe's directory",
    "sub/../../secret.jsonl": "leads out of the recipe's directory",
    "/etc/passwd": "is absolute",
    "link.jsonl": "leads out of the recipe's directory",
    "linked/secret.jsonl": "leads out of the recipe's directory",
    "~/rows.jsonl": "~ and $NAME are not expanded",
    "$HOME/rows.jsonl": "~ and $NAME are not expanded",
    "${HOME}/rows.jsonl": "~ and $NAME are not expanded",
    "$(pwd)/rows.jsonl": "~ and $NAME are not expanded",
    "rows\\0.jsonl": "holds a NUL byte",
    "file:///etc/passwd": "is a URL",
    "file:rows.jsonl": "is a URL",
    "https://user:pass@host/rows.jsonl": "is a URL",
    "//server/share/rows.jsonl": "is a network path",
    "\\\\\\\\server\\\\share": "is a network path",
}


@pytest.fixture
def links(folder: Path, tmp_path: Path) -> None:
    (folder / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder / "linked").symlink_to(tmp_path)


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize(("path", "found"), A12.items(), ids=[path.replace("\\", "-") for path in A12])
def test_a12_paths_stay_in_the_recipes_directory(refused, path, found):
    text = 'name: x\nbase: {model: a/b}\ndata:\n  format: dolly\n  train: rows.jsonl\n  validation: "PATH"\n'
    [problem] = refused(text.replace("PATH", path))
    assert (problem.where, problem.key) == ("r.yaml:6", "data.validation")
    assert problem.found.endswith(found)
    assert "user" not in problem.found  # a URL may hold a password


@pytest.mark.parametrize(
    "path", ["../model", "/model", "~/model", "$HOME/model", "a\\0", "https://host/m", "file:m", ".."]
)
def test_a12_holds_for_a_model_folder(refused, path):
    [problem] = refused(HEAD.replace("a/b", f'"{path}"'))
    assert problem.key == "base.model"


@pytest.mark.parametrize(
    "path", ["../s.yaml", "/s.yaml", "~/s.yaml", "$HOME", "a\\0", "https://h/s", "file:s", ".."]
)
def test_a12_holds_for_a_suite(refused, path):
    [problem] = refused(f'{HEAD}evaluate: {{suites: [quickstart, "{path}"]}}\n')
    assert problem.key == "evaluate.suites"


def test_a12_a_linked_model_folder_is_outside_too(refused, folder, tmp_path):
    (tmp_path / "model").mkdir()
    (folder / "model").symlink_to(tmp_path / "model")
    [problem] = refused(HEAD.replace("a/b", "model"))
    assert "leads out" in problem.found


def test_a12_allow_outside(load, refused, folder, tmp_path):
    for path in ("../secret.jsonl", f"{tmp_path}/secret.jsonl"):
        text = HEAD.replace("rows.jsonl", path)
        [problem] = refused(text)
        assert f"--allow-outside {tmp_path}" in problem.cure
        assert load(text, allow_outside=[tmp_path]).data.train == f"{tmp_path}/secret.jsonl"
        refused(text, allow_outside=[tmp_path / "other"])
    (folder / "sub").mkdir()
    assert load(HEAD.replace("rows.jsonl", "sub/../rows.jsonl")).data.train == f"{folder}/rows.jsonl"


def test_a12_the_command_line_is_the_users_own_will(load, refused, tmp_path):
    assert load(HEAD, f"data.train={tmp_path}/secret.jsonl").data.train == f"{tmp_path}/secret.jsonl"
    [problem] = refused(HEAD, "data.train=~/rows.jsonl")
    assert (problem.where, problem.cure) == ("command line", "write the path out")


def test_a13_the_output_directory_is_no_key(refused):
    [problem] = refused(HEAD + "output_dir: .\n")
    assert "--run-dir" in problem.cure


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("train: {steps: 5, epochs: 1}", ("train.epochs", "train.steps")),
        ("train: {steps: 5, warmup_steps: 6}", ("train.warmup_steps", "train.steps")),
        ("quantization: {compute_dtype: bfloat16}", ("quantization.compute_dtype", "quantization.method")),
    ],
)
def test_a14_contradictions_name_both_keys(refused, text, keys):
    [problem] = refused(f"{HEAD}{text}\n")
    assert all(key in str(problem) for key in keys)
    assert problem.cure


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.learning_rate", "0"),
        ("train.learning_rate", "-1e-4"),
        ("lora.rank", "0"),
        ("lora.rank", "-8"),
        ("lora.dropout", "1.0"),
        ("lora.alpha", "0"),
        ("train.steps", "0"),
        ("train.batch_size", "0"),
        ("base.dtype", "float64"),
        ("base.dtype", "float16"),
        ("data.validation_fraction", "1"),
        ("train.max_grad_norm", "0"),
    ],
)
def test_a14_numbers_out_of_range(refused, key, value):
    [problem] = refused(HEAD, f"{key}={value}")
    assert (problem.where, problem.key) == ("command line", key)
    assert problem.found.startswith("must be ")


@pytest.mark.parametrize(
    "key", ["api_key", "judge_api_key", "hf_token", "token", "password", "secret", "OPENAI_APIKEY"]
)
def test_a15_secrets_are_refused_and_never_repeated(load, refused, key):
    secret = "sk-canary-1234567890"
    for text, overrides in (
        (f"{HEAD}evaluate: {{{key}: {secret}}}\n", []),
        (HEAD, [f"evaluate.{key}={secret}"]),
    ):
        [problem] = refused(text, *overrides)
        assert secret not in json.dumps([problem.found, problem.where, problem.key, problem.cure])
        assert "environment variables" in problem.cure
    assert secret not in dump_recipe(load(HEAD))


def test_a15_a_syntax_error_does_not_quote_the_file(refused):
    assert "canary" not in "".join(map(str, refused(HEAD + "api_key: sk-canary: x\n")))


@pytest.mark.parametrize("key", ["_component_", "_target_", "type", "module", "callable"])
def test_a16_nothing_can_be_called(refused, key):
    [problem] = refused(f"{HEAD}train:\n  {key}: os.system\n")
    assert problem.found == f"unknown key '{key}' in train"


@pytest.mark.parametrize("key", ["include", "extends", "imports", "defaults"])
def test_a17_a_recipe_stands_alone(refused, key):
    [problem] = refused(f"{HEAD}{key}: r.yaml\n")
    assert (problem.where, problem.key) == ("r.yaml:4", key)
    assert problem.cure == "a recipe stands alone: copy the keys in"


def test_a_file_that_is_no_file(folder):
    os.mkfifo(folder / "fifo.yaml")
    outcome: list[BaseException] = []

    def attempt() -> None:
        try:
            load_recipe(folder / "fifo.yaml")
        except RecipeError as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert [str(error) for error in outcome] == [f"{folder}/fifo.yaml: is not a regular file"]
