"""One tokenizer, rewritten for the three places in a text where a piece can stand.

Text of users and models must never become a control token, so the rewritten
tokenizers know no added tokens (runs of white space excepted: GPT-NeoX keeps
its indentation in them). SentencePiece-style tokenizers put a space before
every text that they see; a piece in the middle of a text must not get one.
"""

import json
import secrets
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any

Json = dict[str, Any]


class Place(Enum):
    """Where in the text a piece stands."""

    __hash__ = object.__hash__  # Enum's own is slow, and every piece is looked up by this

    START = "start"
    AFTER_CONTROL = "after_control"
    MIDDLE = "middle"


def plain_variant(spec: Json, place: Place, hidden: Collection[str]) -> str:
    """Rewrite a ``tokenizer.json`` so that it reads plain text at one place.

    Args:
        spec: The parsed ``tokenizer.json``; not changed.
        place: Where the pieces stand.
        hidden: The control tokens.

    Returns:
        The JSON text of a tokenizer without control tokens, post-processor, truncation and padding.
    """
    nonce = secrets.token_hex(16)
    names = {token: f"{nonce}:{index}" for index, token in enumerate(sorted(hidden))}
    variant = {**spec, "post_processor": None, "truncation": None, "padding": None}
    # Renamed, not removed: tokens that the vocabulary lacks get their ids by counting.
    variant["added_tokens"] = [
        {**token, "content": names.get(token["content"], token["content"])} for token in spec["added_tokens"]
    ]
    variant["normalizer"] = _without_prefix(spec.get("normalizer"), place)
    variant["pre_tokenizer"] = _without_prefix(spec.get("pre_tokenizer"), place)
    variant["model"] = _renamed(spec["model"], names)
    return json.dumps(variant, ensure_ascii=False)


def decoder_variant(spec: Json, place: Place) -> str:
    """Rewrite a ``tokenizer.json`` so that it decodes exactly what its variant for ``place`` encoded."""
    adds_prefix = any(
        _adds_prefix(part, place)
        for key in ("normalizer", "pre_tokenizer")
        for part in _parts(_without_prefix(spec.get(key), place))
    )
    decoder = spec.get("decoder")
    if not adds_prefix:
        decoder = _edit(decoder, _keep_leading_space)
    return json.dumps({**spec, "decoder": decoder, "truncation": None, "padding": None}, ensure_ascii=False)


def same_everywhere(spec: Json) -> bool:
    """Whether the tokenizer reads (and decodes) a piece alike wherever it stands."""
    return all(
        _without_prefix(spec.get(key), place) == spec.get(key)
        for key in ("normalizer", "pre_tokenizer")
        for place in Place
    )


def _without_prefix(part: Json | None, place: Place) -> Json | None:
    """Take away what puts a space before a piece, where the original would not put one."""
    if place is Place.START:
        return part

    def edit(part: Json) -> Json | None:
        kind = part["type"]
        if kind == "Metaspace" and (place is Place.MIDDLE or part.get("prepend_scheme") == "first"):
            return {**part, "prepend_scheme": "never"}
        if place is Place.MIDDLE and kind == "Prepend":
            return None
        if place is Place.MIDDLE and kind == "ByteLevel":
            return {**part, "add_prefix_space": False}
        return part

    return _edit(part, edit)


def _adds_prefix(part: Json, place: Place) -> bool:
    scheme = part.get("prepend_scheme")
    return part["type"] == "Prepend" or scheme == "always" or (scheme == "first" and place is Place.START)


def _keep_leading_space(part: Json) -> Json | None:
    if part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if part["type"] == "Strip":
        return {**part, "start": 0}
    return part


def _parts(part: Json | None) -> list[Json]:
    """Flatten nested sequences of normalizers, pre-tokenizers or decoders."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [leaf for child in _children(part)[1] for leaf in _parts(child)]


def _edit(part: Json | None, edit: Callable[[Json], Json | None]) -> Json | None:
    """Apply ``edit`` to every leaf of a nested sequence; leaves that become None are dropped."""
    if part is None or part["type"] != "Sequence":
        return None if part is None else edit(part)
    key, children = _children(part)
    edited = [child for child in (_edit(child, edit) for child in children) if child is not None]
    return {**part, key: edited} if edited else None


def _children(part: Json) -> tuple[str, list[Json]]:
    key = next(key for key in ("normalizers", "pretokenizers", "decoders") if key in part)
    return key, part[key]


def _renamed(model: Json, names: Mapping[str, str]) -> Json:
    """Rename control tokens inside the vocabulary, so that no text can spell them; ids stay.

    Without this a unigram model reads the text ``</s>`` as the piece ``</s>``, and a
    BPE model converted from SentencePiece may have merges that lead to it.
    """
    model = dict(model)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): index for token, index in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [[a, b] for a, b in pairs if names.keys().isdisjoint((a, b, a + b))]
    return model
