"""Merge: base + scaling x BA in float32, rounded once, and proven on real rows before it counts.

Tensor by tensor, so that memory holds one tensor beside the mapped file; the proof
reads both models layer by layer. For a 4-bit
base the merge goes into the dequantised weights, because these are what was trained
(merging back into 4 bits lost 43 % of the adapter's effect, the original weights 0.077
in logits against 2.4e-7; peft issues 1043, 2105, 2321).
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lora_kit.artifacts.adapter import SavedAdapter
from lora_kit.artifacts.commit import committed_dir, write_json
from lora_kit.artifacts.disk import require_free
from lora_kit.artifacts.stream_tensors import TensorPlan, stream_tensors
from lora_kit.assemble import MERGED_FILE, AdapterParts, base_facts, merged_provenance, tokenizer_files
from lora_kit.errors import ModelError
from lora_kit.model.adapter_inject import MAGNITUDE, scaling
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.model.layered import changed_rows, four_bit_names, layered_model
from lora_kit.model.quantize import as_held
from lora_kit.model.token_rows import put_rows
from lora_kit.recipe.schema import BaseSpec, QuantizationSpec

# Largest difference of a logit, as a share of the largest logit, that rounding explains.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3}
POSITIONS = 64  # of each row, its last ones, that logits are compared at: they see all of it
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LogitDifference:
    """How far the merged model is from base + adapter, on real rows.

    Args:
        tokens: Positions that logits were compared at.
        max_logit_difference: Largest difference.
        mean_logit_difference: Mean difference.
        max_logit: Largest logit, to judge the differences by.
        greedy_agreement: Share of positions with the same most likely token.
    """

    tokens: int
    max_logit_difference: float
    mean_logit_difference: float
    max_logit: float
    greedy_agreement: float


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did and proved.

    Args:
        folder: The merged model.
        dtype: Number type of its weights.
        base: ``original`` or ``dequantized``: what the adapter was added to.
        modules: Layers that were changed.
        logits: The proof.
        tolerance: Largest difference that would have been accepted.
    """

    folder: str
    dtype: str
    base: str
    modules: int
    logits: LogitDifference
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        """Flat JSON, as in certificate.json."""
        facts = asdict(self)
        return {**{name: value for name, value in facts.items() if name != "logits"}, **facts["logits"]}


def merge_adapter(
    parts: AdapterParts, rows: Sequence[Sequence[int]], out: Path, *, dtype: str | None = None
) -> MergeReport:
    """Write base + adapter as a plain model, and compare its logits with base + adapter.

    Args:
        parts: The adapter and its base, from ``assemble.find_adapter``.
        rows: Token ids of the rows to compare on, at least one.
        out: Folder to create; nothing is left there if the comparison fails.
        dtype: Number type of the merged weights; the one that was trained with, if None.

    Raises:
        ModelError: The base is merged with this adapter already, or logits are out of tolerance.
        MachineError: The disk can't take it.
    """
    _refuse_second_merge(parts.files, parts.adapter)
    chosen = dtype or parts.dtype
    require_free(out, _bytes_of_weights(parts.files.folder, TORCH_DTYPES[chosen]))
    expected = _trained_logits(parts, rows)
    with committed_dir(out) as folder:
        modules = _write_weights(parts, folder, TORCH_DTYPES[chosen])
        _write_companions(parts.files, parts.adapter, folder, chosen)
        logits = _compare(folder, rows, expected, chosen)
        limit = TOLERANCE[chosen] * logits.max_logit
        if not logits.max_logit_difference <= limit:
            raise ModelError(
                f"merged logits differ by {logits.max_logit_difference:.3g}, allowed {limit:.3g}",
                where=str(out),
                cure="nothing was written; merge with --dtype float32",
            )
        kind = "original" if parts.quantization.method == "none" else "dequantized"
        report = MergeReport(str(out), chosen, kind, modules, logits, limit)
        write_json(folder / "certificate.json", report.to_json())
    return report


def _refuse_second_merge(files: BaseFiles, saved: SavedAdapter) -> None:
    facts = merged_provenance(files.folder)
    if facts.get("training_fingerprint") == saved.provenance.get("training_fingerprint", ""):
        raise ModelError(
            "this adapter is merged into that model already", where=str(files.folder), cure="use its base"
        )


def adapter_deltas(saved: SavedAdapter) -> dict[str, Callable[[], Tensor]]:
    """Module name to a function that makes its update, scaling x BA, float32 ``(out, in)``."""
    tensors = saved.tensors()
    config = saved.config
    factor = scaling(config["r"], config["lora_alpha"], rank_stabilized=config.get("use_rslora", False))
    ending = ".lora_A.weight"
    prefix = "base_model.model."

    def delta(name: str) -> Callable[[], Tensor]:
        a, b = tensors[name + ending], tensors[name + ".lora_B.weight"]
        return lambda: (b.float() @ a.float()).mul_(factor)

    names = [name.removesuffix(ending) for name in tensors if name.endswith(ending)]
    return {name.removeprefix(prefix): delta(name) for name in names}


def adapter_lengths(saved: SavedAdapter) -> dict[str, Tensor]:
    """Module name to the lengths of the rows of DoRA's sum, float32 ``(out,)``; empty without DoRA."""
    lengths = {name: t.float() for name, t in saved.tensors().items() if name.endswith(MAGNITUDE)}
    return {name.removeprefix("base_model.model.").removesuffix(MAGNITUDE): t for name, t in lengths.items()}


