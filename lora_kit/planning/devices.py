"""Hardware that is not here: what its makers say of it.

Nothing is measured. The makers' documents are named; their numbers were compared with public listings of them
(November 2026).

Of a maker's rate a training step reaches a share; which one is assumed here for all, and the plan's interval
says how little is known. lora_kit was not run on any of them yet.
"""

from dataclasses import dataclass

from lora_kit.errors import RecipeError
from lora_kit.registry import did_you_mean

GB, TERA, GIGA = 10**9, 1e12, 1e9
# Of the makers' rates. GPU: assumed, near the lower end of what published trainings of large models reach
# (0.2 to 0.5: PaLM, arXiv 2204.02311, table 3). CPU: assumed, a product reaches about 0.6 of the peak of two
# FMA units, and a training step four fifths of a product's rate (``speed.py``).
GPU_SHARE, CPU_SHARE = 0.3, 0.5
CONTEXT_BYTES = 600 * 10**6  # of GPU memory for CUDA's own context and torch's workspaces; assumed
GA102 = "NVIDIA Ampere GA102 GPU Architecture whitepaper V2.0, appendix A"
ADA = "NVIDIA Ada GPU Architecture whitepaper V2.0, appendix A"
A100 = "NVIDIA A100 Tensor Core GPU datasheet, SXM4 40 GB"
T4 = "NVIDIA T4 Tensor Core GPU datasheet"
ARK = "Intel ARK, Core i7-1165G7: 4 cores at 2.8 GHz; 32 float32 flops a cycle and core with AVX2"


@dataclass(frozen=True, slots=True)
class Device:
    """Hardware by its data sheet.

    Args:
        name: On the command line.
        label: For people.
        kind: torch's device type.
        memory_bytes: Its own memory.
        bandwidth: Bytes a second of that memory.
        flops: Dense operations a second by number type of the products; sums in float32.
        watts: Of the board, or of the processor.
        sources: Where each number is from.
    """

    name: str
    label: str
    kind: str
    memory_bytes: int
    bandwidth: float
    flops: dict[str, float]
    watts: float
    sources: dict[str, str]


def _gpu(name: str, label: str, source: str, numbers: tuple[int, float, float, float, float]) -> Device:
    """Make a GPU of (GB, GB/s, TFLOP/s in float32, in bfloat16 (0: none), watts)."""
    memory, bandwidth, single, half, watts = numbers
    flops = {"float32": single * TERA} | ({"bfloat16": half * TERA} if half else {})
    sources = dict.fromkeys(("memory", "bandwidth", "flops", "watts"), source)
    return Device(name, label, "cuda", memory * GB, bandwidth * GB, flops, watts, sources)


DEVICES = {
    device.name: device
    for device in (
        _gpu("rtx-3090", "GeForce RTX 3090", GA102, (24, 936, 35.6, 71, 350)),
        _gpu("rtx-4090", "GeForce RTX 4090", ADA, (24, 1008, 82.6, 165.2, 450)),
        _gpu("a100-40", "A100 40 GB", A100, (40, 1555, 19.5, 312, 400)),
        _gpu("t4", "T4, which has no bfloat16", T4, (16, 320, 8.1, 0, 70)),
        Device(
            "laptop-cpu",
            "a laptop's Core i7-1165G7 with 16 GB",
            "cpu",
            16 * GB,
            51.2 * GB,
            {"float32": 4 * 2.8 * GIGA * 32},
            28,
            {
                "memory": "a usual size, not of a source",
                "bandwidth": "two channels of DDR4-3200 (JEDEC JESD79-4), 8 bytes each",
                "flops": ARK,
                "watts": ARK,
            },
        ),
    )
}


def find_device(name: str) -> Device:
    """Return a device.

    Raises:
        RecipeError: There is none of this name.
    """
    if name not in DEVICES:
        cure = f"{did_you_mean(name, list(DEVICES))} known: {', '.join(DEVICES)}".strip()
        raise RecipeError(f"no device '{name}'", key="--device", cure=cure)
    return DEVICES[name]
