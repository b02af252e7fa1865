"""Every family of the catalogue has every property that is promised; `scripts/conformance` prints the table.

Compared with transformers, peft and bitsandbytes themselves, on tiny random models.
"""

import copy
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from lora_kit.catalogue import FAMILIES
from lora_kit.data.collate import MicroBatch, flatten, pad, share
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.types import Example, Message
from lora_kit.harness.engines.transformers_engine import TransformersEngine
from lora_kit.model.adapter_inject import (
    adapter_config,
    adapter_parameters,
    adapter_tensors,
    add_adapter,
    attach_adapter,
    load_adapter_tensors,
)
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.model.load import load_model
from lora_kit.model.quantize import dequantized_weights
from lora_kit.model.token_rows import row_parameters
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

EXACT = 1e-12  # per trained token, in float64
UNTIED = {"tie_word_embeddings": False}  # with a tied head a random model repeats one token for ever
RANK = LoraSpec(rank=4, alpha=8)


class Tiny:
    """A family's tiny model on disk."""

    def __init__(self, family: str, folder: Path) -> None:
        self.name = family
        self.files: BaseFiles = find_base(BaseSpec(model=str(folder)))
        self.collate: Callable[[Sequence[Example]], MicroBatch] = (
            flatten if self.files.family.flattened else pad
        )

    def open(self, dtype: str = "float64", method: str = "none") -> Any:
        return load_model(self.files, dtype=dtype, quantization=QuantizationSpec(method=method), device="cpu")

    def tuned(self, dtype: str = "float64", method: str = "none") -> PeftModel:
        """With an adapter that changes the answers."""
        model = add_adapter(self.open(dtype, method), RANK, self.files.family, seed=3)
        generator = torch.Generator().manual_seed(5)
        values = {
            name: torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.1
            for name, p in sorted(adapter_parameters(model).items())
        }
        load_adapter_tensors(model, values)
        return model

    def moved(self, spec: LoraSpec, tokens: Sequence[int] = ()) -> PeftModel:
        """With an adapter of some kind, a way from where it began."""
        model = add_adapter(self.open(), spec, self.files.family, seed=3, tokens=tokens)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for _, parameter in sorted((adapter_parameters(model) | row_parameters(model)).items()):
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(noise, alpha=0.1)
        return model


@pytest.fixture(params=list(FAMILIES))
def tiny(request: pytest.FixtureRequest, tiny_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    keep_float64(monkeypatch)
    return Tiny(request.param, tiny_folder(request.param))


def keep_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers takes softmaxes and norms in float32 whatever a model is in, which is noise of 1e-8."""
    softmax, to, single = torch.nn.functional.softmax, Tensor.to, Tensor.float

    def precise_softmax(scores: Tensor, dim: int, dtype: Any = None, **options: Any) -> Tensor:
        wide = scores.dtype if scores.dtype == torch.float64 else dtype
        return softmax(scores, dim=dim, dtype=wide, **options)

    def precise_to(x: Tensor, *args: Any, **options: Any) -> Tensor:
        narrows = x.dtype == torch.float64 and (*args, options.get("dtype"))[0] == torch.float32
        return x if narrows else to(x, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "softmax", precise_softmax)
    monkeypatch.setattr(Tensor, "to", precise_to)
    monkeypatch.setattr(Tensor, "float", lambda x: x if x.dtype == torch.float64 else single(x))


def random_rows(seed: int, count: int = 6, longest: int = 24) -> list[Example]:
    """Rows of uneven lengths; the answer is trained, now and then also an island before it."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        length = draw.randint(2, longest)
        first = draw.randint(1, length - 1)
        ids = tuple(draw.randrange(4, 300) for _ in range(length))
        trained = tuple(t >= first or (t > 0 and draw.random() < 0.1) for t in range(length))
        rows.append(Example(ids, trained, f"rows.jsonl:{number + 1}", f"{number:064x}"))
    return rows


def reference_nats(model: Any, row: Example) -> Tensor:
    """One row by itself through the whole model, as transformers and torch do it."""
    ids = torch.tensor([row.input_ids])
    targets = torch.where(torch.tensor([row.trained]), ids, -100)[:, 1:]
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="sum")


