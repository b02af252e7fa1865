"""A side that is `lora-kit train` itself: a recipe through ``train_recipe``, which waits after each step."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benches.figures import Figures, peak_bytes, product_rate
from benches.processes import say
from benches.train_sides import CLIP, RATE


def write_recipe(home: Path, job: Figures) -> Figures:
    """Write a recipe into ``home``; return the job of the side that trains it.

    Args:
        home: An own folder for recipe and run.
        job: ``base`` (a folder), ``rows`` (a file), ``limit``, ``steps``, ``batch``, ``micro`` and ``low``.
    """
    recipe = {
        "name": "bench",
        "base": {"model": job["base"]},
        "data": {
            "train": job["rows"],
            "format": "alpaca",
            "limit": job["limit"],
            "validation_fraction": 0.0,
            "max_tokens": 2048,
        },
        "lora": {"rank": 16, "targets": "all-linear"},
        "train": {
            "steps": job["steps"],
            "batch_size": job["batch"],
            "micro_batch_tokens": job["micro"],
            "learning_rate": RATE,
            "schedule": "constant",
            "weight_decay": 0.0,
            "max_grad_norm": CLIP,
            "keep": "last",
        },
        "engine": {"memory": "low" if job["low"] else "standard"},
        "evaluate": {"suites": []},
    }
    home.mkdir()
    path = home / "recipe.yaml"
    path.write_text(json.dumps(recipe), "utf-8")  # JSON is YAML
    return {"recipe": str(path)}


def found_base(base: str) -> str:
    """Find (or convert) a base; its folder."""
    from lora_kit.model.base import find_base
    from lora_kit.recipe.schema import BaseSpec

    return str(find_base(BaseSpec(model=base)).folder)


def write_tiny(folder: str, home: Path) -> str:
    """Write a random model like the one in ``folder``, but with two layers; return its folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(folder, home, ignore=lambda _, names: [n for n in names if ".safetensors" in n])
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = 2
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(home)
    return str(home)


def train(job: Figures) -> None:
    """Train; each step waits for a line on stdin, and its record is the answer.

    The last answer has the peak of memory, and as ``other_seconds`` the time that neither steps nor waiting
    took: reading, encoding, loading, saving.
    """
    began = time.perf_counter()
    from lora_kit.recipe.load import load_recipe
    from lora_kit.train.observe import Silent, StepRecord
    from lora_kit.train_run import train_recipe

    apart, told_to_end = 0.0, False

    def wait() -> float:
        nonlocal apart, told_to_end
        asked = time.perf_counter()
        told_to_end = told_to_end or sys.stdin.readline().strip() in {"", "end"}
        rate = product_rate()
        apart += time.perf_counter() - asked
        return rate

    class OneByOne(Silent):
        rate = 0.0

        def started(self, **_: Any) -> None:  # noqa: ANN401
            say({"ready": "lora_kit"})
            self.rate = wait()

        def stepped(self, record: StepRecord) -> None:
            nonlocal apart
            apart += record.seconds
            if not told_to_end:
                say({**record.to_json(), "tokens": record.total_tokens, "gemm": self.rate})
                self.rate = wait()

    path = Path(job["recipe"])
    train_recipe(load_recipe(path, allow_outside=["/"]), path.parent / "run", OneByOne())
    say({"peak_bytes": peak_bytes(), "other_seconds": time.perf_counter() - began - apart})


if __name__ == "__main__":
    train(json.loads(sys.argv[1]))