def _write_weights(parts: AdapterParts, folder: Path, dtype: torch.dtype) -> int:
    """Stream every shard of the base into ``folder`` with the updates added; return how many there were."""
    deltas, lengths = adapter_deltas(parts.adapter), adapter_lengths(parts.adapter)
    rows = changed_rows(parts.files, parts.adapter.config, parts.adapter.tensors())
    spec, held = parts.quantization, TORCH_DTYPES[parts.dtype]
    packed = {} if spec.method == "none" else dict.fromkeys(four_bit_names(parts.files))

    def reader(shard: Path, name: str) -> Callable[[], Tensor]:
        read: Callable[[], Tensor] = partial(_stored, shard, name, held)
        if _module_of(name, packed):
            read = partial(_rounded, read, spec)
        if changed := _module_of(name, rows):
            read = partial(_with_rows, read, *rows[changed])
        module = _module_of(name, deltas)
        return partial(_sum, read, deltas.pop(module), lengths.get(module)) if module else read

    modules = len(deltas)
    for shard in sorted(parts.files.folder.glob("*.safetensors")):
        shapes = _shapes(shard)
        plans = {name: TensorPlan(dtype, shape, reader(shard, name)) for name, shape in shapes.items()}
        stream_tensors(folder / shard.name, plans, {"format": "pt"})
    if deltas:
        raise ModelError(f"the base has no weight for {min(deltas)}", where=str(parts.files.folder))
    return modules


def _shapes(shard: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(shard, framework="pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def _bytes_of_weights(folder: Path, dtype: torch.dtype) -> int:
    shards = folder.glob("*.safetensors")
    return sum(
        torch.Size(shape).numel() * dtype.itemsize for file in shards for shape in _shapes(file).values()
    )


def _stored(shard: Path, name: str, dtype: torch.dtype) -> Tensor:
    """A weight as the base was held in training; the file is opened anew, so that its pages can go."""
    with safe_open(shard, framework="pt") as tensors:
        weight: Tensor = tensors.get_tensor(name)
        return weight.to(dtype)


def _rounded(read: Callable[[], Tensor], spec: QuantizationSpec) -> Tensor:
    return as_held(read(), spec)


def _with_rows(read: Callable[[], Tensor], ids: Sequence[int], rows: Tensor) -> Tensor:
    return put_rows(read(), None, ids, rows)


def _sum(read: Callable[[], Tensor], delta: Callable[[], Tensor], lengths: Tensor | None) -> Tensor:
    total = delta().add_(read())
    return total if lengths is None else total.mul_((lengths / torch.linalg.norm(total, dim=1))[:, None])


def _module_of(weight: str, deltas: Mapping[str, object]) -> str | None:
    """The adapted module that ``weight`` belongs to; files may leave out the model's own prefix."""
    if not weight.endswith(".weight"):
        return None
    name = weight.removesuffix(".weight")
    if name in deltas:
        return name
    return next((module for module in deltas if module.partition(".")[2] == name), None)


def _write_companions(files: BaseFiles, saved: SavedAdapter, folder: Path, dtype: str) -> None:
    """Config, tokenizer, index, and where the model came from."""
    config = json.loads((files.folder / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    config["dtype"] = dtype
    write_json(folder / "config.json", config)
    for name, path in tokenizer_files(saved.folder).items():
        shutil.copyfile(path, folder / name)
    for name in ("generation_config.json", "model.safetensors.index.json"):
        if (files.folder / name).is_file():
            shutil.copyfile(files.folder / name, folder / name)
    template = saved.provenance.get("template", {}).get("name", "model")
    write_json(
        folder / MERGED_FILE,
        {
            "dtype": dtype,
            "template": template,
            "system": saved.provenance.get("system"),
            "base": base_facts(saved),
            "training_fingerprint": saved.provenance.get("training_fingerprint"),
        },
    )


@torch.no_grad()
def _logits(model: torch.nn.Module, ids: Sequence[int]) -> Tensor:
    """Logits of a row's last positions, float32 ``(positions, V)``."""
    row = torch.tensor([list(ids)])
    output: Tensor = model(input_ids=row, use_cache=False, logits_to_keep=POSITIONS).logits
    return output[0].float()


def _trained_logits(parts: AdapterParts, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    model = layered_model(
        parts.files,
        dtype=TORCH_DTYPES[parts.dtype],
        quantization=parts.quantization,
        adapter=(parts.adapter.config, parts.adapter.tensors()),
    )
    return [_logits(model, ids) for ids in rows]


def _compare(
    folder: Path, rows: Sequence[Sequence[int]], expected: Sequence[Tensor], dtype: str
) -> LogitDifference:
    """Load the merged model as anybody would, and measure how far its logits are from ``expected``."""
    files = find_base(BaseSpec(model=str(folder)))
    model = layered_model(files, dtype=TORCH_DTYPES[dtype])
    largest = total = logit = 0.0
    count = agree = positions = 0
    for ids, want in zip(rows, expected, strict=True):
        got = _logits(model, ids)
        difference = (got - want).abs()
        largest = max(largest, float(difference.max()))
        logit = max(logit, float(want.abs().max()))
        total += float(difference.double().sum())
        count += difference.numel()
        agree += int((got.argmax(-1) == want.argmax(-1)).sum())
        positions += len(want)
    return LogitDifference(positions, largest, total / count, logit, agree / positions)
