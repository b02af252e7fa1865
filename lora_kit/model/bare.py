"""The model inside of peft's wrapper; peft changes its layers in place, so it computes with the adapter."""

from peft import PeftModel
from transformers import PreTrainedModel


def bare_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the model without peft's wrapper; one that has none as it is."""
    base: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
    return base
