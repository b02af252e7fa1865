"""Greedy answers to real prompts: lora_kit's decoding against transformers' generate(), tokens a second.

Both sides answer the same prompts with the same float32 weights, 32 rows at a time; generate() gets them in
batches of like length, padded on the left, which is its best case. Loading is timed on neither side, reading
the prompts is. Share of the limit = flops / GEMM rate of the same turn / seconds, with 2 flops a weight for
each token that is read or written, and 2 flops a weight of the head for each token that is written;
attention is not counted. Where tokens differ, float64 says by how much the two candidates do.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_data import BASE, peak_bytes

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT.parent / "shared" / "data" / "train" / "alpaca_en_demo.json"
SIDES = ("transformers", "lora_kit")
Figures = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run the measurement, print a table, and write figures and plot if asked to."""
    parser = argparse.ArgumentParser(prog="scripts/bench generate", description=__doc__)
    parser.add_argument("--rows", type=Path, default=ROWS, help="Alpaca rows as JSON")
    parser.add_argument("--prompts", type=int, default=64, help="how many of them (64)")
    parser.add_argument("--new-tokens", type=int, default=128, help="longest answer (128)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows in flight (32)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side takes its turn (2)")
    parser.add_argument("--base", default=BASE, help="a folder, hub id or package:...")
    parser.add_argument(
        "--rank", type=int, default=0, help="put a random adapter on all linear layers (none)"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plot", type=Path, help="file for a plot (.svg, .png)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lora-kit-bench-") as folder:
        figures = measure(options, Path(folder))
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    if options.plot:
        plot(figures, options.plot)
    return 0


def measure(options: argparse.Namespace, folder: Path) -> Figures:
    """Let the sides take turns in processes of their own, then compare their tokens."""
    job = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}

    def turn(side: str) -> Figures:
        command = [
            sys.executable,
            "-W",
            "ignore",
            __file__,
            json.dumps(job | {"side": side, "folder": str(folder)}),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    turn("find")
    runs: dict[str, list[Figures]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            runs[side].append(turn(side))
    answers = {side: json.loads((folder / f"{side}.json").read_text("utf-8")) for side in SIDES}
    differ = [n for n, pair in enumerate(zip(*answers.values(), strict=True)) if pair[0] != pair[1]]
    speeds = [[run["tokens"] / run["seconds"] for run in runs[side]] for side in SIDES]
    ratios = [ours / theirs for theirs, ours in zip(*speeds, strict=True)]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        **{name: job[name] for name in ("prompts", "new_tokens", "batch_size", "base", "rank")},
        "runs": runs,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "equal_prompts": len(answers["lora_kit"]) - len(differ),
        "differences": turn("gaps")["gaps"] if differ else [],
    }


def table(figures: Figures) -> str:
    """Write the figures for people."""
    asked = f"{figures['prompts']} prompts, up to {figures['new_tokens']} new tokens"
    lines = [
        f"{asked}, {figures['batch_size']} in flight, rank {figures['rank'] or 'none'}, {figures['machine']}",
        f"{'':16}{'seconds':>9}{'tokens':>9}{'tokens/s':>10}{'GFLOP/s':>9}{'of limit':>9}{'peak MB':>9}",
    ]
    for side, runs in figures["runs"].items():
        seconds, rate, share = (
            statistics.median(run[name] for run in runs) for name in ("seconds", "gemm", "share")
        )
        tokens, peak = runs[0]["tokens"], max(run["peak_bytes"] for run in runs) / 1e6
        speed = f"{seconds:>9.1f}{tokens:>9,}{tokens / seconds:>10.1f}"
        lines.append(f"{side:16}{speed}{rate / 1e9:>9.0f}{share:>9.0%}{peak:>9,.0f}")
    each = ", ".join(f"{ratio:.2f}" for ratio in figures["ratios"])
    lines.append(f"lora_kit / transformers: {figures['ratio']:.2f} (turn by turn: {each})")
    lines.append(f"the same tokens for {figures['equal_prompts']} of {figures['prompts']} prompts")
    lines += [
        f"  prompt {gap['prompt']} differs at token {gap['token']}: {gap['right']} is right in float64, "
        f"where the two are {gap['gap']:.1e} apart"
        for gap in figures["differences"]
    ]
    return "\n".join(lines)


def plot(figures: Figures, path: Path) -> None:
    """Draw tokens a second of each turn."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    for place, side in enumerate(SIDES):
        speeds = [run["tokens"] / run["seconds"] for run in figures["runs"][side]]
        axes.bar(place, statistics.median(speeds), width=0.6)
        axes.plot([place] * len(speeds), speeds, "k.")
    axes.set_xticks(range(len(SIDES)), SIDES)
    axes.set_ylabel("new tokens a second")
    axes.set_title(f"greedy, {figures['batch_size']} rows in flight: {figures['ratio']:.2f} x")
    figure.savefig(path)


# --- one side's turn, in a process of its own ---------------------------------------------------------------


def find(job: Figures) -> Figures:
    """Find (or convert) the base, and encode the prompts."""
    from lora_kit.data.open_encoder import open_encoder
    from lora_kit.data.types import Message
    from lora_kit.model.base import find_base
    from lora_kit.recipe.schema import BaseSpec

    files = find_base(BaseSpec(model=job["base"]))
    encoder = open_encoder(files.folder, "model", None)
    rows = json.loads(Path(job["rows"]).read_text("utf-8"))[: job["prompts"]]
    prompts = [[Message("user", row["instruction"], row.get("input", ""))] for row in rows]
    found = {"prompts": encoder.encode_prompts(prompts), "stops": sorted(encoder.stop_ids)}
    (Path(job["folder"]) / "prompts.json").write_text(json.dumps(found), "utf-8")
    return {}


def transformers(job: Figures, model: Any, prompts: list[list[int]], stops: list[int]) -> list[list[int]]:  # noqa: ANN401
    """Answer with generate(): batches of like length, padded on the left."""
    import torch
    from transformers import GenerationConfig

    base = model.get_base_model() if job["rank"] else model
    base.generation_config = GenerationConfig()  # the model's own sampling would leak in
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=job["new_tokens"],
        eos_token_id=stops,
        pad_token_id=stops[0],
        use_cache=True,
    )
    order = sorted(range(len(prompts)), key=lambda at: -len(prompts[at]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), job["batch_size"]):
        chosen = order[start : start + job["batch_size"]]
        width = max(len(prompts[at]) for at in chosen)
        ids = torch.tensor([[0] * (width - len(prompts[at])) + prompts[at] for at in chosen])
        mask = torch.tensor([[0] * (width - len(prompts[at])) + [1] * len(prompts[at]) for at in chosen])
        with torch.inference_mode():
            output = base.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        for at, row in zip(chosen, output[:, width:].tolist(), strict=True):
            end = next((n for n, token in enumerate(row) if token in stops), len(row) - 1)
            answers[at] = row[: end + 1]
    return answers


def lora_kit(job: Figures, model: Any, prompts: list[list[int]], stops: list[int]) -> list[list[int]]:  # noqa: ANN401
    """Answer with slots that are refilled."""
    from lora_kit.model.generate import start_decoding

    limits = [job["new_tokens"]] * len(prompts)
    decoding = start_decoding(model, prompts, limits, frozenset(stops), places=job["batch_size"])
    answers: dict[int, list[int]] = {}
    while decoding.busy:
        answers.update(decoding.advance())
    return [answers[at] for at in range(len(prompts))]


def timed(job: Figures, answer: Callable[..., list[list[int]]]) -> Figures:
    """Load, warm up with two tokens, answer."""
    prompts, stops = _prompts(job)
    model = _open(job, "float32")
    answer(job | {"new_tokens": 2}, model, prompts[:4], stops)
    began = time.perf_counter()
    answers = answer(job, model, prompts, stops)
    seconds = time.perf_counter() - began
    (Path(job["folder"]) / f"{job['side']}.json").write_text(json.dumps(answers), "utf-8")
    weights = {name: w.numel() for name, w in model.named_parameters() if w.ndim == 2 and "lora" not in name}
    head = model.get_output_embeddings().weight.numel()
    embeddings = model.get_input_embeddings().weight.numel()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    layers = sum(weights.values()) - embeddings - (0 if tied else head)
    written = sum(map(len, answers))
    flops = 2 * layers * (sum(map(len, prompts)) + written) + 2 * head * written
    rate = gemm_rate()
    return {"seconds": seconds, "tokens": written, "gemm": rate, "share": flops / rate / seconds}


def gaps(job: Figures) -> Figures:
    """For each prompt whose tokens differ: where, and by how much the candidates do in float64."""
    import torch

    prompts, _ = _prompts(job)
    model = _open(job, "float64")
    both = [json.loads((Path(job["folder"]) / f"{side}.json").read_text("utf-8")) for side in SIDES]
    found = []
    for number, (prompt, theirs, ours) in enumerate(zip(prompts, *both, strict=True)):
        if theirs == ours:
            continue
        at = next(n for n, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1])
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([prompt + ours[:at]]), use_cache=False).logits[0, -1]
        gap = float(scores[ours[at]] - scores[theirs[at]])
        found.append({"prompt": number, "token": at, "gap": abs(gap), "right": SIDES[gap > 0]})
    return {"gaps": found}


def gemm_rate() -> float:
    """Flops a second of a large float32 product, the best of ten."""
    import torch

    size = 1024
    a, b = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def _prompts(job: Figures) -> tuple[list[list[int]], list[int]]:
    found = json.loads((Path(job["folder"]) / "prompts.json").read_text("utf-8"))
    return found["prompts"], found["stops"]


def _open(job: Figures, dtype: str) -> Any:  # noqa: ANN401 - imported late
    """The base as each side loads it, and maybe an adapter on it."""
    import torch
    from transformers import AutoModelForCausalLM

    from lora_kit.model.adapter_inject import add_adapter
    from lora_kit.model.base import find_base
    from lora_kit.model.load import load_model
    from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

    files = find_base(BaseSpec(model=job["base"]))
    if job["side"] == "lora_kit":
        model = load_model(files, dtype=dtype, quantization=QuantizationSpec(), device="cpu")
    else:
        model = AutoModelForCausalLM.from_pretrained(files.folder, dtype=getattr(torch, dtype)).eval()
    if job["rank"]:
        model = add_adapter(model, LoraSpec(rank=job["rank"]), files.family, seed=0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(
                    parameter.data, 0.0, 0.02, generator=torch.Generator().manual_seed(len(name))
                )
    return model


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    task = json.loads(sys.argv[1])
    plain = {"find": find, "gaps": gaps}
    sides: dict[str, Callable[..., list[list[int]]]] = {"transformers": transformers, "lora_kit": lora_kit}
    result = plain[task["side"]](task) if task["side"] in plain else timed(task, sides[task["side"]])
    print(json.dumps(result | {"peak_bytes": peak_bytes()}))
