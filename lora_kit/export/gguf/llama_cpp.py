"""What llama.cpp itself makes of a GGUF file, through llama-cpp-python (extra ``llama``).

Our own reader says what a file means; this is the program that it is for. Keys and values are
kept in float32, because llama.cpp's float16 would be one more difference that is not the file's.
Run as a module it reads lines of JSON texts and answers each with a line of ids: llama.cpp ends the
process over a file that it dislikes, and an export has to outlive that.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE, Popen
from types import TracebackType
from typing import Any, Self

import numpy as np

from lora_kit.errors import ModelError
from lora_kit.own_process import own_command, own_environment

Array = np.ndarray[Any, np.dtype[Any]]
_FLOAT32 = 0  # ggml's number for it
_NO_CONTEXT = 16


def is_installed() -> bool:
    """Whether llama-cpp-python is there; it is not imported."""
    return find_spec("llama_cpp") is not None


class LlamaFile:
    """A GGUF file that llama.cpp has opened.

    Args:
        path: The file.
        context: Most tokens of a text.
        adapter: A GGUF LoRA file to put on it.
        threads: Of the arithmetic.
        cache_type: ggml's number for the type of keys and values.

    Raises:
        ModelError: llama.cpp can't open it.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int = 512,
        adapter: Path | None = None,
        threads: int = 2,
        cache_type: int = _FLOAT32,
    ) -> None:
        import llama_cpp

        try:
            self._llama = llama_cpp.Llama(
                model_path=str(path),
                lora_path=None if adapter is None else str(adapter),
                n_ctx=context,
                n_batch=context,
                n_ubatch=context,
                n_threads=threads,
                n_threads_batch=threads,
                logits_all=True,
                type_k=cache_type,
                type_v=cache_type,
                verbose=False,
            )
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"llama.cpp can't open it: {error}", where=str(path)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._llama.close()

    def logits(self, ids: Sequence[int]) -> Array:
        """Logits of every position of one text, float32 ``(tokens, vocabulary)``; overwritten by the next."""
        self._llama.n_tokens = 0  # what it still has of the last text is dropped
        self._llama.eval(list(ids))
        found: Array = self._llama.scores[: len(ids)]
        return found

    def greedy(self, prompt: Sequence[int], *, stops: frozenset[int], limit: int) -> list[int]:
        """The most likely token, again and again; the end mark is included."""
        answer = [int(self.logits(prompt)[-1].argmax())]
        while answer[-1] not in stops and len(answer) < limit:
            self._llama.eval(answer[-1:])
            answer.append(int(self._llama.scores[self._llama.n_tokens - 1].argmax()))
        return answer


class LlamaTokenizer:
    """llama.cpp's own tokenizer of a GGUF file, in a process of its own.

    Args:
        path: The file.

    Raises:
        ModelError: llama.cpp can't open it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = Popen(  # noqa: S603 - our own interpreter and module
            own_command(__name__, str(path)),
            env=own_environment(),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def encode(self, text: str) -> list[int]:
        """Encode a rendered prompt: BOS first if the file says so, control tokens recognised.

        Raises:
            ModelError: llama.cpp broke down over it.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(text) + "\n")
            self._process.stdin.flush()
        return [int(token) for token in self._answer()]

    def _answer(self) -> list[Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._process.communicate()[1].strip().splitlines() or [f"exit {self._process.returncode}"]
            raise ModelError(f"llama.cpp can't read its tokenizer: {said[-1][:200]}", where=str(self._path))
        answer: list[Any] = json.loads(line)
        return answer


def serve_tokens(path: str) -> None:
    """Answer each line of JSON text on stdin with a line of ids, after an empty list that says ready."""
    import llama_cpp

    llama = llama_cpp.Llama(model_path=path, vocab_only=True, n_ctx=_NO_CONTEXT, verbose=False)
    out = sys.stdout
    out.write("[]\n")
    out.flush()
    for line in sys.stdin:
        ids = llama.tokenize(json.loads(line).encode(), add_bos=True, special=True)
        out.write(json.dumps([int(token) for token in ids]) + "\n")
        out.flush()


if __name__ == "__main__":
    serve_tokens(sys.argv[1])
