"""What this machine has, what lora_kit will use of it, and what is missing with the command that mends it.

Each finding is measured here and now: a 4-bit layer is multiplied, a file is written. Nothing leaves the
machine, and of secrets only whether they are set is told.
"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement

from lora_kit.artifacts.disk import free_bytes, readable_bytes
from lora_kit.cache_place import cache_dir
from lora_kit.own_process import usable_cores

Status = Literal["ok", "note", "broken"]
PACKAGE = "lora-kit"
LEAST_FREE_BYTES = 2 * 10**9
LEAST_MEMORY_BYTES = 3 * 10**9
GET_TORCH = "install torch's CUDA build: https://pytorch.org/get-started/locally"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Args:
        area: What it is about.
        found: What is so.
        status: ``ok``; ``note`` for what works and could be better; ``broken`` for what must be mended.
        cure: What mends it.
    """

    area: str
    found: str
    status: Status = "ok"
    cure: str = ""

    def to_json(self) -> dict[str, str]:
        """The finding as JSON values."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; a look that fails is itself a finding."""
    looks: Sequence[Callable[[], Iterator[Finding]]] = (
        _python,
        _libraries,
        _extras,
        _processor,
        _gpu,
        _memory,
        _places,
        _four_bit,
        _environment,
    )
    return [finding for look in looks for finding in _safely(look)]


def _safely(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is what is wanted here
        area = look.__name__.strip("_").replace("_", " ")
        yield Finding(area, f"{type(error).__name__}: {error}", "broken", f"pip install -U {PACKAGE}")


def _python() -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("system", platform.platform(terse=True))


def _libraries() -> Iterator[Finding]:
    """Every required library against the range that lora_kit was tested with."""
    for requirement in _required():
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, "is missing", "broken", f"pip install '{requirement}'")
            continue
        if requirement.specifier.contains(installed, prereleases=True):
            yield Finding(requirement.name, installed)
        else:
            found = f"{installed}, and lora_kit needs {requirement.specifier}"
            yield Finding(requirement.name, found, "broken", f"pip install '{requirement}'")


def _extras() -> Iterator[Finding]:
    """Optional parts that are not installed."""
    for extra in metadata(PACKAGE).get_all("Provides-Extra") or ():
        missing = [one.name for one in _wanted_by(extra) if not _is_installed(one.name)]
        if missing and extra != "dev":
            cure = f"pip install '{PACKAGE}[{extra}]'"
            yield Finding(f"extra {extra}", f"not installed: {', '.join(missing)}", "note", cure)


def _required() -> Iterator[Requirement]:
    yield from (one for one in map(Requirement, requires(PACKAGE) or ()) if one.marker is None)


def _wanted_by(extra: str) -> Iterator[Requirement]:
    for one in map(Requirement, requires(PACKAGE) or ()):
        if one.marker and one.marker.evaluate({"extra": extra}):
            yield one


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _processor() -> Iterator[Finding]:
    import torch

    usable = usable_cores()
    threads = torch.get_num_threads()
    found = f"{usable} cores usable, {threads} threads, {torch.backends.cpu.get_cpu_capability()}"
    if threads > usable:
        cure = f"set OMP_NUM_THREADS={usable}: threads that share a core wait for each other"
        yield Finding("processor", found, "note", cure)
    else:
        yield Finding("processor", found)


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") and torch.version.cuda is None:
            yield Finding("gpu", "there is one, and this torch can't use it (CPU build)", "note", GET_TORCH)
        else:
            yield Finding("gpu", "none that torch can use; train.device=auto takes the CPU, in float32")
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        precision = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bfloat16"
        size = readable_bytes(about.total_memory)
        yield Finding("gpu", f"{about.name}, {size}, compute {about.major}.{about.minor}, {precision}")


def _memory() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    found = f"{readable_bytes(memory.available)} free of {readable_bytes(memory.total)}"
    if memory.available < LEAST_MEMORY_BYTES:
        cure = "close other programs; the quickstart needs about 3 GB"
        yield Finding("memory", found, "note", cure)
    else:
        yield Finding("memory", found)


def _places() -> Iterator[Finding]:
    """Where runs and converted bases go: writable, and with room."""
    from huggingface_hub.constants import HF_HUB_CACHE

    places = {
        "runs": (Path.cwd(), "go to a directory that you can write to"),
        "cache": (cache_dir(), "set LORA_KIT_CACHE to a directory with room"),
        "hub cache": (Path(HF_HUB_CACHE), "set HF_HOME to a directory with room"),
    }
    for area, (folder, cure) in places.items():
        free = free_bytes(folder)
        found = f"{folder}: {readable_bytes(free)} free"
        if problem := _write_problem(folder):
            yield Finding(area, f"{folder}: can't be written ({problem})", "broken", cure)
        elif free < LEAST_FREE_BYTES:
            yield Finding(area, found, "note", cure)
        else:
            yield Finding(area, found)


def _write_problem(folder: Path) -> str:
    """Write a file where the folder is or would be; empty if that works."""
    existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as stream:
            stream.write(b"lora_kit")
            stream.flush()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _four_bit() -> Iterator[Finding]:
    """Multiply with a 4-bit layer and compare with its own dequantised weights."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to(device)
    x = torch.eye(64, device=device)
    weight: Any = layer.weight
    dense = dequantize_4bit(weight.data, weight.quant_state).float()
    difference = float((layer(x) - x @ dense.T).abs().max())
    if difference < 1e-5:
        yield Finding("4-bit", f"nf4 works on {device}")
    else:
        cure = "pip install -U bitsandbytes"
        yield Finding("4-bit", f"nf4 is off by {difference:.2g} on {device}", "broken", cure)


def _environment() -> Iterator[Finding]:
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
    yield Finding("hub", f"offline ({', '.join(offline)} is set)" if offline else "used for hub ids only")
    if os.environ.get("HF_TOKEN"):
        yield Finding("hub token", "is set (not shown)")
