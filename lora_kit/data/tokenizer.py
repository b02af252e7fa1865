"""A transformers tokenizer with two doors: control text and plain text.

``tok("<|im_end|>")`` turns what a user typed into the token that ends a turn. Here only the
template may write control tokens: ``encode_plain`` never recognises one, whatever the text. Nothing
is switched on shared objects per call (transformers flips ``encode_special_tokens`` on its backend),
so that threads can share one ``Tokenizer``.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from lora_kit.data.tokenizer_variants import Place, decoder_variant, plain_variant, same_everywhere
from lora_kit.errors import ModelError


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Token ids of text, with control tokens under the template's command only.

    Args:
        hf: The transformers tokenizer; for saving and for its chat template, never for encoding.
        fingerprint: 64 hex digits over vocabulary, rules and special tokens.
        bos_id: Id of the token that opens a text, or None.
        eos_id: Id of the token that ends an answer, or None.
        added: Every added token and its id.
        adds_bos: Whether the tokenizer by itself puts BOS before a text.
        spec: The parsed ``tokenizer.json``.
    """

    hf: Any
    fingerprint: str
    bos_id: int | None
    eos_id: int | None
    added: dict[str, int]
    adds_bos: bool
    spec: dict[str, Any] = field(repr=False)

    @cached_property
    def control(self) -> dict[str, int]:
        """The added tokens that steer the model: all but runs of white space."""
        return {token: index for token, index in self.added.items() if not token.isspace()}

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that plain text can never become."""
        return frozenset(self.control.values())

    @property
    def bos_token(self) -> str:
        """Text of the BOS token; empty if there is none."""
        return self.hf.bos_token or ""

    @property
    def eos_token(self) -> str:
        """Text of the EOS token; empty if there is none."""
        return self.hf.eos_token or ""

    @property
    def stop_ids(self) -> frozenset[int]:
        """The EOS id; what else ends an answer is the template's (see ``Encoder.stop_ids``)."""
        return frozenset() if self.eos_id is None else frozenset({self.eos_id})

    def split_control(self, text: str) -> tuple[str | int, ...]:
        """Cut control text into its control tokens (ids) and the plain text between them."""
        parts = self._splits.get(text)
        if parts is None:
            parts = self._split(text)
            if len(self._splits) < 4096:
                self._splits[text] = parts
        return parts

    def first_control_end(self, text: str) -> int | None:
        """Index behind the first control token in the text, or None if it has none."""
        match = self._pattern.search(text)
        return match.end() if match else None

    def encode_control(self, text: str) -> list[int]:
        """Encode text of the template: control tokens are recognised, nothing is added."""
        ids: list[int] = []
        place = Place.START
        for part in self.split_control(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids.extend(self.encode_plain(part, place))
            place = Place.AFTER_CONTROL
        return ids

    def encode_plain(self, text: str, place: Place = Place.START) -> list[int]:
        """Encode text of a user or model: no control token ever, nothing is added.

        Args:
            text: Any text without lone surrogates.
            place: Where the text stands; decides whether a SentencePiece-style tokenizer
                puts a space before it.
        """
        return self.encode_plain_many([text], place)[0] if text else []

    def encode_plain_many(self, texts: Sequence[str], place: Place) -> list[list[int]]:
        """Encode many pieces at once (in parallel inside the tokenizers library)."""
        encodings = self._plain[place].encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], place: Place = Place.START) -> str:
        """Text of token ids, control tokens visible; the exact inverse of encoding at ``place``."""
        texts = []
        for is_control, run in groupby(ids, self.control_ids.__contains__):
            if is_control:
                texts += [self._names[token] for token in run]
                place = Place.AFTER_CONTROL
            else:
                texts.append(self._decoders[place].decode(list(run), skip_special_tokens=False))
        return "".join(texts)

    @cached_property
    def _names(self) -> dict[int, str]:
        return {index: token for token, index in self.control.items()}

    def _split(self, text: str) -> tuple[str | int, ...]:
        parts: list[str | int] = []
        end = 0
        for match in self._pattern.finditer(text):
            parts += [text[end : match.start()], self._ids[(match.lastindex or 1) - 1]]
            end = match.end()
        return tuple(part for part in [*parts, text[end:]] if part != "")

    @cached_property
    def _splits(self) -> dict[str, tuple[str | int, ...]]:
        return {}

    @cached_property
    def _longest_first(self) -> list[str]:
        return sorted(self.control, key=lambda token: (-len(token), token))

    @cached_property
    def _ids(self) -> list[int]:
        return [self.control[token] for token in self._longest_first]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        flags = {token["content"]: token for token in self.spec["added_tokens"]}
        patterns = (_matcher(token, flags.get(token, {})) for token in self._longest_first)
        return re.compile("|".join(patterns) or r"(?!)")

    @cached_property
    def _plain(self) -> dict[Place, Backend]:
        return self._variants(lambda place: plain_variant(self.spec, place, self.control.keys()))

    @cached_property
    def _decoders(self) -> dict[Place, Backend]:
        return self._variants(lambda place: decoder_variant(self.spec, place))

    def _variants(self, rewrite: Callable[[Place], str]) -> dict[Place, Backend]:
        if same_everywhere(self.spec):
            return dict.fromkeys(Place, Backend.from_str(rewrite(Place.START)))
        return {place: Backend.from_str(rewrite(place)) for place in Place}


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load a fast tokenizer from a local folder; no network, no remote code.

    Args:
        folder: Holds ``tokenizer.json`` (or what transformers can make one of) and ``tokenizer_config.json``.

    Raises:
        ModelError: There is no tokenizer in the folder, it can't be read, or it is a slow one.
    """
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise ModelError("there is no such folder to load a tokenizer from", where=str(folder))
    try:
        hf = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a corrupt file
        first_line = str(error).strip().split("\n", 1)[0][:200]
        raise ModelError(
            f"no usable tokenizer ({type(error).__name__}: {first_line})",
            where=str(folder),
            cure="the folder needs tokenizer.json and tokenizer_config.json of the base model",
        ) from error
    if not hasattr(hf, "backend_tokenizer"):
        raise ModelError(
            f"{type(hf).__name__} is a slow tokenizer", where=str(folder), cure="add its tokenizer.json"
        )
    return wrap_tokenizer(hf)


def wrap_tokenizer(hf: Any) -> Tokenizer:  # noqa: ANN401 - transformers' classes carry no types for us
    """Wrap a fast transformers tokenizer that is already loaded."""
    backend = hf.backend_tokenizer
    spec: dict[str, Any] = json.loads(backend.to_str())
    # Calls through transformers leave their truncation and padding behind in the backend.
    spec["truncation"] = spec["padding"] = None
    added = {token["content"]: token["id"] for token in spec["added_tokens"]}
    # A special token that lives in the vocabulary alone is still a control token.
    added.update(
        {token: hf.convert_tokens_to_ids(token) for token in hf.all_special_tokens if token not in added}
    )
    first = backend.encode("a", add_special_tokens=True).ids[:1]
    identity = json.dumps([spec, hf.special_tokens_map], sort_keys=True, ensure_ascii=True, default=str)
    return Tokenizer(
        hf=hf,
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        bos_id=hf.bos_token_id,
        eos_id=hf.eos_token_id,
        added=added,
        adds_bos=hf.bos_token_id is not None and first == [hf.bos_token_id],
        spec=spec,
    )


def _matcher(token: str, flags: dict[str, Any]) -> str:
    """Regular expression of an added token, with the flags that the tokenizers library gives it."""
    pattern = f"({re.escape(token)})"
    if flags.get("single_word"):
        pattern = rf"(?<!\w){pattern}(?!\w)"
    before = r"\s*" if flags.get("lstrip") else ""
    after = r"\s*" if flags.get("rstrip") else ""
    return f"(?:{before}{pattern}{after})"
