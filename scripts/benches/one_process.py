"""Rows and a training step for benches whose sides share one process."""

import argparse
import json
from pathlib import Path
from typing import Any

from benches.figures import ROWS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options about rows and steps."""
    parser.add_argument("--rows", type=Path, default=ROWS, help="Alpaca rows as JSON")
    parser.add_argument("--count", type=int, default=16, help="how many of them (16)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows in a step (8)")
    parser.add_argument("--tokens", type=int, default=1024, help="as train.micro_batch_tokens (1024)")


def encoded(folder: Path, options: argparse.Namespace) -> list[Any]:
    """Return the first rows as training has them."""
    from lora_kit.data.open_encoder import open_encoder
    from lora_kit.data.types import Conversation, Message

    encoder = open_encoder(folder, "model", None)
    rows = json.loads(options.rows.read_text("utf-8"))[: options.count]
    turns = [
        (Message("user", row["instruction"], row.get("input", "")), Message("assistant", row["output"]))
        for row in rows
    ]
    return [encoder.encode(Conversation(turn, f"{options.rows.name}:{n}")) for n, turn in enumerate(turns, 1)]


def stepper(files: Any, method: str = "none") -> Any:  # noqa: ANN401
    """Load base, adapter and optimizer into what makes a step of micro-batches."""
    from lora_kit.model.adapter_inject import add_adapter
    from lora_kit.model.load import load_model
    from lora_kit.recipe.schema import LoraSpec, QuantizationSpec, TrainSpec
    from lora_kit.train.optim import build_optimizer, trainable_parameters
    from lora_kit.train.runtime import build_accelerator
    from lora_kit.train.step import Stepper

    model = load_model(files, dtype="float32", quantization=QuantizationSpec(method=method), device="cpu")
    adapted = add_adapter(model, LoraSpec(), files.family, seed=0)
    parameters = trainable_parameters(adapted)
    optimizer = build_optimizer(parameters, TrainSpec())
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # both sides compute the same loss at every step
    return Stepper(adapted, list(parameters.values()), optimizer, build_accelerator("cpu"), 1.0)
