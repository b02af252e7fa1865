"""Export a run in every way, let llama.cpp run the files, and judge.

Every export compares tokens of 64 conversations in training, the file and llama.cpp's own tokenizer; the
figures are of the same token ids on both sides.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import torch

from llama_proof.sides import Answers, Ours, Questions, ask_llama, gaps
from lora_kit.artifacts.adapter import read_adapter
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.assemble import Opened, find_adapter_base, open_target
from lora_kit.data.prepare import prepare_data
from lora_kit.errors import LoraKitError, ModelError
from lora_kit.export.exporter import ExportOptions, ExportRequest
from lora_kit.export.gguf.llama_quantize import main as quantize
from lora_kit.export.gguf.logits import TIE
from lora_kit.export.run import export_adapter, export_model, source_of
from lora_kit.harness.suite import load_suite
from lora_kit.model.base import find_base
from lora_kit.pipeline import merge_run
from lora_kit.recipe.load import load_resolved
from lora_kit.recipe.schema import BaseSpec

_SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)  # noqa: ARG005 - C's own three
_Q4_0 = 2  # llama.cpp's number for such files
LIMITS = {"f32": 0.001, "f16": 0.001, "q8_0": 0.005}  # share of our perplexity
Q4_LIMIT = 0.01  # share of the perplexity of llama.cpp's own q4_0
EXACT = ("f32", "f16", "f32 base + LoRA")  # whose greedy answers are ours, ties apart


class _Silent:
    """Steps of the pipeline have nothing to say here."""

    def phase(self, text: str) -> None:
        """Say on stderr what is going on."""
        print(text, file=sys.stderr)

    def progress(self, done: int, total: int) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One file against what it is held to.

    Args:
        file: What it is.
        megabytes: Its size.
        answers: Of llama.cpp with it.
        against: Perplexity that its own is held to.
        limit: Largest share by which it may differ; None: shown only.
        one_sided: Whether a lower perplexity is no miss.
        differing: Prompts that are answered otherwise, with the gap in logit.
    """

    file: str
    megabytes: float
    answers: Answers
    against: float
    limit: float | None
    one_sided: bool
    differing: dict[int, float]

    @property
    def share(self) -> float:
        """By how much the perplexity differs."""
        return self.answers.perplexity / self.against - 1

    @property
    def holds(self) -> bool:
        """Whether it keeps its limits."""
        size = self.share if self.one_sided else abs(self.share)
        close = self.limit is None or size <= self.limit
        return close and (self.file not in EXACT or max(self.differing.values(), default=0.0) <= TIE)

    def line(self, prompts: int) -> str:
        """One line of the table."""
        same = f"{prompts - len(self.differing)}/{prompts}"
        worst = max(self.differing.values(), default=0.0)
        limit = "" if self.limit is None else f"{self.limit:.1%}"
        return (
            f"{self.file:18} {self.megabytes:7.1f} {self.answers.perplexity:11.5f} {self.share:+10.4%} "
            f"{limit:>6} {same:>8} {worst:9.4f}  {'ok' if self.holds else 'MISS'}"
        )


