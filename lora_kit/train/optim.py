"""AdamW over the adapter's matrices, with a state that is saved by parameter name.

The state is plain tensors (two moments and a step count a parameter), so that a
checkpoint needs no pickle and no order of parameters (arXiv 1711.05101).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_kit.errors import ModelError
from lora_kit.recipe.schema import TrainSpec

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name to parameter for everything that is trained, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def build_optimizer(parameters: Mapping[str, nn.Parameter], spec: TrainSpec) -> torch.optim.AdamW:
    """Make AdamW over ``parameters``; the learning rate is set anew at each step."""
    return torch.optim.AdamW(
        list(parameters.values()), lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
    )


def optimizer_tensors(
    optimizer: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Copy the optimizer's state to named CPU tensors: ``<parameter>:<moment>``."""
    return {
        f"{name}:{moment}": optimizer.state[parameter][moment].detach().cpu().clone()
        for name, parameter in parameters.items()
        for moment in MOMENTS
        if parameter in optimizer.state
    }


def load_optimizer_tensors(
    optimizer: torch.optim.AdamW, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put a saved state back.

    Raises:
        ModelError: The saved names are not exactly those of the parameters.
    """
    wanted = {f"{name}:{moment}" for name in parameters for moment in MOMENTS}
    if wanted != set(tensors):
        different = sorted(wanted ^ set(tensors))
        raise ModelError(
            f"the optimizer state has other parameters, first: {different[0]}",
            cure="the checkpoint belongs to another adapter; use another --run-dir",
        )
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {
            "step": tensors[f"{name}:step"].to(parameter.device),
            "exp_avg": tensors[f"{name}:exp_avg"].to(parameter),
            "exp_avg_sq": tensors[f"{name}:exp_avg_sq"].to(parameter),
        }


def set_learning_rate(optimizer: torch.optim.AdamW, learning_rate: float) -> None:
    """Set the rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
