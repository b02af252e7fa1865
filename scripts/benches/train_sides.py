"""What all sides of the train bench begin with, and the steps of lora_kit and of a plain loop."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benches.figures import Figures, peak_bytes, product_rate
from benches.processes import say

RATE, CLIP = 2e-4, 1.0


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

    def window(self, what: int | list[str]) -> list[Any]:
        """Rows of step ``what``: its number, or their origins."""
        if isinstance(what, list):
            by_origin = {example.origin: example for example in self.examples}
            return [by_origin[origin] for origin in what]
        first = what * self.job["batch"]
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
    from lora_kit.model.unmap import own_weights
    from lora_kit.recipe.schema import TrainSpec
    from lora_kit.train.optim import build_optimizer, trainable_parameters
    from lora_kit.train.runtime import build_accelerator
    from lora_kit.train.step import Stepper

    model = bench.adapted()
    flops = bench.flops_a_token(model)
    own_weights(model)
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


def obey(side: Callable[[Bench], Any]) -> None:
    """Make the steps that stdin asks for."""
    steps = side(Bench(json.loads(sys.argv[1])))
    next(steps)
    say({"ready": side.__name__})
    for line in sys.stdin:
        if line.strip() == "end":
            say({"peak_bytes": peak_bytes()})
            return
        rate = product_rate()
        say(steps.send(json.loads(line)) | {"gemm": rate})


if __name__ == "__main__":
    obey({"lora_kit": lora_kit, "plain": plain}[json.loads(sys.argv[1])["side"]])
