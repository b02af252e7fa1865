"""From a model folder to a checked GGUF file: plan, write, read back, compare weights, tokens and logits."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lora_kit import __version__
from lora_kit.data.encode import Encoder
from lora_kit.data.template_jinja import load_jinja_template
from lora_kit.data.types import Conversation, Message
from lora_kit.export.exporter import ExportOptions, ExportSource
from lora_kit.export.gguf.check import check_file, compare_weights
from lora_kit.export.gguf.k_quants import K_QUANTS, SOURCE, write_k_quant
from lora_kit.export.gguf.llama_cpp import LlamaTokenizer, is_installed
from lora_kit.export.gguf.logits import compare_logits
from lora_kit.export.gguf.plan import ExportPlan, plan_export
from lora_kit.export.gguf.quantize import NUMBER_TYPES
from lora_kit.export.gguf.read_tokens import FileTokenizer
from lora_kit.export.gguf.vocabulary import vocabulary_metadata
from lora_kit.export.gguf.write import Value, write_gguf
from lora_kit.export.jinja_source import jinja_source
from lora_kit.export.same_tokens import (
    Door,
    certificate_conversations,
    compare_doors,
    compare_texts,
    opens_with_bos,
    with_system,
)
from lora_kit.export.turns import find_turns, render_text, trims

DEFAULT = "q8_0"
CHECKED_TOKENS = 64  # of each conversation: every matrix is used by them, and more cost seconds
CHAT_TEMPLATE = "tokenizer.chat_template"
_PROVENANCE = ("base", "base_fingerprint", "training_fingerprint", "template")


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A GGUF file that passed its checks.

    Args:
        path: The file.
        plan: What it holds.
        tokens: Its tokenizer, as a program reads it.
        report: The certificate's part about it.
    """

    path: Path
    plan: ExportPlan
    tokens: FileTokenizer
    report: dict[str, Any]


def plan_of(source: ExportSource, options: ExportOptions) -> ExportPlan:
    """The file that these options ask for; of K-quants the float16 file that they are made from.

    Raises:
        ModelError: The model can't become GGUF.
    """
    return plan_export(source.folder, SOURCE if options.quant in K_QUANTS else options.quant or DEFAULT)


def size_of(source: ExportSource, options: ExportOptions) -> int:
    """Bytes that writing takes; the vocabulary is a few megabytes."""
    share = 1.5 if options.quant in K_QUANTS else 1  # the float16 file goes when the other is there
    return int(share * plan_of(source, options).data_bytes) + (8 << 20)


def make_gguf(source: ExportSource, path: Path, options: ExportOptions) -> MadeFile:
    """Write and prove a file.

    Raises:
        ModelError: The model can't become GGUF, or the file fails one of its checks.
        MachineError: The type needs llama.cpp, which is not installed.
    """
    plan = plan_of(source, options)
    metadata = file_metadata(source, plan)
    if options.quant in K_QUANTS:
        plan, metadata = write_k_quant(path, plan, metadata, options.quant, options.on_progress)
    else:
        write_gguf(path, plan.architecture.name, metadata, plan.tensors, options.on_progress)
    header = check_file(path, metadata, plan.tensors)
    tokens = FileTokenizer({**header.metadata, **header.lists})
    report = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "architecture": plan.architecture.name,
        "quant": plan.quant,
        "types": dict(sorted(Counter(tensor.kind.name for tensor in plan.tensors).items())),
        "weights": _rounded(compare_weights(path, header, plan.tensors).to_json()),
        **_compare_tokens(source, path, tokens),
    }
    if options.measure_logits:
        rows = check_rows(source)
        report["logits"] = _rounded(compare_logits(source.folder, plan, path, header, rows))
    return MadeFile(path, plan, tokens, report)


