"""A stand-in encoder whose token counts can be done by hand, and files of rows."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from lora_kit.data.tokenizer import Tokenizer, wrap_tokenizer
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import Problem
from lora_kit.recipe.schema import DataSpec

settings.register_profile("lora_kit", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("lora_kit")

WriteRows = Callable[..., Path]
MakeSpec = Callable[..., DataSpec]


class ByteEncoder:
    """One token per UTF-8 byte, 256 = begin, 257 = end of an answer; context comes before the question."""

    fingerprint = "b" * 64

    def encode(self, conversation: Conversation) -> Example:
        ids, trained, text = [256], [False], ""
        for message in conversation.messages:
            learned = message.role == "assistant" and message.train
            raw = list((message.context + message.content).encode()) + [257] * (message.role == "assistant")
            ids += raw
            trained += [learned] * len(raw)
            text += message.role + message.context + message.content
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Example(tuple(ids), tuple(trained), conversation.origin, digest)

    def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
        return [self.encode(conversation) for conversation in conversations]


@pytest.fixture(scope="session")
def byte_encoder() -> ByteEncoder:
    return ByteEncoder()


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """``write_rows(rows, "name.jsonl")``: rows as a JSONL file, or as a JSON list for a .json name."""

    def write(rows: Iterable[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        rows = list(rows)
        if name.endswith(".json"):
            path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
        else:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        return path

    return write


@pytest.fixture
def make_spec() -> MakeSpec:
    """``make_spec(path, format="alpaca", **other keys)``: no rows held out unless asked for."""

    def make(train: Path, **keys: Any) -> DataSpec:
        return DataSpec(**({"train": str(train), "format": "alpaca", "validation_fraction": 0.0} | keys))

    return make


ROLES = ("prompter", "assistant", "system", "user", "SYSTEM", "USER", "ASSISTANT")
MARKS = (
    "im_start",
    "im_end",
    "end",
    "endoftext",
    "begin_of_text",
    "start_header_id",
    "end_header_id",
    "eot_id",
)
CONTROL = [f"<|{name}|>" for name in (*ROLES, *MARKS)]
CORPUS = [
    "the quick brown fox jumps over the lazy dog and then the dog sleeps in the sun",
    "what is the answer to this question? the answer is that there is no other answer",
    "Below is an instruction that describes a task. ### Instruction: ### Response: USER: ASSISTANT: system",
    "def main():\n    return [INST] héllo wörld </s> <s> <|im_end|> <|im_start|>",
]
KINDS = ("byte_bpe", "sentencepiece_bpe", "sentencepiece_legacy", "unigram")
MakeTokenizer = Callable[[str], Tokenizer]


def byte_level_bpe() -> Backend:
    bpe = Backend(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return bpe


def byte_vocabulary(pieces: Iterable[str]) -> list[str]:
    """SentencePiece's layout: special pieces, bytes, then the rest."""
    fixed = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return fixed + [piece for piece in pieces if piece not in fixed]


def sentencepiece_bpe(*, legacy: bool) -> Backend:
    """As transformers converts LLaMA 2; merges lead to `</s>` as they do in some conversions."""
    trained = Backend(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    merges = [("<", "/"), ("</", "s"), ("</s", ">")]
    merges += [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    singles = sorted({char for line in CORPUS for char in line.replace(" ", "▁")} | set("<>/|_s"))
    vocabulary = byte_vocabulary([*singles, *dict.fromkeys(a + b for a, b in merges)])
    ids = {piece: index for index, piece in enumerate(vocabulary)}
    bpe = Backend(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if legacy:
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    bpe.decoder = decoders.Sequence(steps)
    return bpe


def unigram() -> Backend:
    """Without care, this model reads the text `</s>` as the token: its score of 0 beats every spelling."""
    trained = Backend(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=150, unk_token="<unk>", show_progress=False)
    )
    scores = dict(json.loads(trained.to_str())["model"]["vocab"])
    vocabulary = [(piece, scores.get(piece, 0.0)) for piece in byte_vocabulary(scores)]
    model = Backend(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    model.decoder = decoders.Sequence(steps)
    return model


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """``make_tokenizer(kind)``: it has every template's control tokens; all but byte_bpe put BOS in front."""

    @cache
    def make(kind: str) -> Tokenizer:
        builders = {
            "byte_bpe": byte_level_bpe,
            "sentencepiece_bpe": lambda: sentencepiece_bpe(legacy=False),
            "sentencepiece_legacy": lambda: sentencepiece_bpe(legacy=True),
            "unigram": unigram,
        }
        backend = builders[kind]()
        backend.add_special_tokens(["<s>", "</s>", *CONTROL])
        backend.add_tokens([AddedToken("<tool_call>", normalized=False)])
        if kind != "sentencepiece_legacy":  # which would put a space behind it, in the middle of a text
            backend.add_tokens([AddedToken(" " * 8, normalized=False)])
        if kind != "byte_bpe":
            bos = ("<s>", backend.token_to_id("<s>"))
            backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [bos])
        return wrap_tokenizer(
            PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
        )

    return make


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, make_tokenizer: MakeTokenizer) -> Tokenizer:
    """Each kind of tokenizer in turn."""
    return make_tokenizer(request.param)
