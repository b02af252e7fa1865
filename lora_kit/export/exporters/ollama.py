"""A folder that ``ollama create NAME -f Modelfile`` takes: the GGUF file and a Modelfile that fits it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_kit.artifacts.commit import write_file
from lora_kit.data.encode import Encoder
from lora_kit.data.types import Message
from lora_kit.errors import ModelError
from lora_kit.export.exporter import Exporter, ExportOptions, ExportSource
from lora_kit.export.gguf.k_quants import K_QUANTS
from lora_kit.export.gguf.make import DEFAULT, MadeFile, make_gguf, size_of
from lora_kit.export.gguf.quantize import NUMBER_TYPES
from lora_kit.export.gguf.read_tokens import FileTokenizer
from lora_kit.export.ollama.go_render import render_go
from lora_kit.export.ollama.go_source import go_source
from lora_kit.export.ollama.modelfile import Modelfile, read_modelfile, write_modelfile
from lora_kit.export.same_tokens import Door, compare_doors, opens_with_bos
from lora_kit.export.turns import find_turns, trims

MODELFILE = "Modelfile"
MOST_CONTEXT_TOKENS = (
    8192  # Ollama sets the memory of a whole context aside; more is the user's wish to state
)


def write(source: ExportSource, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write ``NAME-QUANT.gguf`` and ``Modelfile``.

    Raises:
        ModelError: Ollama's template can't be made, or gives other tokens than the training.
    """
    if source.encoder is None:
        raise ModelError("there is no chat template", where=source.name, cure="export it with --to gguf")
    made = make_gguf(source, folder / f"{source.name}-{options.quant}.gguf", options)
    text = write_modelfile(modelfile_of(source.encoder, made))
    write_file(folder / MODELFILE, text.encode())
    door = ollama_door((folder / MODELFILE).read_text(encoding="utf-8"), made.tokens)
    doors = {"Ollama's template and the GGUF file's tokenizer": door}
    same = compare_doors(source.encoder, doors, trims=trims(source.encoder.template))
    return {**made.report, "modelfile": MODELFILE, "ollama_same_tokens": same.to_json()}


def modelfile_of(encoder: Encoder, made: MadeFile) -> Modelfile:
    """The Modelfile for a file: template without the BOS that Ollama adds, stop marks, system prompt."""
    bos = encoder.tokenizer.bos_token if opens_with_bos(encoder) else ""
    names = {index: token for token, index in encoder.tokenizer.control.items()}
    context = made.plan.architecture.metadata(made.plan.config)["context_length"]
    return Modelfile(
        source=f"./{made.path.name}",
        template=go_source(find_turns(encoder.template), without_bos=bos),
        stops=tuple(sorted(names[index] for index in encoder.stop_ids if index in names)),
        system=encoder.system or None,
        context_tokens=min(int(context), MOST_CONTEXT_TOKENS),
    )


def ollama_door(text: str, tokens: FileTokenizer) -> Door:
    """What Ollama does with a chat: SYSTEM in front, the template rendered, the text encoded.

    Its BOS comes from the file's tokenizer (``add_bos_token``); one of the template's would be a second.
    """
    modelfile = read_modelfile(text)

    def door(messages: Sequence[Message]) -> list[int]:
        led = messages[0].role == "system" or modelfile.system is None
        system = [] if led else [Message("system", str(modelfile.system))]
        return tokens.encode(render_go(modelfile.template, [*system, *messages]))

    return door


EXPORTER = Exporter(
    name="ollama",
    description="a GGUF file and a Modelfile for Ollama",
    default_quant=DEFAULT,
    quants=(*NUMBER_TYPES, *K_QUANTS),
    needs_template=True,
    size=size_of,
    write=write,
    makes_gguf=True,
)
