"""What the numbers of a GGUF file mean for the model: logits with the file's weights against its source's.

The file is unpacked into transformers' own model, row orders undone. So this shows names, orders and
rounding of the weights; llama.cpp's arithmetic is its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from lora_kit.errors import ModelError
from lora_kit.export.gguf.check import read_tensor
from lora_kit.export.gguf.plan import ExportPlan
from lora_kit.model.base import find_base
from lora_kit.model.gguf_file import GgufHeader
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, QuantizationSpec

TIE = 0.02  # logits that are closer than this may change places through rounding to float16


def compare_logits(
    folder: Path, plan: ExportPlan, path: Path, header: GgufHeader, rows: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Compare logits of the source's weights with those of the file's.

    Args:
        folder: The source.
        plan: Of the file.
        path: The file.
        header: Of the file.
        rows: Token ids.

    Returns:
        ``tokens``, ``max_difference``, ``mean_difference``, ``kl`` (nats a token, source to file),
        ``greedy_agreement``; or ``skipped``, why.

    Raises:
        ModelError: An f32 file is not exact, or an f16 file's most likely token differs, ties apart.
    """
    needed = 6 * sum(int(np.prod(tensor.shape)) for tensor in plan.tensors)  # float32 and half as much again
    available = psutil.virtual_memory().available
    if needed > available:
        return {"skipped": f"the float32 model needs {needed / 1e9:.1f} GB of memory"}
    files = find_base(BaseSpec(model=str(folder.resolve())))
    model = load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
    wanted = [_logits(model, ids) for ids in rows]
    _put_weights(model, plan, path, header)
    found = [_logits(model, ids) for ids in rows]
    figures = _figures(torch.cat(wanted), torch.cat(found))
    _judge(figures, plan.quant, torch.cat(wanted), torch.cat(found), path)
    return figures


@torch.no_grad()
def _logits(model: nn.Module, ids: Sequence[int]) -> Tensor:
    logits: Tensor = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits
    return logits[0].float()


@torch.no_grad()
def _put_weights(model: nn.Module, plan: ExportPlan, path: Path, header: GgufHeader) -> None:
    parameters = dict(model.named_parameters())
    for tensor in plan.tensors:
        if tensor.stored is None:
            continue
        values = read_tensor(path, header, tensor.name)
        if tensor.stored.order is not None:
            values = values[np.argsort(tensor.stored.order)]
        parameter = _find(parameters, tensor.stored.name)
        if parameter is None:
            raise ModelError(f"the model has no '{tensor.stored.name}'", where=str(path))
        parameter.copy_(torch.from_numpy(values))


def _find(parameters: dict[str, nn.Parameter], name: str) -> nn.Parameter | None:
    """Files may leave out the model's own prefix; GPT-NeoX's name its head otherwise than transformers 5."""
    name = name.replace("embed_out.", "lm_head.")
    return next(
        (p for known, p in parameters.items() if known == name or known.partition(".")[2] == name), None
    )


def _figures(wanted: Tensor, found: Tensor) -> dict[str, Any]:
    log_wanted, log_found = wanted.double().log_softmax(-1), found.double().log_softmax(-1)
    kl = (log_wanted.exp() * (log_wanted - log_found)).sum(-1).mean()
    difference = (wanted - found).abs()
    return {
        "tokens": len(wanted),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "max_logit": float(wanted.abs().max()),
        "kl": float(kl),
        "greedy_agreement": float((wanted.argmax(-1) == found.argmax(-1)).double().mean()),
    }


def _judge(figures: dict[str, Any], quant: str, wanted: Tensor, found: Tensor, path: Path) -> None:
    if quant == "f32" and figures["max_difference"] != 0:
        raise ModelError(
            f"the file's logits differ by {figures['max_difference']:.3g}, though it is float32",
            where=str(path),
        )
    if quant in {"f32", "f16"}:
        best, other = wanted.argmax(-1, keepdim=True), found.argmax(-1, keepdim=True)
        gap = float((wanted.gather(-1, best) - wanted.gather(-1, other)).max())
        if gap > TIE:
            raise ModelError(
                f"the file's most likely token is another one, by {gap:.3g} in logit", where=str(path)
            )
