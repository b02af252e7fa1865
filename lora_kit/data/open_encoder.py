"""From a folder's tokenizer and a template's name to the one encoder of training, evaluation and chat.

Needs neither weights nor torch, so that rows can be looked at in seconds.
"""

from pathlib import Path

from lora_kit.data.encode import Encoder
from lora_kit.data.template import load_template
from lora_kit.data.tokenizer import load_tokenizer


def open_encoder(folder: Path, template: str, system: str | None) -> Encoder:
    """Make an encoder.

    Args:
        folder: Holds the tokenizer's files; a relative template path starts here.
        template: ``model``, a template's name, or a ``.jinja`` file.
        system: System prompt for conversations that have none of their own.

    Raises:
        ModelError: There is no usable tokenizer or template, or they don't fit each other.
        RecipeError: No template of this name.
    """
    tokenizer = load_tokenizer(folder)
    return Encoder(tokenizer, load_template(template, tokenizer, folder=folder), system)
