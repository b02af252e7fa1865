import pytest


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.learning_rate=1e-4", "train", "learning_rate", 0.0001),
        ("train.steps=24", "train", "steps", 24),
        ("train.max_grad_norm=null", "train", "max_grad_norm", None),
        ("data.system=", "data", "system", None),
        ("data.system=You are: kind # really", "data", "system", "You are: kind # really"),
        ("data.system='8'", "data", "system", "8"),
        ("data.system=a=b", "data", "system", "a=b"),
        ("lora.targets=[q_proj, 'v_proj']", "lora", "targets", ("q_proj", "v_proj")),
        ("lora.rank_stabilized=true", "lora", "rank_stabilized", True),
        ("data.system={a: b}", "data", "system", "{a: b}"),
        ("data.fields={instruction: question}", "data", "fields", {"instruction": "question"}),
        ("data.options={languages: [en]}", "data", "options", {"languages": ("en",)}),
        ("evaluate.suites=[]", "evaluate", "suites", ()),
    ],
)
def test_values_are_yaml_scalars_or_lists(load, minimal, override, section, key, value):
    assert getattr(getattr(load(minimal, override), section), key) == value


def test_the_last_of_a_key_wins_and_a_name_needs_no_section(load, minimal):
    recipe = load(minimal, "train.seed=1", "name=second", "train.seed=2")
    assert (recipe.name, recipe.train.seed) == ("second", 2)


def test_an_override_mends_the_file(load, minimal):
    assert load(
        minimal.replace("rows.jsonl", "gone.jsonl"),
        "base.dtype=bfloat16",
        "data.train=sample:alpaca_sample.json",
    )


@pytest.mark.parametrize(
    ("override", "key", "found", "cure"),
    [
        ("train.steps", "train.steps", "not KEY=VALUE", "train.steps=100"),
        ("train=3", "train", "is a whole section", "train.KEY=VALUE"),
        ("trian.steps=3", "trian.steps", "unknown section 'trian'", "did you mean 'train.steps'?"),
        (
            "train.lerning_rate=3",
            "train.lerning_rate",
            "unknown key 'lerning_rate' in train",
            "'learning_rate'",
        ),
        ("rank=3", "rank", "unknown key 'rank'", "did you mean 'lora.rank'?"),
        ("train.steps.x=3", "train.steps.x", "unknown section 'train.steps'", "'train.steps'"),
        ("train.steps=1_000", "train.steps", 'must be an integer >= 1 or null, got "1_000"', "write 1000"),
        ("lora.targets=[a", "lora.targets", "not YAML", "never closed"),
        ("lora.targets=[*a]", "lora.targets", "anchors and aliases", "write the value out"),
        ("lora.targets=[{a: 1}]", "lora.targets", "must be one of", ""),
        ("data.system='a' 'b'", "data.system", "not YAML", ""),
        ("", "", "not KEY=VALUE", "train.steps=100"),
        ("=3", "", "unknown key ''", "known sections"),
    ],
)
def test_problems_are_placed_on_the_command_line(refused, minimal, override, key, found, cure):
    [problem] = refused(minimal, override)
    assert (problem.where, problem.key) == ("command line", key)
    assert found in problem.found
    assert cure in problem.cure
