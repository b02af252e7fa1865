import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_kit.errors import RecipeError
from lora_kit.recipe.draft import MAX_SHOWN
from lora_kit.recipe.fingerprint import recipe_fingerprint
from lora_kit.recipe.load import dump_recipe, load_recipe, load_resolved
from lora_kit.recipe.reference import json_schema
from lora_kit.recipe.schema import EvaluateSpec, LoraSpec, QuantizationSpec, Recipe, TrainSpec
from lora_kit.recipe.shipped import shipped_dir


def test_a_minimal_recipe_gets_every_default(load, folder):
    recipe = load()
    assert recipe.name == "first"
    assert recipe.base.model == "owner/model"
    assert recipe.data.train == str(folder / "rows.jsonl")
    assert (recipe.lora, recipe.quantization) == (LoraSpec(), QuantizationSpec())
    assert (recipe.train, recipe.evaluate) == (TrainSpec(), EvaluateSpec())


def test_numbers_lists_and_null(load, minimal):
    recipe = load(
        minimal
        + "train: {learning_rate: 2e-4, max_grad_norm: null}\nlora: {alpha: 32, targets: [q_proj, v_proj]}\n"
    )
    assert recipe.train.learning_rate == 0.0002
    assert recipe.train.max_grad_norm is None
    assert (recipe.lora.alpha, type(recipe.lora.alpha)) == (32.0, float)
    assert recipe.lora.targets == ("q_proj", "v_proj")


def test_a_recipe_is_frozen(load):
    with pytest.raises(ValueError, match="frozen"):
        load().train.seed = 3


def test_all_problems_come_at_once_and_in_order(refused, minimal):
    problems = refused(
        minimal.replace("first", "no way").replace("dolly", "doly")
        + "lora:\n  rank: 0\n  rang: 8\ntrain:\n  steps: 3\n  epochs: 2\n  seed: 1.5\n",
        "train.batch_size=x",
        "lora.dropuot=0.1",
        "data.train=nowhere.jsonl",
    )
    assert [(p.where, p.key) for p in problems] == [
        ("command line", "lora.dropuot"),
        ("command line", "data.train"),
        ("command line", "train.batch_size"),
        ("r.yaml:1", "name"),
        ("r.yaml:6", "data.format"),
        ("r.yaml:8", "lora.rank"),
        ("r.yaml:9", "lora.rang"),
        ("r.yaml:12", "train.epochs"),
        ("r.yaml:13", "train.seed"),
    ]


def test_a_problem_is_one_line_with_place_key_finding_and_cure(load, minimal, folder):
    with pytest.raises(RecipeError) as caught:
        load(minimal + "lora:\n  rang: 8\n")
    assert (
        str(caught.value) == f"{folder}/r.yaml:8: lora.rang: unknown key 'rang' in lora; did you mean 'rank'?"
    )


def test_missing_keys_point_at_their_section(refused):
    problems = refused("name: x\n\ndata:\n  train: rows.jsonl\n")
    assert [(p.where, p.key, p.found) for p in problems] == [
        ("r.yaml", "base.model", "is missing"),
        ("r.yaml:3", "data.format", "is missing"),
    ]
    assert "alpaca, dolly, messages" in problems[1].cure


def test_a_long_list_of_problems_is_cut(refused, minimal):
    problems = refused(minimal + "lora:\n" + "".join(f"  x{i}: 1\n" for i in range(50)))
    assert len(problems) == MAX_SHOWN + 1
    assert problems[-1].found == "... and 30 more"


def test_a_section_must_be_a_section(refused, minimal):
    [problem] = refused(minimal + "lora: 8\n", "lora.rank=4")
    assert (problem.where, problem.key, problem.found) == ("r.yaml:7", "lora", "is a section of keys, got 8")
    assert "rank" in problem.cure


# --- back to text -------------------------------------------------------------------------------------------


