"""A base, or a base with our adapter, as a model of EleutherAI's lm-evaluation-harness (extra ``lm-eval``).

lm-eval asks for text after text, without a chat template, and its numbers are compared with
published ones. So text becomes ids as its own model for transformers does it (BOS where the
tokenizer puts one; context and continuation encoded together, cut behind the context's own
length; long contexts cut on the left), except that text never becomes a control token. A test
holds the numbers against that model's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from lora_kit.data.encode import Encoder
from lora_kit.data.tokenizer_variants import Place
from lora_kit.errors import DataError, ModelError
from lora_kit.harness.engine import Progress
from lora_kit.model.bare import bare_model
from lora_kit.model.context import context_tokens
from lora_kit.model.generate import start_decoding

BATCH_TOKENS = 2048
DEFAULT_CONTEXT = 2048  # lm-eval's own, for a model that names none
DEFAULT_NEW_TOKENS = 256
Pair = tuple[Any, list[int], list[int]]  # (lm-eval's request, context ids, continuation ids)


class LmEvalModel(TemplateLM):
    """One side of a model, as lm-eval asks it.

    Args:
        model: A causal language model; a PeftModel if it has an adapter.
        encoder: Whose tokenizer is used; the template is not.
        adapter: Whether the adapter is on.
        batch_size: Prompts that are answered at once.
        on_progress: Told (done, total) of each kind of request.

    Raises:
        ModelError: The tokenizer has neither BOS nor EOS, which lm-eval puts before an empty context.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        encoder: Encoder,
        *,
        adapter: bool,
        batch_size: int = 16,
        on_progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self._model = model.eval()
        self._encoder = encoder
        self._adapter = adapter
        self._batch_size = batch_size
        self._on_progress = on_progress or (lambda *_: None)
        self.truncated = 0  # contexts that were cut
        tokenizer = encoder.tokenizer
        opens = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
        if opens is None:
            raise ModelError("the tokenizer has neither BOS nor EOS, and lm-eval needs one")
        self._prefix = opens

    @property
    def eot_token_id(self) -> int:
        """Id that ends a text."""
        eos = self._encoder.tokenizer.eos_id
        return self._prefix if eos is None else eos

    @property
    def prefix_token_id(self) -> int:
        """Id that stands for an empty context."""
        return self._prefix

    @property
    def max_length(self) -> int:
        """Most tokens that the model reads."""
        return context_tokens(self._model.config) or DEFAULT_CONTEXT

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,  # noqa: FBT001 - lm-eval's signature
        **_: Any,  # noqa: ANN401
    ) -> list[int]:
        """Ids of a text, with BOS where the tokenizer puts one by itself, unless told not to."""
        tokenizer = self._encoder.tokenizer
        ids = tokenizer.encode_plain(string, Place.START)
        return [self._prefix, *ids] if tokenizer.adds_bos and add_special_tokens is not False else ids

    def loglikelihood_rolling(
        self,
        requests: list[Any],
        disable_tqdm: bool = False,  # noqa: ARG002, FBT001, FBT002 - lm-eval's signature
    ) -> list[float]:
        """Log-likelihood of whole texts in nats, each token predicted once, windows of the whole context."""
        pairs: list[Pair] = []
        owners = []
        for index, request in enumerate(requests):
            (text,) = request.args
            ids = self.tok_encode(text, add_special_tokens=False)
            windows = get_rolling_token_windows(ids, self._prefix, self.max_length, 1)
            for window in windows:
                pairs.append((None, *make_disjoint_window(window)))
                owners.append(index)
        totals = [0.0] * len(requests)
        for owner, (nats, _) in zip(owners, self._loglikelihood_tokens(pairs), strict=True):
            totals[owner] += nats
        return totals

    def generate_until(
        self,
        requests: list[Any],
        disable_tqdm: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> list[str]:
        """Continue texts greedily up to a stop string, an end mark or the limit.

        Raises:
            DataError: A task wants samples, or more new tokens than the model has room for.
        """
        arguments = [_Until.read(request.args[1]) for request in requests]
        limits = [one.limit for one in arguments]
        if limits and max(limits) >= self.max_length:
            raise DataError(f"a task wants {max(limits)} new tokens, the model reads {self.max_length}")
        rows = [
            self._cut(self.tok_encode(request.args[0]) or [self._prefix], self.max_length - limit)
            for request, limit in zip(requests, limits, strict=True)
        ]
        if not rows:
            return []
        stops = frozenset(self._encoder.stop_ids)
        decoding = start_decoding(self._model, rows, limits, stops, places=self._batch_size)
        answers = [""] * len(rows)
        done = 0
        while decoding.busy:
            with torch.no_grad(), self._side():
                finished = decoding.advance()
            for index, ids in finished:
                end = next((at for at, token in enumerate(ids) if token in stops), len(ids))
                text = self._encoder.tokenizer.decode(ids[:end], Place.MIDDLE)
                answers[index] = arguments[index].cut(text)
                done += 1
            self._on_progress(done, len(rows))
        return answers

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Pair],
        disable_tqdm: bool = False,  # noqa: ARG002, FBT001, FBT002
        **_: Any,  # noqa: ANN401
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, nats, and whether it is the greedy one."""
        limit = self.max_length
        longest = max((len(wanted) for _, _, wanted in requests), default=0)
        if longest > limit:
            raise DataError(f"a task's continuation has {longest} tokens, the model reads {limit}")
        rows = [self._cut([*given, *wanted], limit + 1) for _, given, wanted in requests]
        lengths = [len(wanted) for _, _, wanted in requests]
        found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
        done = 0
        for chosen in _batches([len(row) for row in rows]):
            scored = self._score([rows[at] for at in chosen], [lengths[at] for at in chosen])
            for at, score in zip(chosen, scored, strict=True):
                found[at] = score
            done += len(chosen)
            self._on_progress(done, len(rows))
        return found

    @torch.no_grad()
    def _score(self, rows: Sequence[list[int]], wanted: Sequence[int]) -> list[tuple[float, bool]]:
        """Score the last ``wanted`` tokens of each row; padding is on the right, where no token looks."""
        device = self._model.device
        width = max(len(row) for row in rows) - 1
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row) - 1] = torch.tensor(row[:-1])
            mask[at, : len(row) - 1] = 1
        with self._side():
            base = bare_model(self._model)
            states = base.base_model(
                input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
            ).last_hidden_state
            head = base.get_output_embeddings()
            found = []
            for state, row, count in zip(states, rows, wanted, strict=True):
                logits = head(state[len(row) - 1 - count : len(row) - 1])
                found.append(_judge(logits, row[len(row) - count :]))
        return found

    def _cut(self, ids: list[int], room: int) -> list[int]:
        self.truncated += len(ids) > room
        return ids[-room:]

    def _side(self) -> AbstractContextManager[Any]:
        if isinstance(self._model, PeftModel) and not self._adapter:
            return self._model.disable_adapter()
        return nullcontext()


@dataclass(frozen=True, slots=True)
class _Until:
    """When an answer ends.

    Args:
        stops: Strings; the answer ends before the first of them.
        limit: Most new tokens.
    """

    stops: tuple[str, ...]
    limit: int

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "_Until":
        """Read a task's ``generation_kwargs``."""
        if given.get("do_sample") and float(given.get("temperature") or 0.0) > 0.0:
            raise DataError("a task of lm-eval wants samples, and answers here are greedy", key="do_sample")
        until = given.get("until") or []
        stops = [until] if isinstance(until, str) else until
        names = ("max_gen_toks", "max_new_tokens", "max_tokens")
        limit = next((int(given[name]) for name in names if given.get(name)), DEFAULT_NEW_TOKENS)
        return cls(tuple(stop for stop in stops if stop), limit)

    def cut(self, text: str) -> str:
        """Cut before the first stop string."""
        return text[: min((at for stop in self.stops if (at := text.find(stop)) >= 0), default=len(text))]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in groups of at most ``BATCH_TOKENS`` padded tokens, longest first."""
    group: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        if group and lengths[group[0]] * (len(group) + 1) > BATCH_TOKENS:
            yield group
            group = []
        group.append(at)
    if group:
        yield group


def _judge(logits: Tensor, targets: Sequence[int]) -> tuple[float, bool]:
    """Sum the targets' log-probabilities; ``logits`` is (N, V)."""
    wanted = torch.tensor(targets, dtype=torch.long, device=logits.device)
    scores = torch.log_softmax(logits.float(), dim=-1)
    total = scores.gather(1, wanted[:, None]).double().sum()
    return float(total), bool((scores.argmax(-1) == wanted).all())
