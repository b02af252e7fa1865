"""A GGUF file, through llama-cpp-python (extra ``llama``).

Prompts go in as the ids of our own encoder and answers come out as ids, so that neither
llama.cpp's chat template nor its tokenizer has a say: what differs from the transformers
engine is the arithmetic of the file alone. Greedy. No likelihoods: llama-cpp-python keeps
logits of all positions in one array of context x vocabulary, gigabytes for a modern model.

Its own tests have a stand-in for the library; those of tests/llama have the real one.
"""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lora_kit.data.encode import Encoder
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import ModelError
from lora_kit.harness.engine import EngineKind, Generation, Likelihood
from lora_kit.harness.extras import import_extra
from lora_kit.harness.token_engine import cut_answer, prompt_rows
from lora_kit.model.gguf_file import read_gguf

MODULE, EXTRA, LIBRARY = "llama_cpp", "llama", "llama-cpp-python"
LONGEST_CONTEXT = 4096  # llama.cpp reserves its cache for the whole context at once


class LlamaCppEngine:
    """One GGUF file.

    Args:
        name: What to call it in a table.
        path: The file.
        encoder: Text to ids, of the base that the file was made from.
        llama: The loaded ``llama_cpp.Llama``.
    """

    measures_likelihood = False

    def __init__(self, name: str, path: Path, encoder: Encoder, llama: Any) -> None:  # noqa: ANN401
        self.name = name
        self._path = path
        self.encoder = encoder
        self._llama = llama

    @property
    def context_tokens(self) -> int:
        """Most tokens of a prompt and its answer together."""
        return int(self._llama.n_ctx())

    def tokens(
        self, prompt: Sequence[int], temperature: float, top_p: float, seed: int
    ) -> Generator[int, None, None]:
        """Continue a prompt until it is closed; temperature 0 takes the likeliest token."""
        self._llama.set_seed(seed)
        found = self._llama.generate(
            list(prompt), temp=temperature, top_p=top_p, top_k=0, min_p=0.0, repeat_penalty=1.0
        )
        with closing(found):
            for token in found:
                yield int(token)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the file's bytes, the encoder and the library's version."""
        with self._path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        parts = ("llama-cpp-1", content, self.encoder.fingerprint, _library())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        batch_size: int,  # noqa: ARG002 - llama-cpp-python's generate answers one prompt at a time
    ) -> Iterator[tuple[int, Generation]]:
        """Answer greedily, one prompt after another.

        Raises:
            DataError: A prompt leaves no room for an answer.
        """
        context = self.context_tokens
        rows = prompt_rows(self.name, context, self.encoder, prompts)
        for index, row in enumerate(rows):
            yield index, self._answer(row, min(max_new_tokens, context - len(row)))

    def _answer(self, prompt: Sequence[int], limit: int) -> Generation:
        self._llama.reset()  # else a shared beginning is taken from the last prompt, and order matters
        # Greedy is temperature 0; a penalty would still change the choice, so it is said to be none.
        tokens = self._llama.generate(list(prompt), temp=0.0, repeat_penalty=1.0)
        ids: list[int] = []
        with closing(tokens):
            for token in tokens:
                ids.append(int(token))
                if token in self.encoder.stop_ids or len(ids) == limit:  # before the next one is computed
                    break
        return cut_answer(self.encoder, ids)

    def likelihood(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, Likelihood]]:
        """Not measured.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{self.name} is a GGUF file")


def open_gguf(path: Path, encoder: Encoder, *, vocabulary: int, context: int | None) -> LlamaCppEngine:
    """Check and load a GGUF file.

    Args:
        path: The file.
        encoder: Of the base that it was made from.
        vocabulary: Rows of that base's embedding.
        context: Most tokens that the base reads; None for no limit. At most ``LONGEST_CONTEXT`` are used.

    Raises:
        ModelError: No such file, no GGUF file, one that llama.cpp can't load, or of another base.
        MachineError: llama-cpp-python is not installed.
    """
    read_gguf(path)  # else llama.cpp says no more than that it failed
    return load_gguf(path, encoder, vocabulary=vocabulary, context=context)


def load_gguf(path: Path, encoder: Encoder, *, vocabulary: int, context: int | None) -> LlamaCppEngine:
    """Load a GGUF file whose header was read; the arguments are those of ``open_gguf``.

    Raises:
        ModelError: One that llama.cpp can't load, or of another base.
        MachineError: llama-cpp-python is not installed.
    """
    library = import_extra(MODULE, EXTRA)
    tokens = min(context or LONGEST_CONTEXT, LONGEST_CONTEXT)
    try:
        llama = library.Llama(model_path=str(path), n_ctx=tokens, verbose=False)
    except (ValueError, RuntimeError) as error:
        cure = "is this llama.cpp too old for it? pip install --upgrade llama-cpp-python"
        raise ModelError(f"llama.cpp can't load it ({error})", where=str(path), cure=cure) from error
    if llama.n_vocab() != vocabulary:
        found = f"has {llama.n_vocab():,} tokens, and the base {vocabulary:,}"
        raise ModelError(found, where=str(path), cure="pass the base that it was made from (--base)")
    return LlamaCppEngine(path.stem, path, encoder, llama)


def _library() -> str:
    try:
        return f"{LIBRARY} {version(LIBRARY)}"
    except PackageNotFoundError:
        return LIBRARY


ENGINE = EngineKind("llama_cpp", "a GGUF file through llama.cpp (extra llama)", open_gguf)