def values_of(schema: dict, definitions: dict) -> st.SearchStrategy:
    """Values that a JSON Schema of the recipe takes."""
    if "$ref" in schema:
        return values_of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return st.one_of([values_of(option, definitions) for option in schema["anyOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if schema["type"] == "object":
        return objects_of(schema, definitions)
    if schema["type"] == "array":
        return st.lists(
            values_of(schema["items"], definitions), min_size=schema.get("minItems", 0), max_size=4
        )
    return scalars_of(schema)


def objects_of(schema: dict, definitions: dict) -> st.SearchStrategy:
    if "properties" in schema:
        return st.fixed_dictionaries({k: values_of(v, definitions) for k, v in schema["properties"].items()})
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
    return st.dictionaries(names, values_of(schema["additionalProperties"], definitions), max_size=3)


def scalars_of(schema: dict) -> st.SearchStrategy:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    opened = {f"exclude_{end}": True for end in ("min", "max") if f"exclusive{end.title()}imum" in schema}
    texts = st.text(
        st.characters(exclude_categories=["Cs"]), min_size=schema.get("minLength", 0), max_size=30
    )
    return {
        "number": st.floats(low, high, allow_nan=False, allow_infinity=False, **opened),
        "integer": st.integers(low, high) if not opened else st.nothing(),
        "boolean": st.booleans(),
        "null": st.none(),
        "string": st.from_regex(schema["pattern"].replace("$", r"\Z")) if "pattern" in schema else texts,
    }[schema["type"]]


def recipes() -> st.SearchStrategy[Recipe]:
    schema = json_schema()

    def absolute(plain: dict) -> Recipe:
        for key in ("train", "validation"):
            if plain["data"][key] is not None:
                plain["data"][key] = "/" + plain["data"][key]
        return Recipe.model_validate(plain)

    return values_of(schema, schema["$defs"]).map(absolute)


@given(recipe=recipes())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_load_of_dump_is_the_recipe(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), "utf-8", newline="")
    again = load_resolved(path)
    assert again == recipe
    assert recipe_fingerprint(again) == recipe_fingerprint(recipe)
    assert dump_recipe(again) == dump_recipe(recipe)


def test_a_resolved_recipe_holds_every_key_and_shipped_samples_by_name(load, folder):
    recipe = load("name: x\nbase: {model: a/b}\ndata: {train: sample:alpaca_sample.json, format: alpaca}\n")
    assert recipe.data.train == str(shipped_dir("data") / "alpaca_sample.json")
    text = dump_recipe(recipe)
    assert '  train: "sample:alpaca_sample.json"' in text
    (folder / "resolved.yaml").write_text(text, "utf-8")
    assert load_resolved(folder / "resolved.yaml") == recipe
    assert load_recipe(folder / "resolved.yaml") == recipe


def test_the_data_of_a_resolved_recipe_may_be_gone(load, folder):
    recipe = load()
    (folder / "resolved.yaml").write_text(dump_recipe(recipe), "utf-8")
    (folder / "rows.jsonl").unlink()
    assert load_resolved(folder / "resolved.yaml") == recipe


# --- whatever the bytes -------------------------------------------------------------------------------------

NASTY = [
    b"&a ", b"*a", b"!!str ", b"!<tag:x> ", b"<<: ", b"%YAML 1.1\n", b"---\n", b"...\n", b"? ", b": ", b"- ",
    b"[", b"]", b"{", b"}", b"'", b'"', b"|\n", b">-\n", b"@", b"`", b"\\", b"\t", b"\r", b"\x00", b"\xff",
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b'"\\U00110000"', b'"\\ud800"', b"train.steps: 1\n",
]  # fmt: skip
VALUES = [
    b"1", b"0", b"-1", b"0.5", b"1e999", b"9" * 400, b".nan", b"null", b"true", b"''", b"text", b"x" * 5000,
    b"[]", b"[1, a]", b"{a: 1}", b"../x", b"~/x", b"$HOME", b"sample:", b"package:", b"https://u:p@h/x", b"/",
    b".", b'"\\0"', b"\xc3\xa9",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four edits: a value, a line or a few bytes."""
    for _ in range(rng.randint(1, 4)):
        lines = data.splitlines(keepends=True) or [b""]
        line = rng.randrange(len(lines))
        at = rng.randrange(len(data) + 1)
        kind = rng.choice(["value"] * 5 + ["line", "cut", "insert"])
        if kind == "value" and b": " in lines[line]:
            lines[line] = lines[line].partition(b":")[0] + b": " + rng.choice(VALUES) + b"\n"
        elif kind == "line":
            lines[line] = rng.choice([b"", lines[line] * 2, b" " + lines[line]])
        elif kind == "cut":
            lines = [data[:at], data[at + rng.randint(1, 20) :]]
        else:
            lines = [data[:at], rng.choice([*NASTY, bytes([rng.randrange(256)])]), data[at:]]
        data = b"".join(lines)
    return data


def test_mutated_recipes_raise_nothing_but_recipe_errors(load, minimal, folder):
    whole = re.sub(r"^#.*\n", "", dump_recipe(load(minimal))).replace(str(folder) + "/", "").encode()
    outcomes = {"loaded": 0, "refused": 0}
    lines: list[str] = []
    for seed in range(300):
        try:
            load(mutated(whole, random.Random(seed)))
            outcomes["loaded"] += 1
        except RecipeError as error:
            outcomes["refused"] += 1
            lines += [str(problem) for problem in error.problems]
    assert min(outcomes.values()) > 3
    assert max(len(line) for line in lines) < 1000
    assert not any("\n" in line for line in lines)
