"""What a user names -> the engines that an evaluation compares, the base first."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lora_kit.artifacts.adapter import WEIGHTS
from lora_kit.assemble import AdapterParts, Opened, find_model, find_target, open_target
from lora_kit.errors import ModelError, RecipeError
from lora_kit.harness.engine import Engine
from lora_kit.harness.engines.llama_cpp_engine import LlamaCppEngine, load_gguf
from lora_kit.harness.engines.transformers_engine import TransformersEngine
from lora_kit.model.context import LIMITS
from lora_kit.model.gguf_file import read_gguf

BASE, TUNED = "base", "tuned"
CHOICES = ("transformers", "vllm")


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How an evaluation opens its target, and what it measures besides the suite.

    Args:
        base: Where the adapter's base is now, if it moved; the base that a GGUF file was made from.
        engine: ``transformers`` or ``vllm``; a GGUF file always goes to llama.cpp.
        lm_eval: Tasks of lm-eval to measure as well.
        lm_eval_tasks: A folder with more tasks of that kind.
    """

    base: str | None = None
    engine: str = "transformers"
    lm_eval: tuple[str, ...] = ()
    lm_eval_tasks: Path | None = None


DEFAULTS = EvaluateOptions()


@dataclass(frozen=True, slots=True)
class OpenedEngines:
    """Engines that are ready to answer.

    Args:
        name: Of the target, for folders.
        engines: The baseline first.
        adapter: Folder of the adapter, if there is one.
        opened: The model in process, if transformers holds it.
    """

    name: str
    engines: tuple[Engine, ...]
    adapter: Path | None
    opened: Opened | None = None


def open_engines(target: str, options: EvaluateOptions) -> OpenedEngines:
    """Open a run, an adapter folder, a model or a GGUF file.

    Raises:
        RecipeError: No such engine, or options that don't go together.
        ModelError: There is no such model, or its parts don't belong together.
        MachineError: An optional library is not installed.
    """
    if options.engine not in CHOICES:
        raise RecipeError(f"no engine '{options.engine}'", key="--engine", cure=f"use {' or '.join(CHOICES)}")
    in_process = options.engine == "transformers" and not target.lower().endswith(".gguf")
    if options.lm_eval and not in_process:
        raise RecipeError("lm-eval needs the model in process", key="--lm-eval", cure="leave --engine out")
    if target.lower().endswith(".gguf"):
        if options.engine != "transformers":
            raise RecipeError("a GGUF file goes to llama.cpp", key="--engine", cure="leave --engine out")
        return OpenedEngines(Path(target).stem, (open_gguf_file(target, options.base),), None)
    return _vllm(target, options) if options.engine == "vllm" else _transformers(target, options)


def _transformers(target: str, options: EvaluateOptions) -> OpenedEngines:
    opened = open_target(target, base=options.base)
    sides = [(BASE, False)] if opened.adapter is None else [(BASE, False), (TUNED, True)]
    engines = tuple(
        TransformersEngine(
            name,
            opened.model,
            opened.encoder,
            adapter=adapter,
            base_fingerprint=opened.files.fingerprint,
        )
        for name, adapter in sides
    )
    folder = None if opened.adapter is None else opened.adapter.folder
    return OpenedEngines(opened.name, engines, folder, opened)


def open_gguf_file(target: str, base: str | None) -> LlamaCppEngine:
    """Open a GGUF file.

    Args:
        target: The file.
        base: What it was made from, whose encoder is used: a model's folder, merged or not.

    Raises:
        RecipeError: No base is named.
        ModelError: There is no such file, or it isn't of that base.
        MachineError: llama-cpp-python is not installed.
    """
    path = Path(target)
    read_gguf(path)  # before the base is asked for: with a file that is none, no base helps
    if base is None:
        found = "a GGUF file does not hold our encoder"
        raise RecipeError(found, where=str(path), key="--base", cure="name the base that it was made from")
    made_from = find_model(base)
    config = made_from.files.config
    known = [int(config[name]) for name in LIMITS if config.get(name) is not None]
    vocabulary, context = made_from.files.vocab_size, min(known, default=None)
    return load_gguf(path, made_from.encoder, vocabulary=vocabulary, context=context)


def _vllm(target: str, options: EvaluateOptions) -> OpenedEngines:
    from lora_kit.harness.engines.vllm_engine import VllmEngine, open_llm

    parts = find_target(target, base=options.base)
    weights = (parts.files.fingerprint, parts.dtype)
    if not isinstance(parts, AdapterParts):
        llm = open_llm(parts.files.folder, dtype=parts.dtype, adapter=None)
        return OpenedEngines(parts.name, (VllmEngine(BASE, llm, parts.encoder, weights, adapter=None),), None)
    _refuse_quantized(parts)
    folder, config = parts.adapter.folder, parts.adapter.config
    llm = open_llm(parts.files.folder, dtype=parts.dtype, adapter=config)
    tensors = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    scaling = f"{config.get('lora_alpha')} {config.get('use_rslora')}"
    base = VllmEngine(BASE, llm, parts.encoder, weights, adapter=None)
    tuned = VllmEngine(TUNED, llm, parts.encoder, (*weights, tensors, scaling), adapter=folder)
    return OpenedEngines(parts.name, (base, tuned), folder)


def _refuse_quantized(parts: AdapterParts) -> None:
    if parts.quantization.method != "none":
        raise ModelError(
            f"trained on a base in {parts.quantization.method}, which vLLM would hold otherwise",
            where=str(parts.adapter.folder),
            cure="use the transformers engine, or merge it first: lora-kit merge",
        )
