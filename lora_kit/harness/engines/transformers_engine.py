"""Base, adapter or merged model in process, through transformers.

Base and adapter are two engines on one copy of the weights: the base is the same
model with its adapter switched off. ``model.generate`` answers many prompts at once,
and gives a finished row's place to the next prompt.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from lora_kit.catalogue import FAMILIES
from lora_kit.data.encode import Encoder
from lora_kit.data.layout import layout_of
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import ModelError
from lora_kit.harness.engine import EngineKind, Generation, Likelihood
from lora_kit.harness.token_engine import answer_bytes, check_room, cut_answer
from lora_kit.model.context import context_tokens, room
from lora_kit.model.forward import example_nats
from lora_kit.model.generate import start_decoding
from lora_kit.model.lora_ops import ADAPTER

MICRO_BATCH_TOKENS = 2048


class TransformersEngine:
    """One model, or one side of a model with an adapter.

    Args:
        name: What to call it in a table.
        model: A causal language model; a PeftModel if it has an adapter.
        encoder: Text to ids, as in training.
        adapter: Whether the adapter is on; False on a PeftModel is the base. A name where there are several.
        base_fingerprint: Hash of the base's weights where it is known; else they are hashed when needed.

    Raises:
        ModelError: ``adapter`` is asked for and there is none, or none of this name.
    """

    measures_likelihood = True

    def __init__(
        self,
        name: str,
        model: PreTrainedModel | PeftModel,
        encoder: Encoder,
        *,
        adapter: bool | str,
        base_fingerprint: str | None = None,
    ) -> None:
        self.name = name
        self._model = model
        self._encoder = encoder
        self._adapter = ADAPTER if adapter is True else adapter or None
        self._base_fingerprint = base_fingerprint
        known = model.peft_config if isinstance(model, PeftModel) else {}
        if adapter and (ADAPTER if adapter is True else adapter) not in known:
            raise ModelError(f"{name} has no adapter to switch on")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of base, adapter (if on), number type and encoder."""
        named = dict(self._model.named_parameters())
        base = self._base_fingerprint or _hash_tensors({k: v for k, v in named.items() if "lora_" not in k})
        mark = f".{self._adapter}."  # the name is no part of the adapter
        own = {k.replace(mark, f".{ADAPTER}."): v for k, v in named.items() if "lora_" in k and mark in k}
        adapter = f"{_hash_tensors(own)} {self._scaling()}" if self._adapter else "no adapter"
        numbers = f"{self._model.dtype} {getattr(self._model.config, 'quantization_config', None)}"
        parts = ("transformers-2", base, adapter, numbers, self._encoder.fingerprint)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _scaling(self) -> str:
        """What of the adapter's configuration its tensors don't say."""
        assert isinstance(self._model, PeftModel)
        config = self._model.peft_config[self._adapter]
        names = ("lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern", "use_dora")
        return " ".join(f"{name}={getattr(config, name, None)}" for name in names)

    def generate(
        self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Generation]]:
        """Answer greedily, ``batch_size`` rows in flight; each answer is yielded when it is finished.

        Raises:
            DataError: A prompt leaves no room for an answer.
        """
        rows = self._encoder.encode_prompts(prompts)
        sizes = [(len(row) + 1, _excerpt(messages)) for row, messages in zip(rows, prompts, strict=True)]
        check_room(self.name, context_tokens(self._model.config), sizes)
        limits = [room(self._model.config, len(row), max_new_tokens) for row in rows]
        decoding = start_decoding(
            self._model, rows, limits, frozenset(self._encoder.stop_ids), places=batch_size
        )
        while decoding.busy:
            with self._at_work():
                finished = decoding.advance()
            for index, ids in finished:
                yield index, cut_answer(self._encoder, ids)

    def likelihood(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Likelihood]]:
        """Measure the answers that are marked as trained, end mark included, in micro-batches.

        Raises:
            DataError: A conversation is longer than the model reads.
        """
        examples = self._encoder.encode_many(conversations)
        lengths = [len(example.input_ids) for example in examples]
        sizes = [(n, c.origin) for n, c in zip(lengths, conversations, strict=True)]
        check_room(self.name, context_tokens(self._model.config), sizes)
        layout = layout_of(flattened=_lies_flat(self._model.config.model_type))
        for chosen in layout.plan(examples, MICRO_BATCH_TOKENS):
            batch = layout.collate([examples[index] for index in chosen]).to(self._model.device)
            with self._at_work():
                nats = example_nats(self._model, batch).tolist()
            for index, value in zip(chosen, nats, strict=True):
                utf8_bytes = answer_bytes(conversations[index])
                yield index, Likelihood(value, examples[index].trained_tokens, utf8_bytes)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Evaluation mode, no gradients, the adapter on or off; everything is put back afterwards."""
        was_training = self._model.training
        trainable = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._model.eval()
        try:
            # Not inference_mode: what a model caches in there could never be trained through again.
            with torch.no_grad(), self._side():
                yield
        finally:
            self._model.train(was_training)
            for parameter in self._model.parameters():
                parameter.requires_grad_(requires_grad=False)
            for parameter in trainable:
                parameter.requires_grad_()

    @contextmanager
    def _side(self) -> Iterator[None]:
        """The base, or one of its adapters; switching copies nothing."""
        if not isinstance(self._model, PeftModel):
            yield
        elif self._adapter is None:
            with self._model.disable_adapter():
                yield
        else:
            before = self._model.active_adapter
            self._model.set_adapter(self._adapter)
            try:
                yield
            finally:
                self._model.set_adapter(before)


def _lies_flat(model_type: str) -> bool:
    """Whether rows may be laid end to end; padding is right for every model."""
    families = (FAMILIES[name] for name in FAMILIES)
    return any(family.flattened for family in families if model_type in family.model_types)


def _excerpt(messages: Sequence[Message]) -> str:
    text = " ".join(messages[-1].content.split())
    return f"prompt '{text[:40]}...'" if len(text) > 40 else f"prompt '{text}'"


def _hash_tensors(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


ENGINE = EngineKind("transformers", "a model or adapter on this machine, in process", TransformersEngine)
