"""The quick decoder and the quick LoRA layers compute what transformers and peft do (float64, 1e-12)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.models.llama import modeling_llama

from lora_kit.catalogue import FAMILIES
from lora_kit.data.collate import flatten, pad
from lora_kit.model import fused_llama, fused_ops, lora_layers, lora_ops
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter, load_adapter_tensors
from lora_kit.model.attention import register_segment_attention
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.model.memory import keep_freed_memory, map_large_blocks, recompute_layers
from lora_kit.recipe.schema import LoraSpec

TOLERANCE = 1e-12
SOME = ("q_proj", "v_proj", "up_proj")


@pytest.fixture(autouse=True)
def norms_that_do_not_round(monkeypatch: Any) -> None:
    """transformers' RMSNorm rounds float64 to float32, which is noise of 1e-8."""

    def norm(self: Any, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm)


def config_of(family: str, bias: bool) -> tuple[Any, Any]:
    if family == "llama":
        return LlamaForCausalLM, LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_bias=bias,
            mlp_bias=bias,
            tie_word_embeddings=not bias,
        )
    if family == "gpt_neox":
        return GPTNeoXForCausalLM, GPTNeoXConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            use_parallel_residual=bias,
        )
    return BloomForCausalLM, BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4)


def model_of(
    family: str = "llama", *, bias: bool = False, dtype: torch.dtype = torch.float64, **lora: Any
) -> Any:
    torch.manual_seed(0)
    kind, config = config_of(family, bias)
    options = {"attn_implementation": register_segment_attention()} if family != "bloom" else {}
    model = kind._from_config(config, dtype=dtype, **options)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # biases too
    model.requires_grad_(requires_grad=False)
    adapted = add_adapter(model, LoraSpec(rank=4, **lora), FAMILIES[family], seed=0).train()
    load_adapter_tensors(
        adapted, {name: 0.1 * torch.randn_like(p) for name, p in adapter_parameters(adapted).items()}
    )
    return adapted


def by_peft(model: Any, monkeypatch: Any) -> None:
    """Take everything quick away."""
    monkeypatch.setattr(fused_llama, "fits", lambda _: False)
    for module in model.modules():
        vars(module).pop("forward", None)


def gradients(model: Any, batch: Any) -> tuple[float, dict[str, Tensor]]:
    loss = sum_nats(model, batch)
    (loss.nats / loss.tokens).backward()
    found = {name: p.grad.clone() for name, p in adapter_parameters(model).items()}
    model.zero_grad()
    return loss.nats.item() / loss.tokens, found


def assert_close(one: Any, two: Any) -> None:
    assert one[0] == pytest.approx(two[0], rel=TOLERANCE)
    largest = max(gradient.abs().max() for gradient in two[1].values())
    assert largest > 1e-2  # not a comparison of zeros
    assert all((one[1][name] - two[1][name]).abs().max() <= TOLERANCE * max(largest, 1) for name in two[1])


@pytest.mark.parametrize(
    "targets", ["all-linear", "attention", "mlp", SOME, ("o_proj", "down_proj")], ids=str
)
@pytest.mark.parametrize("bias", [False, True])
def test_llama_has_the_gradients_of_peft_and_transformers(
    examples: Callable[..., Any], monkeypatch: Any, targets: Any, bias: bool
) -> None:
    model = model_of(targets=targets, bias=bias, rank_stabilized=bias)
    batch = flatten(examples(5, 7))
    assert fused_llama.fits(model.get_base_model())
    quick = gradients(model, batch)
    each = example_nats(model, batch)
    by_peft(model, monkeypatch)
    assert_close(quick, gradients(model, batch))
    assert torch.allclose(each, example_nats(model, batch), rtol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("family", ["gpt_neox", "bloom"])
def test_other_families_have_the_gradients_of_peft(
    examples: Callable[..., Any], monkeypatch: Any, family: str, bias: bool
) -> None:
    model = model_of(family, bias=bias)
    batch = (pad if family == "bloom" else flatten)(examples(5, 7))
    calls = []
    linear = lora_layers.linear
    monkeypatch.setattr(lora_layers, "linear", lambda *given: (calls.append(1), linear(*given))[1])
    quick = gradients(model, batch)
    assert len(calls) == 8
    by_peft(model, monkeypatch)
    # BLOOM's softmax is in float32, which is noise of 1e-8 wherever the order of additions differs.
    if family == "gpt_neox":
        assert_close(quick, gradients(model, batch))
    else:
        slow = gradients(model, batch)
        assert all(torch.allclose(quick[1][name], slow[1][name], atol=1e-6) for name in slow[1])


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bloom"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_recomputed_layers_have_the_same_gradients_to_the_bit(
    examples: Callable[..., Any], family: str, dropout: float
) -> None:
    model = model_of(family, dropout=dropout)
    batch = (pad if family == "bloom" else flatten)(examples(5, 9))
    torch.manual_seed(11)
    kept = gradients(model, batch)
    recompute_layers(model)
    torch.manual_seed(11)
    again = gradients(model, batch)
    assert kept[0] == again[0]
    assert all(torch.equal(kept[1][name], again[1][name]) for name in kept[1])


def test_recomputing_keeps_less(examples: Callable[..., Any]) -> None:
    def kept_bytes(model: Any) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = sum_nats(model, flatten(examples(6, 3)))
        assert loss.nats.requires_grad
        return sum(sizes.values())

    standard, low = model_of(), model_of()
    recompute_layers(low)
    assert kept_bytes(low) < 0.5 * kept_bytes(standard)


