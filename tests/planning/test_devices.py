"""The table of hardware: every number has its source, and a typo its answer."""

import pytest

from lora_kit.errors import RecipeError
from lora_kit.planning.devices import DEVICES, find_device


@pytest.mark.parametrize("name", list(DEVICES))
def test_every_number_of_a_device_names_its_source(name: str) -> None:
    device = find_device(name)
    assert set(device.sources) == {"memory", "bandwidth", "flops", "watts"}
    assert all(len(source) > 10 for source in device.sources.values())
    assert min(device.memory_bytes, device.bandwidth, device.watts, *device.flops.values()) > 0
    assert device.flops["float32"] <= max(device.flops.values())


def test_a_typo_is_answered() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'rtx-3090'\?.*laptop-cpu"):
        find_device("rtx3090")
