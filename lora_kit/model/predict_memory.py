"""How much memory training takes, from a recipe and a model's config alone: no weights, no rows.

The model is built on torch's meta device, where tensors have shapes and no content. What the backward pass
keeps is counted, not modelled: a micro-batch runs through one and through two layers, and whatever autograd
saves is added up; layers are alike, so the rest follows. It is a bound from above where our own decoder runs,
which keeps less, or where a micro-batch is not full.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AttentionInterface, AutoModelForCausalLM, PreTrainedModel

from lora_kit.model.adapter_targets import target_names
from lora_kit.model.attention import segment_arguments
from lora_kit.model.context import context_tokens
from lora_kit.model.family import Family, family_of
from lora_kit.model.loss import CHUNK_ROWS
from lora_kit.model.quiet import quiet_libraries
from lora_kit.model.standby import without_quantized_layers
from lora_kit.recipe.schema import QuantizationSpec, Recipe, TrainSpec

PROGRAM = 650 * 10**6  # torch, transformers and peft, imported
ADAPTER_BYTES = 16  # weight, gradient and AdamW's two moments, float32
# Matrices as large as the largest weight, float32: for a moment in DoRA's products (row lengths) and at the
# start of PiSSA and LoftQ (a singular value decomposition and its operand).
DORA_WORK, START_WORK = 3, 5
NESTED = 1 + 4 / 256  # bytes of a block's constant in 8 bits, and its share of their own (arXiv 2305.14314)
BLOCK = 64  # weights that share a constant
COUNTED_ATTENTION = "lora_kit_counted"
Context: TypeAlias = Any  # of torch.autograd.Function, which has no public type


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Predicted bytes at the peak of training.

    Args:
        parameters: Of the base.
        trained: Of the adapter.
        base: Its weights and buffers, as they are stored.
        adapter: Weights, gradients and moments; for PiSSA the first factors, for DoRA those of known lengths.
        activations: What a full micro-batch keeps for its backward pass.
        work: The largest tensors that are there for a moment: logits, a layer's weights unpacked.
    """

    parameters: int
    trained: int
    base: int
    adapter: int
    activations: int
    work: int

    @property
    def total(self) -> int:
        """Everything, the program included."""
        return PROGRAM + self.base + self.adapter + self.activations + self.work


def predict_memory(recipe: Recipe, config: Mapping[str, Any]) -> MemoryNeed:
    """Predict the memory that a recipe's training takes.

    Args:
        recipe: The recipe.
        config: Content of the base's config.json.

    Raises:
        ModelError: An unsupported model, or targets that it does not have.
    """
    family = family_of(config, where="config.json")
    dtype = getattr(torch, recipe.base.dtype)
    base = _on_meta(config, family, dtype)
    targets = target_names(base, recipe.lora, family)
    four_bit = recipe.quantization.method != "none"
    layers = {id(m.weight): m for m in base.modules() if isinstance(m, nn.Linear)}
    layers.pop(id(base.get_output_embeddings().weight))
    stored = sum(
        _stored(p, recipe.quantization, packed=four_bit and id(p) in layers) for p in base.parameters()
    )
    stored += sum(buffer.numel() * buffer.element_size() for buffer in base.buffers())
    adapted = [
        layer
        for name, layer in base.named_modules()
        if isinstance(layer, nn.Linear) and any(f".{name}".endswith(f".{target}") for target in targets)
    ]
    factors = sum(recipe.lora.rank * (layer.in_features + layer.out_features) for layer in adapted)
    trained = factors + (sum(layer.out_features for layer in adapted) if recipe.lora.dora else 0)
    ends = {id(end.weight): end for end in (base.get_input_embeddings(), base.get_output_embeddings())}
    trained += len(recipe.lora.train_tokens) * sum(end.weight.shape[1] for end in ends.values())
    kept = factors if recipe.lora.init == "pissa" or recipe.lora.dora else 0
    activations = _activations(recipe, config, family, base.config.num_hidden_layers)
    largest = max(layer.weight.numel() for layer in layers.values())
    return MemoryNeed(
        parameters=sum(p.numel() for p in base.parameters()),
        trained=trained,
        base=stored,
        adapter=ADAPTER_BYTES * trained + 4 * kept,
        activations=activations,
        work=max(
            _work(recipe, config, largest),
            0 if recipe.lora.init == "default" else START_WORK * 4 * largest - activations,
        ),
    )


