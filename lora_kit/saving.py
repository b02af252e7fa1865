"""What training leaves: the adapter in PEFT's format, with all that is needed to use and to trust it."""

from pathlib import Path
from typing import Any

from lora_kit.artifacts.adapter import save_adapter
from lora_kit.artifacts.metrics_log import stable_digest
from lora_kit.artifacts.model_card import model_card
from lora_kit.assemble import tokenizer_files
from lora_kit.errors import DivergedError, LoraKitError
from lora_kit.inputs import Inputs
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors
from lora_kit.recipe.fingerprint import recipe_fingerprint, training_fingerprint
from lora_kit.recipe.load import dump_recipe
from lora_kit.recipe.schema import Recipe
from lora_kit.train.job import TrainJob, TrainResult
from lora_kit.train.runtime import runtime_identity


def save_result(
    recipe: Recipe,
    inputs: Inputs,
    job: TrainJob,
    result: TrainResult,
    folder: Path,
    sample: dict[str, Any] | None = None,
) -> None:
    """Write the adapter that training ended with, whole or not at all.

    Args:
        recipe: What was asked for.
        inputs: Base, tokenizer and rows.
        job: The run.
        result: How it ended, and the adapter's tensors.
        folder: Where to.
        sample: What was measured of it on held-out rows, so that whoever has the adapter can measure again.

    Raises:
        MachineError: The disk is full or fails.
    """
    files = tokenizer_files(inputs.files.folder)
    own = recipe.data.template.endswith(".jinja")
    template = "model" if own else recipe.data.template  # the user's file travels as the model's own template
    provenance = {
        "base": {
            "source": recipe.base.model,
            "revision": inputs.files.revision,
            "fingerprint": inputs.files.fingerprint,
            "dtype": recipe.base.dtype,
        },
        "quantization": recipe.quantization.model_dump(),
        "init": recipe.lora.init,
        "template": {"name": template, "fingerprint": inputs.encoder.template.fingerprint},
        "system": recipe.data.system,
        "tokenizer_fingerprint": inputs.encoder.tokenizer.fingerprint,
        "encoder_fingerprint": inputs.encoder.fingerprint,
        "recipe_fingerprint": recipe_fingerprint(recipe),
        "training_fingerprint": training_fingerprint(recipe),
        "data_fingerprint": inputs.data.fingerprint,
        "step": result.step,
        "steps": result.steps,
        "validation_loss": result.validation_loss,
        "sample": sample,
        "inexact": list(result.inexact),
        "metrics_digest": stable_digest(job.run.metrics),
        "runtime": runtime_identity(),
    }
    metrics: dict[str, float] = {"Steps": result.steps, "Kept step": result.step}
    if result.validation_loss is not None:
        metrics["Held-out loss (nats per token)"] = result.validation_loss
    save_adapter(
        folder,
        tensors=result.tensors,
        config=adapter_config(job.model, recipe.base.model),
        provenance=provenance,
        files={
            **files,
            **({"chat_template.jinja": Path(recipe.data.template)} if own else {}),
            "recipe.yaml": dump_recipe(recipe).encode(),
            "README.md": model_card(provenance, metrics).encode(),
        },
    )


def save_last_good(recipe: Recipe, inputs: Inputs, job: TrainJob, error: LoraKitError) -> None:
    """Write the adapter of before the step that failed to ``RUN/last_good``."""
    result = TrainResult(0, job.plan.steps, None, inexact=(), tensors=adapter_tensors(job.model))
    save_result(recipe, inputs, job, result, job.run.path / "last_good")
    if isinstance(error, DivergedError):  # a run that was out of memory can go on
        job.run.update_state(status="diverged")