def file_metadata(source: ExportSource, plan: ExportPlan) -> dict[str, Value]:
    """Every key of the file besides ``general.architecture``."""
    encoder = source.encoder
    kind = NUMBER_TYPES[plan.quant]
    known = {key: source.provenance[key] for key in _PROVENANCE if source.provenance.get(key)}
    rows = next(tensor.shape[0] for tensor in plan.tensors if tensor.name == "token_embd.weight")
    vocabulary = vocabulary_metadata(
        source.tokenizer,
        rows=rows,
        opens_with_bos=source.tokenizer.adds_bos if encoder is None else opens_with_bos(encoder),
        end_marks=encoder.template.stop_ids if encoder else frozenset(),
        where=str(source.folder),
    )
    general: dict[str, Value] = {
        "general.type": "model",
        "general.name": source.name,
        "general.file_type": kind.file_code,
        **({"general.quantization_version": 2} if kind.block > 1 else {}),
        "lora_kit.version": __version__,
        "lora_kit.weights": source.fingerprint,
        **{f"lora_kit.{key}": value for key, value in known.items()},
    }
    name = plan.architecture.name
    numbers = {f"{name}.{key}": value for key, value in plan.architecture.metadata(plan.config).items()}
    template: dict[str, Value] = {CHAT_TEMPLATE: own_chat_template(encoder)} if encoder else {}
    return {**general, **numbers, **vocabulary, **template}


class TextEncoder(Protocol):
    """A tokenizer, as a program has it that reads the file."""

    def encode(self, text: str) -> list[int]:
        """Encode a rendered prompt: BOS first if the file says so, control tokens recognised."""
        ...


def jinja_door(encoder: Encoder, source: str, tokens: TextEncoder) -> Door:
    """What llama.cpp's server does: render the file's chat template, then encode the text.

    Its Jinja drops a BOS that the template writes if the tokenizer adds one (``common_chat_template``).
    """
    template = load_jinja_template("gguf", source, encoder.tokenizer)
    bos = encoder.tokenizer.bos_token if opens_with_bos(encoder) else ""

    def door(messages: Sequence[Message]) -> list[int]:
        return tokens.encode(render_text(template, with_system(encoder, messages)).removeprefix(bos))

    return door


def check_rows(source: ExportSource, count: int = 6) -> list[tuple[int, ...]]:
    """Token ids to compare logits on: conversations of the certificate, or plain texts of a base."""
    if source.encoder is None:
        texts = ("The capital of France is Paris.", "def f(x):\n    return 2 * x\n")
        return [tuple(source.tokenizer.encode_plain(text)) for text in texts]
    conversations = certificate_conversations(source.encoder, count=count)
    whole = [source.encoder.encode(Conversation(c, "certificate")).input_ids for c in conversations]
    return [ids[:CHECKED_TOKENS] for ids in whole]


def own_chat_template(encoder: Encoder) -> str:
    """The Jinja source of an encoder's template; generated if it is one of lora_kit's named templates.

    Raises:
        ModelError: The template is more than text around turns.
    """
    source = getattr(encoder.template, "source", None)
    return source if isinstance(source, str) else jinja_source(find_turns(encoder.template))


def _compare_tokens(source: ExportSource, path: Path, tokens: FileTokenizer) -> dict[str, Any]:
    """Plain texts and conversations through our reader of the file, and llama.cpp's where it is installed."""
    readers: dict[str, TextEncoder] = {"the GGUF file's chat template and tokenizer": tokens}
    with ExitStack() as opened:
        if is_installed():
            readers["llama.cpp's own tokenizer"] = opened.enter_context(LlamaTokenizer(path))
        texts = [compare_texts(source.tokenizer, reader.encode) for reader in readers.values()]
        return {"texts": sum(texts), "same_tokens": _same_tokens(source.encoder, tokens, readers)}


def _same_tokens(
    encoder: Encoder | None, tokens: FileTokenizer, readers: dict[str, TextEncoder]
) -> dict[str, Any] | None:
    if encoder is None:
        return None
    template = str(tokens.metadata[CHAT_TEMPLATE])
    doors = {name: jinja_door(encoder, template, reader) for name, reader in readers.items()}
    return compare_doors(encoder, doors, trims=trims(encoder.template)).to_json()


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Three digits: last bits depend on the machine, and the same export is to give the same bytes."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in figures.items()
    }
