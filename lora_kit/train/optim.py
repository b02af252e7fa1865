"""AdamW over the adapter's matrices, with a state that is saved by parameter name.

The state is plain tensors (two moments and a step count a parameter), so that a
checkpoint needs no pickle and no order of parameters (arXiv 1711.05101). bitsandbytes'
AdamW holds the moments as bytes with a constant for each block of 256 (arXiv
2110.02861), in pages that move between GPU and host: tensors as well. Its blocks come
back bit for bit on a CPU, where there are no pages; the pages were not tried on a GPU.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lora_kit.errors import MachineError, ModelError
from lora_kit.model.machine import fuses_adamw, machine_of
from lora_kit.recipe.schema import TrainSpec

OptimizerName = Literal["adamw", "adamw-8bit-paged"]
KEY = "engine.optimizer"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
BLOCKS = ("state1", "state2", "absmax1", "absmax2")  # of bitsandbytes; a small parameter has no absmax
DOUBT = f"{KEY}: the pages of adamw-8bit-paged were not shown to come back bit for bit"


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name to parameter for everything that is trained, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], spec: TrainSpec, name: OptimizerName = "adamw"
) -> torch.optim.Optimizer:
    """Make AdamW over ``parameters``; the learning rate is set anew at each step.

    Raises:
        ModelError: The optimizer needs a GPU.
    """
    devices = {parameter.device for parameter in parameters.values()}
    if name == "adamw":
        fused = all(fuses_adamw(machine_of(device)) for device in devices)
        return torch.optim.AdamW(
            list(parameters.values()), lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=fused
        )
    if any(device.type != "cuda" for device in devices):
        raise ModelError(f"{name} needs a GPU with CUDA", key=KEY, cure="set it to adamw")
    return eight_bit_adamw(parameters.values(), spec, paged=True)


def eight_bit_adamw(
    parameters: Iterable[nn.Parameter], spec: TrainSpec, *, paged: bool
) -> torch.optim.Optimizer:
    """Make bitsandbytes' AdamW; without pages it also runs on a CPU."""
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    kind = PagedAdamW8bit if paged else AdamW8bit
    made: torch.optim.Optimizer = kind(
        list(parameters), lr=spec.learning_rate, weight_decay=spec.weight_decay
    )
    return made


def doubts_of_resume(optimizer: torch.optim.Optimizer, *, allow_inexact: bool) -> tuple[str, ...]:
    """Say in what a resumed run may differ because of its optimizer; nothing for torch's.

    Raises:
        MachineError: It may differ, and that was not allowed.
    """
    if isinstance(optimizer, torch.optim.AdamW):
        return ()
    if not allow_inexact:
        cure = "go on with --allow-inexact-resume, or start another run with adamw"
        raise MachineError(DOUBT.removeprefix(f"{KEY}: "), key=KEY, cure=cure)
    return (DOUBT,)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Copy the optimizer's state to named CPU tensors: ``<parameter>:<moment>``."""
    return {
        f"{name}:{moment}": torch.as_tensor(value).detach().cpu().clone()
        for name, parameter in parameters.items()
        for moment, value in _moments(optimizer.state.get(parameter, {})).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put a saved state back.

    Raises:
        ModelError: The saved names are not exactly those of the parameters.
    """
    fresh = {name: _fresh(optimizer, index, one) for index, (name, one) in enumerate(parameters.items())}
    wanted = {f"{name}:{moment}" for name, state in fresh.items() for moment in _moments(state)}
    if wanted != set(tensors):
        different = sorted(wanted ^ set(tensors))
        raise ModelError(
            f"the optimizer state has other parameters, first: {different[0]}",
            cure="the checkpoint belongs to another adapter; use another --run-dir",
        )
    for name, parameter in parameters.items():
        state = fresh[name]
        for moment, place in _moments(state).items():
            saved = tensors[f"{name}:{moment}"]
            # bitsandbytes counts steps with a number; its pages keep their place.
            state[moment] = place.copy_(saved) if isinstance(place, Tensor) else int(saved)
        optimizer.state[parameter] = state


def _moments(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: state[name] for name in (*MOMENTS, *BLOCKS) if name in state}


def _fresh(optimizer: torch.optim.Optimizer, index: int, parameter: nn.Parameter) -> dict[str, Any]:
    """Return the state that a parameter has before its first step."""
    if isinstance(optimizer, torch.optim.AdamW):
        return {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
    optimizer.init_state(optimizer.param_groups[0], parameter, 0, index)  # type: ignore[attr-defined]
    return dict(optimizer.state[parameter])


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
