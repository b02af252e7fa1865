"""A tokenizer as GGUF metadata: tokens, their types, merges or scores, and the ids that steer.

Two kinds: byte-level BPE (``gpt2``) and what came from SentencePiece with bytes to fall back on (``llama``).
Facts: ``_set_vocab_gpt2``, ``_set_vocab_llama_hf`` in ``conversion/base.py`` and ``llama_vocab::impl::load``
in ``src/llama-vocab.cpp`` of github.com/ggml-org/llama.cpp.
"""

import re
from collections.abc import Mapping
from typing import Any

from lora_kit.data.tokenizer import Tokenizer
from lora_kit.errors import ModelError
from lora_kit.export.gguf.pre_tokenizers import find_pre_tokenizer, signature_of
from lora_kit.export.gguf.write import Value

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_KEY = "tokenizer.ggml."


def vocabulary_metadata(
    tokenizer: Tokenizer, *, rows: int, opens_with_bos: bool, end_marks: frozenset[int], where: str
) -> dict[str, Value]:
    """Write a tokenizer as GGUF keys.

    Args:
        tokenizer: As training used it.
        rows: Rows of the embedding; the vocabulary is filled up to them.
        opens_with_bos: Whether a text opens with BOS, so that the program that reads the file adds it.
        end_marks: Ids that end an answer.
        where: The tokenizer's folder, for messages.

    Raises:
        ModelError: llama.cpp has no tokenizer of this kind.
    """
    tokens, types = tokens_and_types(tokenizer, rows, where=where)
    kind = (
        _bytes_bpe(tokenizer, where) if _is_byte_level(tokenizer.spec) else _sentencepiece(tokenizer, where)
    )
    lists: dict[str, Value] = {f"{_KEY}tokens": tokens, f"{_KEY}token_type": types}
    scores = {f"{_KEY}scores": _scores(tokens, types)} if kind[f"{_KEY}model"] == "llama" else {}
    adds: dict[str, Value] = {f"{_KEY}add_bos_token": opens_with_bos, f"{_KEY}add_eos_token": False}
    return {**kind, **lists, **scores, **_ids(tokenizer, end_marks, where), **adds}


def vocabulary_refusal(tokenizer: Tokenizer) -> str:
    """Say why a tokenizer can't become GGUF; empty if it can."""
    try:
        _bytes_bpe(tokenizer, "") if _is_byte_level(tokenizer.spec) else _sentencepiece(tokenizer, "")
    except ModelError as error:
        return error.problems[0].found
    return ""


def tokens_and_types(tokenizer: Tokenizer, rows: int, *, where: str) -> tuple[list[str], list[int]]:
    """List every token's text and type, by id."""
    spec = tokenizer.spec
    vocabulary = {**spec["model"]["vocab"], **tokenizer.added}
    beyond = [token for token, index in vocabulary.items() if index >= rows]
    if beyond:
        raise ModelError(f"{len(beyond)} tokens have no row in the embedding of {rows}", where=where)
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [UNUSED] * rows
    special = {entry["content"] for entry in spec["added_tokens"] if entry["special"]}
    special |= set(tokenizer.hf.all_special_tokens)
    bytes_fall_back = bool(spec["model"].get("byte_fallback"))
    for token, index in vocabulary.items():
        tokens[index] = token
        types[index] = NORMAL
        if token in special:
            types[index] = UNKNOWN if token == spec["model"].get("unk_token") and bytes_fall_back else CONTROL
        elif token in tokenizer.added:
            types[index] = USER_DEFINED
        elif bytes_fall_back and _BYTE_TOKEN.fullmatch(token):
            types[index] = BYTE
    return tokens, types


def _is_byte_level(spec: Mapping[str, Any]) -> bool:
    return spec["model"]["type"] == "BPE" and not spec["model"].get("byte_fallback")


def _bytes_bpe(tokenizer: Tokenizer, where: str) -> dict[str, Value]:
    spec = tokenizer.spec
    rule = find_pre_tokenizer(spec)
    if rule is None:
        raise ModelError(
            f"llama.cpp has no rule for a tokenizer that splits by {signature_of(spec.get('pre_tokenizer'))}",
            where=where,
            key="tokenizer.json: pre_tokenizer",
            cure="export it with --to safetensors",
        )
    merges = spec["model"]["merges"]
    joined = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return {f"{_KEY}model": "gpt2", f"{_KEY}pre": rule.name, f"{_KEY}merges": joined}


def _sentencepiece(tokenizer: Tokenizer, where: str) -> dict[str, Value]:
    model = tokenizer.spec["model"]
    if model["type"] != "BPE":
        raise ModelError(
            f"lora_kit does not write {model['type']} tokenizers to GGUF",
            where=where,
            key="tokenizer.json: model.type",
            cure="export it with --to safetensors",
        )
    opening = str(tokenizer.spec.get("normalizer")) + str(tokenizer.spec.get("pre_tokenizer"))
    prefix = "'Prepend'" in opening or "'first'" in opening or "'always'" in opening
    return {f"{_KEY}model": "llama", f"{_KEY}pre": "default", f"{_KEY}add_space_prefix": prefix}


def _scores(tokens: list[str], types: list[int]) -> list[float]:
    """SentencePiece numbers its pieces from the likeliest down, so minus the id orders them as scores do."""
    return [-float(index) if kind == NORMAL else 0.0 for index, kind in enumerate(types[: len(tokens)])]


def _ids(tokenizer: Tokenizer, end_marks: frozenset[int], where: str) -> dict[str, Value]:
    eos = tokenizer.eos_id if tokenizer.eos_id is not None else min(end_marks, default=None)
    if eos is None:
        raise ModelError("the tokenizer has no token that ends a text", where=where, cure="set eos_token")
    hf = tokenizer.hf
    ids = {
        "bos": tokenizer.bos_id,
        "eos": eos,
        "unknown": hf.unk_token_id,
        "padding": hf.pad_token_id,
        # llama.cpp stops at this one as it does at EOS.
        "eot": min(end_marks - {eos}, default=None),
    }
    return {f"{_KEY}{name}_token_id": index for name, index in ids.items() if index is not None}
