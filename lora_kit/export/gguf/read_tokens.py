"""Token ids of a text as llama.cpp makes them, from nothing but a GGUF file's own metadata.

The witness of the same-tokens certificate: it shares no code with the tokenizer that the file was made
from. Text is cut at control and user-defined tokens, the longest first, then every piece goes through BPE
(``gpt2``) or score-ordered merges (``llama``). Behaviour: ``tokenizer_st_partition``, ``tokenize``,
``llm_tokenizer_bpe`` and ``llm_tokenizer_spm_session`` in ``src/llama-vocab.cpp`` of
github.com/ggml-org/llama.cpp, with ``parse_special`` on, as its server and Ollama call it.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lora_kit.errors import ModelError
from lora_kit.export.gguf.pre_tokenizers import BY_NAME
from lora_kit.export.gguf.vocabulary import CONTROL, UNKNOWN, USER_DEFINED

_KEY = "tokenizer.ggml."
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


@dataclass(frozen=True, eq=False)
class FileTokenizer:
    """A GGUF file's tokenizer.

    Args:
        metadata: The file's keys and values, lists included.
    """

    metadata: Mapping[str, Any]

    def encode(self, text: str) -> list[int]:
        """Encode a rendered prompt: BOS first if the file says so, control tokens recognised."""
        ids = [self.metadata[f"{_KEY}bos_token_id"]] if self.metadata.get(f"{_KEY}add_bos_token") else []
        after_special = True
        for part in self._partition(text):
            if isinstance(part, int):
                ids.append(part)
                after_special = True
            else:
                ids += self._plain(part, after_special=after_special)
                after_special = False
        return ids

    @cached_property
    def tokens(self) -> Sequence[str]:
        """Text of every token."""
        return tuple(self.metadata[f"{_KEY}tokens"])

    @cached_property
    def _specials(self) -> list[tuple[str, int]]:
        kinds = self.metadata[f"{_KEY}token_type"]
        found = [
            (token, index)
            for index, token in enumerate(self.tokens)
            if kinds[index] in {CONTROL, USER_DEFINED, UNKNOWN} and token
        ]
        return sorted(found, key=lambda pair: -len(pair[0].encode()))

    def _partition(self, text: str) -> list[str | int]:
        parts: list[str | int] = [text] if text else []
        for token, index in self._specials:
            if token in text:
                parts = [piece for part in parts for piece in _cut(part, token, index)]
        return parts

    def _plain(self, text: str, *, after_special: bool) -> list[int]:
        if self.metadata[f"{_KEY}model"] == "gpt2":
            ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
            return ids
        prefix = " " if self.metadata.get(f"{_KEY}add_space_prefix", True) and after_special else ""
        return self._merge_by_score((prefix + text).replace(" ", _SPACE))

    @cached_property
    def _bpe(self) -> Any:  # noqa: ANN401 - tokenizers carries no types for us
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        rule = BY_NAME.get(self.metadata[f"{_KEY}pre"])
        if rule is None:
            raise ModelError(f"unknown tokenizer.ggml.pre '{self.metadata[f'{_KEY}pre']}'")
        merges = [tuple(merge.split(" ", 1)) for merge in self.metadata[f"{_KEY}merges"]]
        vocabulary = {token: index for index, token in enumerate(self.tokens)}
        bpe = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=rule.ignore_merges))
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.patterns]
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        return bpe

    @cached_property
    def _by_text(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    def _merge_by_score(self, text: str) -> list[int]:
        """Join the neighbours whose union has the best score, the leftmost of equals, while there are any."""
        pieces = list(text)
        following = [*range(1, len(pieces)), -1]
        before = list(range(-1, len(pieces) - 1))
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            union = pieces[left] + pieces[right] if left >= 0 and right >= 0 else ""
            if union in self._by_text:
                score = self.metadata[f"{_KEY}scores"][self._by_text[union]]
                heapq.heappush(queue, (-score, left, right, union))

        for right in range(1, len(pieces)):
            offer(right - 1, right)
        while queue:
            _, left, right, union = heapq.heappop(queue)
            if not pieces[left] or not pieces[right] or pieces[left] + pieces[right] != union:
                continue
            pieces[left], pieces[right] = union, ""
            following[left] = following[right]
            if following[right] >= 0:
                before[following[right]] = left
            offer(before[left], left)
            offer(left, following[left])
        return [token for piece in pieces if piece for token in self._or_bytes(piece)]

    def _or_bytes(self, piece: str) -> list[int]:
        if piece in self._by_text:
            return [self._by_text[piece]]
        return [self._by_text[f"<0x{byte:02X}>"] for byte in piece.encode()]


def _cut(part: str | int, token: str, index: int) -> list[str | int]:
    """Replace every occurrence of a special token's text by its id."""
    if isinstance(part, int) or token not in part:
        return [part]
    pieces: list[str | int] = []
    for n, text in enumerate(part.split(token)):
        pieces += [index] if n else []
        pieces += [text] if text else []
    return pieces