def _work(recipe: Recipe, config: Mapping[str, Any], largest: int) -> int:
    """Bytes of the tensors that are there for a moment in a step; ``largest`` is a weight's numbers."""
    logits = 2 * 4 * min(CHUNK_ROWS, _budget(recipe)) * int(config["vocab_size"])
    size = getattr(torch, recipe.base.dtype).itemsize
    unpacked = 0 if recipe.quantization.method == "none" else size * largest
    return logits + unpacked + (DORA_WORK * 4 * largest if recipe.lora.dora else 0)


def _on_meta(
    config: Mapping[str, Any], family: Family, dtype: torch.dtype, layers: int = 0
) -> PreTrainedModel:
    """Build the model without content, with another number of layers if one is given."""
    kept = {key: value for key, value in config.items() if key not in family.dropped}
    made = CONFIG_MAPPING[config["model_type"]].from_dict(kept | dict.fromkeys(family.dropouts, 0.0))
    if layers:
        made.num_hidden_layers = layers
        if getattr(made, "layer_types", None):
            made.layer_types = made.layer_types[:layers]
    attention = {"attn_implementation": COUNTED_ATTENTION} if family.flattened else {}
    with quiet_libraries(), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(made, dtype=dtype, **attention)
    return model.requires_grad_(requires_grad=False)


def _stored(parameter: Tensor, spec: QuantizationSpec, *, packed: bool) -> int:
    if not packed:
        return parameter.numel() * parameter.element_size()
    if spec.method == "int8":
        return parameter.numel() + 4 * len(parameter)  # a constant a row
    blocks = -(-parameter.numel() // BLOCK)
    return parameter.numel() // 2 + int(blocks * (NESTED if spec.double_quant else 4))


def _activations(recipe: Recipe, config: Mapping[str, Any], family: Family, layers: int) -> int:
    """Bytes that autograd saves in a full micro-batch: nothing below the first adapter."""
    if recipe.lora.layers != "all":
        layers = min(layers, int(recipe.lora.layers.removeprefix("last-")))
        recipe = recipe.model_copy(update={"lora": recipe.lora.model_copy(update={"layers": "all"})})
    one, two = (_saved(recipe, config, family, count) for count in (1, 2))
    if recipe.engine.memory == "low":  # layers' inputs, and one layer at a time
        tokens = _budget(recipe)
        width = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config)).hidden_size
        return one + layers * tokens * width * getattr(torch, recipe.base.dtype).itemsize
    return one + (layers - 1) * (two - one)


def _budget(recipe: Recipe) -> int:
    """Tokens that are computed at once; the default stands for what ``auto`` will find."""
    asked = recipe.train.micro_batch_tokens
    return int(TrainSpec.model_fields["micro_batch_tokens"].default) if asked == "auto" else asked


def _saved(recipe: Recipe, config: Mapping[str, Any], family: Family, layers: int) -> int:
    model = _on_meta(config, family, getattr(torch, recipe.base.dtype), layers)
    lora = LoraConfig(
        r=recipe.lora.rank * (2 if recipe.lora.init == "pissa" else 1),
        lora_dropout=recipe.lora.dropout,
        target_modules=list(target_names(model, recipe.lora, family)),
        use_dora=recipe.lora.dora,
    )
    with quiet_libraries(), torch.device("meta"), without_quantized_layers():
        adapted = get_peft_model(model, lora).train()
    own = {_storage(parameter) for parameter in adapted.parameters()}
    budget = _budget(recipe)
    longest = budget if family.flattened else min(budget, context_tokens(model.config) or budget)
    tokens = torch.zeros(-(-budget // longest), longest, dtype=torch.int64, device="meta")
    if family.flattened:
        who_sees_whom = segment_arguments((tokens.shape[1],), tokens.device)
    else:
        who_sees_whom = {"attention_mask": torch.ones_like(tokens)}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = adapted.get_base_model().base_model(input_ids=tokens, use_cache=False, **who_sees_whom)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _storage(tensor: Tensor) -> int:
    """Return what views of one another have in common, also without content."""
    return tensor.untyped_storage()._cdata  # noqa: SLF001 - torch has no public name for it


class _Attention(torch.autograd.Function):
    """What a kernel that computes its probabilities again keeps, without computing anything."""

    @staticmethod
    def forward(ctx: Context, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query.transpose(1, 2))
        ctx.save_for_backward(query, key, value, output)
        return output


def _counted_attention(
    _: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - the signature of transformers' AttentionInterface
    **options: Any,  # noqa: ANN401, ARG001
) -> tuple[Tensor, None]:
    output: Tensor = _Attention.apply(query, key, value)
    return output, None


AttentionInterface.register(COUNTED_ATTENTION, _counted_attention)