def gradients(model: PeftModel, losses: Sequence[Tensor], tokens: int) -> dict[str, Tensor]:
    for loss in losses:
        loss.backward()
    found = {name: p.grad / tokens for name, p in adapter_parameters(model).items()}
    model.zero_grad()
    return found


def logits_of(model: Any, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long(), use_cache=False
        ).logits[0]


def plain(folder: Path, dtype: torch.dtype = torch.float64) -> Any:
    """As transformers itself opens a folder."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


IDS = tuple(range(7, 27))


def test_gradients(tiny: Tiny) -> None:
    """Any split of rows into micro-batches has the gradient of transformers' rows, one by one."""
    model, rows = tiny.tuned(), random_rows(1)
    tokens = sum(sum(row.trained) for row in rows)
    expected = gradients(model, [reference_nats(model, row) for row in rows], tokens)
    assert max(one.abs().max().item() for one in expected.values()) > 1e-3  # not a comparison of zeros
    for groups in ([rows], [rows[:2], rows[2:]], [[row] for row in reversed(rows)]):
        found = gradients(model, [sum_nats(model, tiny.collate(group)).nats for group in groups], tokens)
        assert max((found[name] - expected[name]).abs().max().item() for name in expected) <= EXACT


def test_isolation(tiny: Tiny) -> None:
    """A row's nats are the same alone, beside others, beside changed ones, and with a shared beginning."""
    model, rows = tiny.tuned(), random_rows(2)
    together = example_nats(model, tiny.collate(rows))
    alone = torch.cat([example_nats(model, tiny.collate([row])) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    other = Example(tuple(303 - t for t in rows[2].input_ids), rows[2].trained, "x:1", "0" * 64)
    changed = example_nats(model, tiny.collate([*rows[:2], other, *rows[3:]]))
    kept = [0, 1, 3, 4, 5]
    assert changed[2] != together[2]
    torch.testing.assert_close(changed[kept], together[kept], rtol=0, atol=1e-12)
    if tiny.files.family.flattened:
        begun = [
            Example(IDS + r.input_ids, (False,) * len(IDS) + r.trained, r.origin, r.content_hash)
            for r in rows
        ]
        shared, each = example_nats(model, share(begun)), example_nats(model, flatten(begun))
        torch.testing.assert_close(shared, each, rtol=1e-12, atol=1e-12)


def test_adapter(tiny: Tiny) -> None:
    """The adapter computes what peft computes with the same weights on transformers' own model."""
    ours = tiny.tuned()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=adapter_config(ours, "x")["target_modules"])
    theirs = get_peft_model(plain(tiny.files.folder), config).eval()
    values = {name.replace(".weight", ".default.weight"): t for name, t in adapter_tensors(ours).items()}
    assert not theirs.load_state_dict(values, strict=False).unexpected_keys
    assert {n for n, p in theirs.named_parameters() if p.requires_grad} == values.keys()
    torch.testing.assert_close(logits_of(ours, IDS), logits_of(theirs, IDS), rtol=1e-11, atol=1e-11)
    with ours.disable_adapter():
        base = logits_of(ours, IDS)
    torch.testing.assert_close(base, logits_of(plain(tiny.files.folder), IDS), rtol=1e-11, atol=1e-11)
    assert (logits_of(ours, IDS) - base).abs().max() > 0.01


def test_merge(tiny: Tiny, tmp_path: Path) -> None:
    """Base + scaling x BA, written as a plain model, gives the adapter's logits."""
    ours = tiny.tuned()
    tensors, weights = adapter_tensors(ours), load_file(tiny.files.folder / "model.safetensors")
    weights = {name: tensor.double() for name, tensor in weights.items()}
    names = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    for name in names:
        delta = 2.0 * tensors[name + ".lora_B.weight"] @ tensors[name + ".lora_A.weight"]
        weights[name.removeprefix("base_model.model.") + ".weight"] += delta
    for file in tiny.files.folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    merged = Tiny(tiny.name, tmp_path)
    assert merged.files.fingerprint != tiny.files.fingerprint
    expected = logits_of(ours, IDS)
    torch.testing.assert_close(logits_of(merged.open(), IDS), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(logits_of(plain(tmp_path), IDS), expected, rtol=1e-11, atol=1e-11)


def test_save_and_reload(tiny: Tiny, tmp_path: Path) -> None:
    """Adapter files bring back the same bits, here and in peft."""
    ours = tiny.tuned("float32")
    config, tensors = adapter_config(ours, str(tiny.files.folder)), adapter_tensors(ours)
    again = attach_adapter(tiny.open("float32"), config, copy.deepcopy(tensors)).eval()
    expected = logits_of(ours, IDS)
    assert torch.equal(logits_of(again, IDS), expected)
    save_file(tensors, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    ours.peft_config["default"].save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(plain(tiny.files.folder, torch.float32), tmp_path).eval()
    torch.testing.assert_close(logits_of(theirs, IDS), expected, rtol=1e-4, atol=1e-4)


def test_nf4(tiny: Tiny) -> None:
    """4-bit layers compute, forward and backward, what their unpacked weights do; the head stays dense."""
    as_its_unpacked_weights(tiny, "nf4")


def test_int8(tiny: Tiny) -> None:
    """8-bit layers, too; their weights are nearer to the base's."""
    as_its_unpacked_weights(tiny, "int8")
    exact = logits_of(tiny.open("float32"), IDS)
    eight, four = ((logits_of(tiny.open("float32", m), IDS) - exact).abs().mean() for m in ("int8", "nf4"))
    assert 0 < eight < 0.3 * four


def as_its_unpacked_weights(tiny: Tiny, method: str) -> None:
    pytest.importorskip("bitsandbytes")
    ours = tiny.tuned("float32", method)
    dense = dequantized_weights(ours)
    held = {
        name for name, module in tiny.open("float32").named_modules() if isinstance(module, torch.nn.Linear)
    }
    assert dense.keys() == held - {"lm_head", "embed_out"}
    reference = tiny.tuned("float32")
    with torch.no_grad():
        for name, module in reference.get_base_model().named_modules():
            if name.removesuffix(".base_layer") in dense and hasattr(module, "weight"):
                module.weight.copy_(dense[name.removesuffix(".base_layer")]())
    torch.testing.assert_close(logits_of(ours, IDS), logits_of(reference, IDS), rtol=1e-4, atol=1e-4)
    batch = tiny.collate(random_rows(3, 3))
    found, expected = (gradients(model, [sum_nats(model, batch).nats], 1) for model in (ours, reference))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-3)


def test_pissa(tiny: Tiny) -> None:
    """It begins as its base, learns as LoRA on W - scaling B0 A0 in any split, and is saved as LoRA on W."""
    spec, rows = LoraSpec(rank=4, alpha=8, init="pissa"), random_rows(6, 4)
    fresh = add_adapter(tiny.open(), spec, tiny.files.family, seed=3)
    torch.testing.assert_close(logits_of(fresh, IDS), logits_of(tiny.open(), IDS), rtol=1e-10, atol=1e-10)
    ours, rest = tiny.moved(spec), tiny.moved(RANK)
    first = {name: tensor.double() for name, tensor in adapter_tensors(ours).items()}
    with torch.no_grad():
        for name, module in rest.named_modules():
            if (down := first.get(f"{name}.lora_A.weight")) is not None:
                module.base_layer.weight += 2.0 * first[f"{name}.lora_B.weight"][:, 4:] @ down[4:]
        for name, parameter in adapter_parameters(rest).items():
            parameter.copy_(adapter_parameters(ours)[name])
    expected = gradients(rest, [reference_nats(rest, row) for row in rows], 100)
    for groups in ([rows], [rows[:1], rows[1:]]):
        found = gradients(ours, [sum_nats(ours, tiny.collate(group)).nats for group in groups], 100)
        assert max((found[name] - expected[name]).abs().max().item() for name in expected) <= EXACT
    again = attach_adapter(tiny.open(), adapter_config(ours, "x"), adapter_tensors(ours))
    torch.testing.assert_close(logits_of(again, IDS), logits_of(ours, IDS), rtol=1e-10, atol=1e-10)


def test_dora(tiny: Tiny, tmp_path: Path) -> None:
    """Any split has the gradient of peft's DoRA; saved, it is the same bits here, and the same in peft."""
    ours, rows = tiny.moved(LoraSpec(rank=4, alpha=8, dora=True)), random_rows(7, 4)
    config, tensors = adapter_config(ours, str(tiny.files.folder)), adapter_tensors(ours)
    save_file(tensors, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    ours.peft_config["default"].save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(plain(tiny.files.folder), tmp_path, is_trainable=True).eval()
    torch.testing.assert_close(logits_of(ours, IDS), logits_of(theirs, IDS), rtol=1e-11, atol=1e-11)
    expected = gradients(theirs, [reference_nats(theirs, row) for row in rows], 100)
    assert sum(name.endswith("lora_magnitude_vector") for name in expected) == len(expected) // 3
    for groups in ([rows], [rows[:1], rows[1:]]):
        found = gradients(ours, [sum_nats(ours, tiny.collate(group)).nats for group in groups], 100)
        assert max((found[name] - expected[name]).abs().max().item() for name in expected) <= EXACT
    again = attach_adapter(tiny.open(), config, tensors)
    assert torch.equal(logits_of(again, IDS), logits_of(ours, IDS))
    with ours.disable_adapter():
        base = logits_of(ours, IDS)
    torch.testing.assert_close(base, logits_of(plain(tiny.files.folder), IDS), rtol=1e-11, atol=1e-11)


def test_token_rows(tiny: Tiny, tmp_path: Path) -> None:
    """Rows of embedding and head: any split has peft's gradient; on, off and saved they are peft's."""
    rows = random_rows(8, 4)
    ids = list(dict.fromkeys(row.input_ids[0] for row in rows))  # what all that follows depends on
    ours = tiny.moved(RANK, ids)
    config, tensors = adapter_config(ours, str(tiny.files.folder)), adapter_tensors(ours)
    save_file(tensors, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    ours.peft_config["default"].save_pretrained(tmp_path)
    theirs = PeftModel.from_pretrained(plain(tiny.files.folder), tmp_path, is_trainable=True).eval()
    expected_logits = logits_of(theirs, IDS)
    torch.testing.assert_close(logits_of(ours, IDS), expected_logits, rtol=1e-11, atol=1e-11)
    reference = [reference_nats(theirs, row) for row in rows]
    sum(reference).backward()
    wanted = {n: p.grad for n, p in theirs.named_parameters() if p.requires_grad and "trainable_tokens" in n}
    assert len(wanted) == len(row_parameters(ours))
    for groups in ([rows], [rows[:1], rows[1:]]):
        ours.zero_grad()
        for group in groups:
            sum_nats(ours, tiny.collate(group)).nats.backward()
        for name, parameter in row_parameters(ours).items():
            gradient = wanted[f"{name}.default"]
            assert (parameter.grad - gradient).abs().max() <= 100 * EXACT
            assert gradient.abs().amax(1).min() > 1e-6
    again = attach_adapter(tiny.open(), config, tensors)
    assert torch.equal(logits_of(again, IDS), logits_of(ours, IDS))
    with ours.disable_adapter():
        base = logits_of(ours, IDS)
    torch.testing.assert_close(base, logits_of(plain(tiny.files.folder), IDS), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(logits_of(ours, IDS), expected_logits, rtol=1e-11, atol=1e-11)


def test_generation(tiny: Tiny, tiny_folder: Any) -> None:
    """Greedy answers to uneven prompts are those of transformers' generate(), adapter on and off."""
    free = Tiny(tiny.name, tiny_folder(tiny.name, **UNTIED))
    model, encoder = free.tuned(), open_encoder(free.files.folder, "model", None)
    words = ["hi", "what is the answer to this question?", "the dog " * 9, "and then?", "the sun"]
    prompts = [[Message("user", text)] for text in words]
    given = [encoder.encode_prompt(prompt) for prompt in prompts]
    for adapter in (True, False):
        engine = TransformersEngine("m", model, encoder, adapter=adapter)
        found = dict(engine.generate(prompts, max_new_tokens=8, batch_size=3))
        with model.disable_adapter() if not adapter else torch.no_grad():
            expected = [by_transformers(model.get_base_model(), ids, encoder.stop_ids) for ids in given]
        for index, ids in enumerate(expected):
            assert found[index].tokens == len(ids)
            stopped = ids[-1] in encoder.stop_ids
            assert found[index].text == encoder.decode_answer(ids[:-1] if stopped else ids)
        assert len({found[index].text for index in found}) > 2


def by_transformers(model: Any, prompt: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    config = GenerationConfig(
        do_sample=False, max_new_tokens=8, eos_token_id=list(stop_ids), pad_token_id=0, use_cache=True
    )
    ids = torch.tensor([list(prompt)])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return output[0, len(prompt) :].tolist()
