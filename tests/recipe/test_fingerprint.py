import re

from lora_kit.recipe.fingerprint import recipe_fingerprint, training_fingerprint

ONE = """\
name: first
base: {model: owner/model}
data: {train: rows.jsonl, format: dolly}
lora: {alpha: 32, rank: 8}
"""
SAME = """\
lora:
  rank: 0o10   # eight
  alpha: 3.2e1
data:
  format: "dolly"
  train: ./rows.jsonl
base:
  model: owner/model
  dtype: float32
name: first
"""


def test_blind_to_order_spelling_and_defaults(load):
    assert recipe_fingerprint(load(ONE)) == recipe_fingerprint(load(SAME))
    assert re.fullmatch("[0-9a-f]{64}", recipe_fingerprint(load(ONE)))


def test_training_does_not_depend_on_name_and_evaluation(load):
    one, other = load(ONE), load(ONE, "name=second", "evaluate.batch_size=1")
    assert recipe_fingerprint(one) != recipe_fingerprint(other)
    assert training_fingerprint(one) == training_fingerprint(other)
    assert training_fingerprint(one) != training_fingerprint(load(ONE, "train.seed=1"))


def test_a_shipped_sample_has_the_same_fingerprint_everywhere(load, folder, monkeypatch):
    text = "name: x\nbase: {model: a/b}\ndata: {train: 'sample:rows.jsonl', format: dolly}\n"
    found = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "rows.jsonl").write_text("{}\n", "utf-8")
        for module in ("load", "paths"):
            monkeypatch.setattr(
                f"lora_kit.recipe.{module}.shipped_dir", lambda _kind, name=name: folder / name
            )
        found.append(recipe_fingerprint(load(text)))
    assert found[0] == found[1]
