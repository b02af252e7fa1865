"""Base and adapter through vLLM's offline ``LLM``, for those who outgrow one machine (extra ``vllm``).

Prompts go in as token ids and answers come out as token ids of our own encoder; vLLM's
template and detokenizer are not used. Only our stop ids end an answer: ``ignore_eos`` keeps
vLLM from adding those of ``generation_config.json``. What vLLM would leave out of an adapter
without a word is refused. Calls follow vLLM's documentation of ``LLM``, ``SamplingParams``,
``TokensPrompt`` and ``LoRARequest``.

Tested with a stand-in for the library; vLLM itself has not been run here.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_kit.data.encode import Encoder
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import ModelError, Problem
from lora_kit.harness.engine import EngineKind, Generation, Likelihood
from lora_kit.harness.extras import import_extra
from lora_kit.harness.token_engine import answer_bytes, check_room, cut_answer, prompt_rows

MODULE, EXTRA = "vllm", "vllm"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes for max_lora_rank
TOGETHER = 256  # prompts a call: vLLM batches by itself, and what is done is kept between calls
ADAPTER_ID = 1  # 0 is the base
UNSUPPORTED = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
)


class VllmEngine:
    """The base, or the base with an adapter; both share one ``LLM``.

    Args:
        name: What to call it in a table.
        llm: ``vllm.LLM``.
        encoder: Text to ids, as in training.
        weights: Fingerprint of the base, number type, and the adapter's tensors if there is one.
        adapter: Folder of the adapter; None for the base.
    """

    measures_likelihood = True

    def __init__(
        self,
        name: str,
        llm: Any,  # noqa: ANN401 - vLLM is optional
        encoder: Encoder,
        weights: Sequence[str],
        *,
        adapter: Path | None,
    ) -> None:
        self.name = name
        self._llm = llm
        self._encoder = encoder
        self._weights = tuple(weights)
        self._vllm = import_extra(MODULE, EXTRA)
        self._request = None
        if adapter is not None:
            lora = import_extra("vllm.lora.request", EXTRA)
            self._request = lora.LoRARequest(name, ADAPTER_ID, str(adapter))

    @property
    def fingerprint(self) -> str:
        """Hash of base, adapter (if on), number type, encoder and vLLM's version."""
        version = f"vllm {getattr(self._vllm, '__version__', '')}"
        parts = ("vllm-1", version, *self._weights, self._encoder.fingerprint)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def generate(
        self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, batch_size: int
    ) -> Iterator[tuple[int, Generation]]:
        """Answer greedily; at least ``TOGETHER`` prompts go into one call.

        Raises:
            DataError: A prompt leaves no room for an answer.
        """
        context = self._context
        rows = prompt_rows(self.name, context, self._encoder, prompts)
        settings = [
            self._vllm.SamplingParams(
                temperature=0.0,
                max_tokens=min(max_new_tokens, context - len(row)),
                stop_token_ids=sorted(self._encoder.stop_ids),
                ignore_eos=True,
                detokenize=False,
            )
            for row in rows
        ]
        for index, output in self._run(rows, settings, max(batch_size, TOGETHER)):
            yield index, cut_answer(self._encoder, list(output.outputs[0].token_ids))

    def likelihood(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Likelihood]]:
        """Measure the answers that are marked as trained, end mark included.

        Raises:
            DataError: A conversation is longer than the model reads.
        """
        examples = self._encoder.encode_many(conversations)
        # vLLM writes one token after what it reads, and that needs a place, too.
        sizes = [(len(example.input_ids) + 1, example.origin) for example in examples]
        check_room(self.name, self._context, sizes)
        # prompt_logprobs=0: the log-probability of each prompt token, and of no alternatives.
        setting = self._vllm.SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False
        )
        rows = [list(example.input_ids) for example in examples]
        for index, output in self._run(rows, [setting] * len(rows), TOGETHER):
            example = examples[index]
            nats = -sum(
                float(output.prompt_logprobs[at][token].logprob)
                for at, token in enumerate(example.input_ids)
                if example.trained[at]
            )
            yield index, Likelihood(nats, example.trained_tokens, answer_bytes(conversations[index]))

    def _run(
        self, rows: Sequence[list[int]], settings: Sequence[Any], together: int
    ) -> Iterator[tuple[int, Any]]:
        """Ask in parts; vLLM returns outputs in the order of the prompts."""
        for start in range(0, len(rows), together):
            part = slice(start, start + together)
            outputs = self._llm.generate(
                [self._vllm.TokensPrompt(prompt_token_ids=row) for row in rows[part]],
                list(settings[part]),
                use_tqdm=False,
                lora_request=self._request,
            )
            yield from zip(range(start, start + len(outputs)), outputs, strict=True)

    @property
    def _context(self) -> int:
        return int(self._llm.llm_engine.model_config.max_model_len)


def open_llm(folder: Path, *, dtype: str, adapter: Mapping[str, Any] | None) -> Any:  # noqa: ANN401
    """Load a base into vLLM, with room for one adapter.

    Args:
        folder: The base.
        dtype: Number type, as in training.
        adapter: Content of ``adapter_config.json``; None for a base alone.

    Raises:
        ModelError: The adapter has what vLLM leaves out.
        MachineError: vLLM is not installed.
    """
    more: dict[str, Any] = {}
    if adapter is not None:
        _refuse_what_is_left_out(adapter)
        rank = int(adapter["r"])
        room = next((known for known in RANKS if known >= rank), None)
        if room is None:
            raise ModelError(f"the adapter's rank is {rank}, vLLM takes up to {RANKS[-1]}")
        more = {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
    library = import_extra(MODULE, EXTRA)
    return library.LLM(model=str(folder), dtype=dtype, seed=0, trust_remote_code=False, **more)


def _refuse_what_is_left_out(adapter: Mapping[str, Any]) -> None:
    cure = "use the transformers engine, or merge it first: lora-kit merge"
    found = [name for name in UNSUPPORTED if adapter.get(name)]
    if adapter.get("bias", "none") != "none":
        found.append("bias")
    if found:
        raise ModelError.collect(
            [Problem("vLLM does not serve adapters with it", key=n, cure=cure) for n in found]
        )


ENGINE = EngineKind("vllm", "base and adapter through vLLM, offline (extra vllm)", VllmEngine)
