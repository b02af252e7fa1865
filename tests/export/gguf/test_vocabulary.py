"""Tokenizers that came from SentencePiece, as LLaMA 2's: their files read back the same, or are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lora_kit.data.tokenizer import load_tokenizer
from lora_kit.errors import ModelError
from lora_kit.export.gguf.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, vocabulary_refusal
from lora_kit.model.gguf_file import read_gguf

CORPUS = [
    "the quick brown fox jumps over the lazy dog, and then the dog sleeps in the sun",
    "What is the capital of France? Paris is the capital of France.",
    "Name 3 things: the sum is 2829, certainly; translate this, and the answer is there",
]
FIXED = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def train() -> Tokenizer:
    """Pieces in the order of scores, and every pair that makes one of them: as transformers converts."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    joined = ["".join(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    singles = sorted(set("".join(CORPUS)) - {" "} | {"▁"})
    pieces = [*FIXED, *dict.fromkeys(joined), *singles]
    ids = {piece: index for index, piece in enumerate(pieces)}
    merges = [
        (piece[:at], piece[at:])
        for piece in dict.fromkeys(joined)
        for at in range(1, len(piece))
        if piece[:at] in ids and piece[at:] in ids
    ]
    return Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Any) -> Callable[[str], Path]:
    """Factory of tiny models with such a tokenizer; ``scheme`` is where it puts a space."""

    def build(scheme: str) -> Path:
        folder = tmp_path_factory.mktemp("sentencepiece") / "model"
        shutil.copytree(tiny_folder("llama", vocab_size=448), folder)
        (folder / "tokenizer.json").unlink()
        backend = train()
        if scheme == "legacy":
            backend.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        else:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        strip = [decoders.Strip(" ", 1, 0)] if scheme != "never" else []
        backend.decoder = decoders.Sequence([*steps, *strip])
        backend.add_special_tokens(["<unk>", "<s>", "</s>"])
        backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder, save_jinja_files=False)
        return folder

    return build


@pytest.mark.parametrize("scheme", ["legacy", "never"])
def test_sentencepiece_reads_back_the_same(scheme: str, sentencepiece: Any, export: Any) -> None:
    report = export(sentencepiece(scheme), quant="f32", measure_logits=False)
    assert report["same_tokens"]["conversations"] == 64
    header = read_gguf(Path(report["folder"]) / report["file"], lists=True)
    assert header.metadata["tokenizer.ggml.model"] == "llama"
    assert header.metadata["tokenizer.ggml.add_space_prefix"] is (scheme != "never")
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    kinds = header.lists["tokenizer.ggml.token_type"]
    assert list(kinds[:4]) == [UNKNOWN, CONTROL, CONTROL, BYTE]
    scores = header.lists["tokenizer.ggml.scores"]
    ordered = [score for score, kind in zip(scores, kinds, strict=True) if kind == NORMAL]
    assert ordered == sorted(ordered, reverse=True)


def test_a_space_that_llama_cpp_would_put_behind_every_mark_is_refused(
    sentencepiece: Any, export: Any, tmp_path: Path
) -> None:
    """The scheme 'first' has one at the start of a text alone; llama.cpp has no such setting."""
    with pytest.raises(ModelError, match="gives other tokens than the training"):
        export(sentencepiece("first"), quant="f32", measure_logits=False)
    assert not list(tmp_path.glob("*gguf*"))


def test_a_unigram_is_refused_by_name(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unigram"
    shutil.copytree(tiny_llama, folder)
    model = models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0, byte_fallback=False)
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), eos_token="a").save_pretrained(folder)
    assert "does not write Unigram tokenizers" in vocabulary_refusal(load_tokenizer(folder))


def test_scores_out_of_order_are_found(
    sentencepiece: Any, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces whose ids are not their rank would be joined in another order."""
    monkeypatch.setattr(
        "lora_kit.export.gguf.vocabulary._scores", lambda tokens, _: [float(n) for n in range(len(tokens))]
    )
    with pytest.raises(ModelError, match="the exported tokenizer reads"):
        export(sentencepiece("legacy"), quant="f32", measure_logits=False)