def test_dropout_is_peft_s(examples: Callable[..., Any], monkeypatch: Any) -> None:
    """All of x dropped or none: with a probability next to 0 the result is that without dropout."""
    batch = flatten(examples(5, 4))
    plain, quick = model_of(dropout=0.0), model_of(dropout=1e-9)
    assert gradients(plain, batch)[0] == pytest.approx(gradients(quick, batch)[0], rel=1e-7)
    noisy = model_of(dropout=0.5)
    losses = []
    for seed in range(30):
        torch.manual_seed(seed)
        losses.append(gradients(noisy, batch)[0])
    by_peft(noisy, monkeypatch)
    expected = []
    for seed in range(30):
        torch.manual_seed(seed)
        expected.append(gradients(noisy, batch)[0])
    one, two = torch.tensor(losses), torch.tensor(expected)
    error = (one.var() / len(one) + two.var() / len(two)).sqrt()
    assert abs(one.mean() - two.mean()) < 4 * error
    assert 0.6 < one.std() / two.std() < 1.7
    noisy.eval()
    assert gradients(noisy, batch)[0] == pytest.approx(gradients(plain, batch)[0], rel=1e-12)


def test_dropout_gradient_is_that_of_its_own_loss(examples: Callable[..., Any]) -> None:
    batch = flatten(examples(3, 4))
    model = model_of(dropout=0.5)

    def loss() -> float:
        torch.manual_seed(3)
        return sum_nats(model, batch).nats.item()

    torch.manual_seed(3)
    sum_nats(model, batch).nats.backward()
    with torch.no_grad():
        for name, parameter in list(adapter_parameters(model).items())[::5]:
            flat, step = parameter.view(-1), 1e-5
            assert parameter.grad is not None
            for index in (0, flat.numel() // 2):
                before = flat[index].item()
                flat[index] = before + step
                above = loss()
                flat[index] = before - step
                below = loss()
                flat[index] = before
                wanted = (above - below) / (2 * step)
                assert parameter.grad.view(-1)[index].item() == pytest.approx(wanted, rel=1e-5, abs=1e-6), (
                    name
                )


def test_the_adapter_can_be_switched_off_merged_and_loaded(examples: Callable[..., Any]) -> None:
    batch = flatten(examples(4, 4))
    model = model_of()
    tuned = example_nats(model, batch)
    bare = model_of(targets=("q_proj",))
    with model.disable_adapter(), bare.disable_adapter():
        assert torch.equal(example_nats(model, batch), example_nats(bare, batch))
        assert not torch.allclose(example_nats(model, batch), tuned)
    model.merge_adapter()
    assert torch.allclose(example_nats(model, batch), tuned, rtol=1e-10)
    model.unmerge_adapter()
    assert torch.allclose(example_nats(model, batch), tuned, rtol=1e-10)
    zeros = {name: torch.zeros_like(p) for name, p in adapter_parameters(model).items()}
    load_adapter_tensors(model, zeros)
    with bare.disable_adapter():
        assert torch.allclose(example_nats(model, batch), example_nats(bare, batch), rtol=1e-10)


def test_weights_that_were_put_elsewhere_are_packed_again(examples: Callable[..., Any]) -> None:
    model, batch = model_of(), flatten(examples(4, 4))
    before = example_nats(model, batch)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    assert torch.equal(example_nats(model, batch), before)
    load_adapter_tensors(model, {name: torch.ones_like(p) for name, p in adapter_parameters(model).items()})
    assert not torch.allclose(example_nats(model, batch), before)


@pytest.mark.parametrize("why", ["bfloat16", "autocast", "other adapter", "trainable norm"])
def test_what_is_not_plain_is_left_to_peft(examples: Callable[..., Any], why: str) -> None:
    model = model_of(dtype=torch.bfloat16 if why == "bfloat16" else torch.float32)
    base = model.get_base_model()
    if why == "other adapter":
        model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
        model.base_model.set_adapter(["default", "second"])
    if why == "trainable norm":
        base.model.layers[0].input_layernorm.weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        assert not fused_llama.fits(base)
        loss = sum_nats(model, flatten(examples(3, 1)))
    loss.nats.backward()
    assert all(p.grad is not None for p in adapter_parameters(model).values())


def test_nothing_is_kept_below_the_first_adapter(examples: Callable[..., Any], monkeypatch: Any) -> None:
    model = model_of()
    for name, parameter in adapter_parameters(model).items():
        parameter.requires_grad_(".layers.2." in name)
    seen: list[Any] = []
    back = lora_ops.grad_of_input

    def counted(projections: Any, *rest: Any) -> Tensor:
        seen.append(projections)
        return back(projections, *rest)

    for module in (lora_ops, fused_ops):
        monkeypatch.setattr(module, "grad_of_input", counted)
    sum_nats(model, flatten(examples(3, 1))).nats.backward()
    parts = model.get_base_model().model.layers[2].lora_kit_parts
    assert set(seen) <= set(parts)
    assert parts[0] not in seen


@pytest.mark.parametrize("setting", [keep_freed_memory, map_large_blocks])
def test_the_c_library_takes_the_setting_or_is_left_alone(monkeypatch: Any, setting: Any) -> None:
    assert isinstance(setting(), bool)
    monkeypatch.setattr("sys.platform", "darwin")
    assert setting() is False