def main(arguments: list[str]) -> int:
    """Prove, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description="Prove a run's GGUF files with llama.cpp itself.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=48, help="most tokens of an answer")
    parser.add_argument("--rows", type=int, default=40, help="most held-out rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--files", type=Path, help="keep the exported files here")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            proofs, ours = prove(chosen, chosen.files or Path(temporary))
    except LoraKitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(proofs, ours, chosen.prompts))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures(proofs, ours), indent=2) + "\n", encoding="utf-8")
    return 0 if all(proof.holds for proof in proofs) else 1


def table(proofs: list[Proof], ours: Answers, prompts: int) -> str:
    """The figures, and every answer that differs."""
    lines = [
        "file                    MB  perplexity  difference  limit  same of  worst gap",
        f"{'ours, float32':18} {'':7} {ours.perplexity:11.5f}",
        *(proof.line(prompts) for proof in proofs),
    ]
    for proof in proofs:
        lines += [
            f"{proof.file}: prompt {number + 1} leaves ours at a token {gap:.4f} below in our logits"
            for number, gap in proof.differing.items()
            if proof.file in EXACT
        ]
    return "\n".join(lines)


def figures(proofs: list[Proof], ours: Answers) -> dict[str, Any]:
    """Everything as JSON."""
    files = {
        proof.file: {
            "megabytes": proof.megabytes,
            "nats": proof.answers.nats,
            "perplexity": proof.answers.perplexity,
            "difference": proof.share,
            "limit": proof.limit,
            "gaps": {str(number + 1): gap for number, gap in proof.differing.items()},
            "holds": proof.holds,
        }
        for proof in proofs
    }
    return {"ours": {"nats": ours.nats, "perplexity": ours.perplexity}, "files": files}


def prove(chosen: argparse.Namespace, folder: Path) -> tuple[list[Proof], Answers]:
    """Export, ask both sides, compare."""
    refuse_other_words(chosen.run)
    files = export_all(chosen.run, folder)
    opened = open_target(str(chosen.run), device="cpu")
    questions = ask_for(opened, chosen)
    side = Ours(opened)
    print("answering with the adapter on its base", file=sys.stderr)
    ours = side.answers(questions)
    proofs: dict[str, Proof] = {}
    for name, (path, adapter) in files.items():
        print(f"llama.cpp: {name}", file=sys.stderr)
        found = ask_llama(path, questions, adapter=adapter, threads=chosen.threads)
        own = name == "q4_0"
        against = proofs["q4_0 by llama.cpp"].answers.perplexity if own else ours.perplexity
        limit = Q4_LIMIT if own else LIMITS.get(name.removesuffix(" base + LoRA"))
        differing = gaps(questions, ours, found, side.logits)
        size = path.stat().st_size / 1e6
        proofs[name] = Proof(name, size, found, against, limit, own, differing)
        print(proofs[name].line(len(questions.prompts)), file=sys.stderr)
    return list(proofs.values()), ours


def refuse_other_words(run: Path) -> None:
    """Refuse a run whose base is cut into words otherwise by now: the GGUF of its base would not be its base.

    Raises:
        ModelError: It is.
    """
    saved = read_adapter(RunDir(run).adapter)
    folders = saved.folder, find_adapter_base(saved, None).folder
    own, base = (json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")) for folder in folders)
    for part in ("normalizer", "pre_tokenizer"):
        if own[part] != base[part]:
            found = f"the {part} of its tokenizer is not that of its base"
            raise ModelError(found, where=str(run), cure="prove a run that was trained with this version")


def ask_for(opened: Opened, chosen: argparse.Namespace) -> Questions:
    """Prompts of the shipped suite, and the run's own held-out rows."""
    recipe = load_resolved(RunDir(chosen.run).adapter / "recipe.yaml")
    rows = prepare_data(recipe.data, opened.encoder).validation
    messages = [item.messages for item in load_suite("quickstart").items[: chosen.prompts]]
    return Questions(
        tuple(tuple(ids) for ids in opened.encoder.encode_prompts(messages)),
        tuple(rows[n] for n in range(min(chosen.rows, len(rows)))),
        opened.encoder.stop_ids,
        chosen.tokens,
    )


def export_all(run: Path, folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """Every file: what it is to its path, and the adapter to put on it."""
    merged = RunDir(run).merged
    if not merged.exists():
        merge_run(run, _Silent())
    files = {quant: _export(merged, quant, folder / quant) for quant in ("f32", "f16", "q8_0", "q4_0")}
    base = _export(_base(run), "f32", folder / "base-f32")
    adapter = folder / "adapter"
    if not adapter.exists():
        export_adapter(RunDir(run).adapter, adapter, ExportRequest("gguf", adapter_only=True))
    theirs = folder / "llama-q4_0.gguf"
    _quantize(files["f16"], theirs)
    return {
        **{name: (files[name], None) for name in ("f32", "f16", "q8_0")},
        "f32 base + LoRA": (base, next(adapter.glob("*.gguf"))),
        "q4_0 by llama.cpp": (theirs, None),
        "q4_0": (files["q4_0"], None),
    }


def _base(run: Path) -> Path:
    return find_adapter_base(read_adapter(RunDir(run).adapter), None).folder


def _export(model: Path, quant: str, out: Path) -> Path:
    if not out.exists():
        print(f"exporting {out.name}", file=sys.stderr)
        source = source_of(find_base(BaseSpec(model=str(model.resolve()))), out.name)
        export_model(source, "gguf", out, ExportOptions(quant, measure_logits=False))
    return next(out.glob("*.gguf"))


def _quantize(path: Path, out: Path) -> None:
    """llama.cpp's own q4_0 of a file."""
    llama_cpp.llama_log_set(_SILENT, None)
    if quantize(str(path), str(out), str(_Q4_0)):
        raise SystemExit(f"llama.cpp can't quantize {path}")
