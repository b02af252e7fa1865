"""The steps of TRL's SFTTrainer."""

import time
from collections.abc import Iterator
from typing import Any

from benches.figures import Figures
from benches.train_sides import CLIP, RATE, Bench, obey


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


if __name__ == "__main__":
    obey(trl)
