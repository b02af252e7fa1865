"""An adapter that does something, for a moment: B is zero at the start, and hides what is wrong with A.

The gradient of A is a product with B, so it is exactly zero at the first step; and what an adapter adds to
the forward pass is nothing. In the block small random numbers are added to B. After it, everything is as it
was, bit for bit: weights, gradients, the modules' modes, and every random number that is drawn later.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt

import torch
from peft import PeftModel

from lora_kit.model.adapter_inject import adapter_parameters, scaling
from lora_kit.model.lora_ops import ADAPTER

STRENGTH = 0.01  # of what the adapter adds, beside a layer's input of the same size


@contextmanager
def perturbed(model: PeftModel, seed: int = 0) -> Iterator[None]:
    """Add small random numbers to every B for the block.

    Args:
        model: With an adapter.
        seed: Of the numbers.
    """
    ups = {name: p for name, p in adapter_parameters(model).items() if ".lora_B." in name}
    before = {name: parameter.detach().clone() for name, parameter in ups.items()}
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    config = model.peft_config[ADAPTER]
    factor = scaling(config.r, config.lora_alpha, rank_stabilized=config.use_rslora)
    generator = torch.Generator().manual_seed(seed)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            for parameter in ups.values():
                bound = STRENGTH / (factor * sqrt(config.r))
                noise = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                _write(parameter, parameter + noise.to(parameter))
            forget_gradients(model)
            yield
        finally:
            for name, parameter in ups.items():
                _write(parameter, before[name])
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for module, training in modes:
                module.training = training


def forget_gradients(model: PeftModel) -> None:
    """Take all gradients away."""
    for parameter in model.parameters():
        parameter.grad = None


@torch.no_grad()
def _write(parameter: torch.Tensor, values: torch.Tensor) -> None:
    parameter.copy_(values)  # in place: packed products look at the same memory
