"""Base and adapters on tiny models: one copy of the weights, the answers of a model opened alone."""

import pytest
import torch

from lora_kit.artifacts.adapter import save_adapter
from lora_kit.assemble import open_target, tokenizer_files
from lora_kit.errors import ModelError, RecipeError
from lora_kit.harness.comparing import answering
from lora_kit.harness.comparing.answering import OneBase, WaitingEngine, find_model, waiting_engines
from lora_kit.harness.comparing.contestants import Contestant, read_field
from lora_kit.harness.comparing.run import answer_all
from lora_kit.harness.engines.transformers_engine import TransformersEngine
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter
from lora_kit.model.base import find_base
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, EvaluateSpec, LoraSpec, QuantizationSpec

SPEC = EvaluateSpec(max_new_tokens=6)


def save(folder, base, *, seed: int, alpha: float = 8):
    """An adapter that changes answers."""
    files = find_base(BaseSpec(model=str(base)))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    adapted = add_adapter(model, LoraSpec(rank=4, alpha=alpha), files.family, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(tensor.shape, generator=generator) * 0.3 if ".lora_B." in name else tensor
        for name, tensor in adapter_tensors(adapted).items()
    }
    save_adapter(
        folder,
        tensors=tensors,
        config=adapter_config(adapted, str(base)),
        provenance={"base": {"source": str(base), "fingerprint": files.fingerprint}},
        files=tokenizer_files(files.folder),
    )
    return str(folder)


@pytest.fixture
def loads(monkeypatch):
    """How often a base was loaded."""
    found = []
    load = answering.load_model
    monkeypatch.setattr(answering, "load_model", lambda *a, **k: found.append(a) or load(*a, **k))
    return found


@pytest.fixture
def sources(tiny_llama, tmp_path):
    adapters = [save(tmp_path / name, tiny_llama, seed=seed) for name, seed in (("one", 1), ("two", 2))]
    return [f"{adapters[0]}@base", *adapters]


def test_base_and_adapters_share_one_copy_and_answer_as_if_alone(sources, small_suite, tmp_path, loads):
    field = read_field(sources, small_suite, max_new_tokens=6)
    contest = answer_all(field, SPEC, tmp_path / "out")
    assert len(loads) == 1
    assert [side.name for side in contest.sides] == ["base", "one", "two"]
    prompts = [item.messages for item in field.suite.items]
    for side, target, adapter in zip(
        contest.sides, (sources[1], *sources[1:]), (False, True, True), strict=True
    ):
        alone = open_target(target)
        engine = TransformersEngine("alone", alone.model, alone.encoder, adapter=adapter)
        said = dict(engine.generate(prompts, max_new_tokens=6, batch_size=16))
        assert [said[at].text for at in range(8)] == list(side.answers.values())
    assert len({tuple(side.answers.values()) for side in contest.sides}) == 3


def test_what_was_answered_is_not_asked_again_and_nothing_is_loaded(sources, small_suite, tmp_path, loads):
    field = read_field(sources, small_suite, max_new_tokens=6)
    first = answer_all(field, SPEC, tmp_path / "out")
    assert answer_all(field, SPEC, tmp_path / "out") == first
    assert len(loads) == 1
    lines = (tmp_path / "out" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 24


def test_another_base_is_another_copy_and_never_two_at_once(
    tiny_llama, tiny_neox, small_suite, tmp_path, loads
):
    sources = [save(tmp_path / "one", tiny_llama, seed=1), str(tiny_neox), str(tiny_llama)]
    contest = answer_all(read_field(sources, small_suite, max_new_tokens=6), SPEC, tmp_path / "out")
    assert len(loads) == 2
    assert [side.name for side in contest.sides] == ["one", tiny_neox.name, tiny_llama.name]


def test_the_adapter_is_off_its_base_afterwards(tiny_llama, tmp_path):
    files = find_model(Contestant("one", save(tmp_path / "one", tiny_llama, seed=1), "", None))
    bases = OneBase()
    ids = torch.tensor([[5, 6, 7]])
    with bases.engine("base", find_model(Contestant("base", str(tiny_llama), "", None))) as engine:
        model = engine._model
        before = model(input_ids=ids).logits
    with bases.engine("one", files) as engine:
        assert engine._model.get_base_model() is model
        assert not torch.equal(model(input_ids=ids).logits, before)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert bases.loads == 1


def test_a_fingerprint_is_of_all_that_answers_depend_on(tiny_llama, tmp_path):
    folders = [
        save(tmp_path / "one", tiny_llama, seed=1),
        save(tmp_path / "same", tiny_llama, seed=1),
        save(tmp_path / "other", tiny_llama, seed=2),
        save(tmp_path / "strong", tiny_llama, seed=1, alpha=16),
    ]
    one, same, other, strong = (find_model(Contestant("m", f, "", None)).fingerprint for f in folders)
    base = find_model(Contestant("m", folders[0], "base", None)).fingerprint
    assert one == same
    assert len({one, other, strong, base}) == 4


def test_all_are_found_before_any_is_loaded(tiny_llama, loads):
    with pytest.raises(ModelError):
        waiting_engines(
            [Contestant("a", str(tiny_llama), "", None), Contestant("b", str(tiny_llama / "no"), "", None)]
        )
    with pytest.raises(RecipeError, match="no model 'tuned' here"):
        find_model(Contestant("a", str(tiny_llama), "tuned", None))
    assert loads == []


def test_likelihoods_are_not_asked_for(tiny_llama):
    engine = WaitingEngine("a", find_model(Contestant("a", str(tiny_llama), "", None)), OneBase())
    assert not engine.measures_likelihood
