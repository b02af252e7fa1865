"""A template file of the user's travels with the adapter, and answers with the tokens that were trained."""

from collections.abc import Callable
from pathlib import Path

from lora_kit.assemble import open_target
from lora_kit.cli.app import run
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.types import Message

SOURCE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}: {{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)


def test_a_template_file_travels_with_the_adapter(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = tiny_recipe(data={"template": "mine.jinja"}, train={"steps": 2, "validate_every": None})
    template = tmp_path / "mine.jinja"
    template.write_text(SOURCE)
    assert run(["train", str(recipe), "--run-dir", str(tmp_path / "run")]) == 0
    trained = open_encoder(tmp_path / "base", str(template), None)
    template.unlink()
    opened = open_target(str(tmp_path / "run"))
    question = [Message("user", "How many legs has a fox?")]
    ids = opened.encoder.encode_prompt(question)
    assert ids == trained.encode_prompt(question)
    assert opened.encoder.tokenizer.hf.decode(ids).endswith("<|im_start|>assistant: ")
