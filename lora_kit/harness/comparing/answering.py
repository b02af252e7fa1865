"""Lets models answer that have no answers yet, one after another, one copy of a base for all its adapters.

An adapter is put on the base, asked, and taken off again. What the journal of answers holds is not asked
again, and if it holds everything, nothing is loaded: a model's fingerprint comes from its files.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel

from lora_kit.artifacts.adapter import WEIGHTS, SavedAdapter
from lora_kit.assemble import AdapterParts, ModelParts, find_target
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import RecipeError
from lora_kit.harness.comparing.contestants import BASE, Contestant
from lora_kit.harness.engine import Generation, Likelihood
from lora_kit.harness.engines.transformers_engine import TransformersEngine
from lora_kit.model.adapter_inject import attach_adapter
from lora_kit.model.load import load_model

VERSION = "comparing-1"


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk, checked and not loaded.

    Args:
        parts: What it is made of.
        adapter: On the base; None for the base itself.
    """

    parts: ModelParts
    adapter: SavedAdapter | None

    @property
    def copy(self) -> tuple[str, str, str]:
        """What two models must share to share a copy of the weights."""
        parts = self.parts
        return parts.files.fingerprint, parts.dtype, parts.quantization.model_dump_json()

    @cached_property
    def fingerprint(self) -> str:
        """Hash (hex) of all that an answer depends on."""
        parts = [VERSION, *self.copy, self.parts.encoder.fingerprint]
        if self.adapter is not None:
            weights = (self.adapter.folder / WEIGHTS).read_bytes()
            parts += [hashlib.sha256(weights).hexdigest(), json.dumps(self.adapter.config, sort_keys=True)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_model(one: Contestant) -> ModelFiles:
    """Find what a contestant names, with the checks of ``assemble``.

    Raises:
        ModelError: There is no such model, or the adapter belongs to another base.
        RecipeError: The source has no such model.
    """
    if one.model and one.model != BASE:
        raise RecipeError(f"no model '{one.model}' here", where=one.source, cure=f"{one.source}@{BASE}")
    parts = find_target(one.source)
    on_top = parts.adapter if isinstance(parts, AdapterParts) and one.model != BASE else None
    return ModelFiles(parts, on_top)


class OneBase:
    """At most one copy of a base in memory; ``loads`` counts how many there were."""

    def __init__(self) -> None:
        self._held: tuple[tuple[str, str, str], PreTrainedModel] | None = None
        self.loads = 0

    @contextmanager
    def engine(self, name: str, files: ModelFiles) -> Iterator[TransformersEngine]:
        """A loaded model for the block; an adapter is taken off its base afterwards."""
        model, adapter = self._base(files), files.adapter
        encoder, known = files.parts.encoder, files.parts.files.fingerprint
        if adapter is None:
            yield TransformersEngine(name, model, encoder, adapter=False, base_fingerprint=known)
            return
        attached = attach_adapter(model, adapter.config, adapter.tensors())
        attached.eval()
        try:
            yield TransformersEngine(name, attached, encoder, adapter=True, base_fingerprint=known)
        finally:
            attached.unload()

    def _base(self, files: ModelFiles) -> PreTrainedModel:
        if self._held is None or self._held[0] != files.copy:
            self._held = None  # before the next is loaded, so that two are never held
            parts = files.parts
            model = load_model(parts.files, dtype=parts.dtype, quantization=parts.quantization, device="auto")
            self._held = files.copy, model
            self.loads += 1
        return self._held[1]


class WaitingEngine:
    """An engine that loads its model when it is asked something.

    Args:
        name: Of the contestant.
        files: Its model.
        bases: Who holds the weights.
    """

    measures_likelihood = False

    def __init__(self, name: str, files: ModelFiles, bases: OneBase) -> None:
        self.name = name
        self.files = files
        self._bases = bases

    @property
    def fingerprint(self) -> str:
        """Of the files."""
        return self.files.fingerprint

    def generate(
        self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Generation]]:
        """Answer each prompt.

        Raises:
            DataError: A prompt does not fit the model.
            ModelError: The model can't be loaded.
        """
        if prompts:
            with self._bases.engine(self.name, self.files) as engine:
                yield from engine.generate(prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)

    def likelihood(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Likelihood]]:
        """Not measured: a judge reads answers."""
        raise NotImplementedError


def waiting_engines(contestants: Sequence[Contestant]) -> list[WaitingEngine]:
    """Engines of those who have no answers, those of one base one after another.

    Raises:
        ModelError: A model is not there, or does not fit; before any is loaded.
    """
    bases = OneBase()
    found = [WaitingEngine(one.name, find_model(one), bases) for one in contestants if one.side is None]
    return sorted(found, key=lambda engine: engine.files.copy)
