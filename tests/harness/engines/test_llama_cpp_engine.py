"""The llama.cpp engine against a stand-in: what it is asked, and what becomes of its tokens."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGUFWriter

from lora_kit.catalogue import ENGINES
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.types import Message
from lora_kit.errors import DataError, MachineError, ModelError, RecipeError
from lora_kit.harness.engines import llama_cpp_engine
from lora_kit.harness.engines.llama_cpp_engine import open_gguf
from lora_kit.harness.open_engines import EvaluateOptions, open_engines

PROMPTS = [[Message("user", "hi")], [Message("user", "the quick brown fox")]]
VOCABULARY = 300


class Llama:
    """As much of ``llama_cpp.Llama`` as is used; continues every prompt with ``script``."""

    script: tuple[int, ...] = ()
    computed = 0

    def __init__(self, *, model_path, n_ctx, verbose):
        self.asked = {"model_path": model_path, "n_ctx": n_ctx, "verbose": verbose}
        self.calls = []

    def n_ctx(self):
        return self.asked["n_ctx"]

    def n_vocab(self):
        return VOCABULARY

    def reset(self):
        self.calls.append("reset")

    def generate(self, tokens, **settings):
        self.calls.append((tuple(tokens), settings))
        for token in self.script:
            self.computed += 1
            yield token
        pytest.fail("asked for more than the script holds")


@pytest.fixture
def encoder(tiny_llama):
    return open_encoder(tiny_llama, "model", None)


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=Llama))
    monkeypatch.setattr(Llama, "script", ())


def write_gguf(path, note):
    writer = GGUFWriter(path, "llama")
    writer.add_description(note)
    writer.add_tensor("output.weight", np.ones((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, "one")
    return path


def opened(gguf, encoder, context=64):
    return open_gguf(gguf, encoder, vocabulary=VOCABULARY, context=context)


def test_prompts_are_our_ids_and_decoding_is_greedy(library, gguf, encoder, monkeypatch):
    ids = encoder.tokenizer.encode_plain("the dog")
    stop = min(encoder.stop_ids)
    monkeypatch.setattr(Llama, "script", (*ids, stop))
    engine = opened(gguf, encoder)
    found = dict(engine.generate(PROMPTS, max_new_tokens=20, batch_size=8))
    greedy = {"temp": 0.0, "repeat_penalty": 1.0}
    expected = [part for p in PROMPTS for part in ("reset", (tuple(encoder.encode_prompt(p)), greedy))]
    assert engine._llama.calls == expected
    assert engine._llama.asked == {"model_path": str(gguf), "n_ctx": 64, "verbose": False}
    for answer in (found[0], found[1]):
        assert answer.text == encoder.decode_answer(ids)
        assert (answer.tokens, answer.stopped) == (len(ids) + 1, True)


def test_it_computes_no_token_beyond_the_limit(library, gguf, encoder, monkeypatch):
    ids = encoder.tokenizer.encode_plain("the quick brown fox jumps over the lazy dog")
    monkeypatch.setattr(Llama, "script", tuple(ids))
    engine = opened(gguf, encoder)
    [(_, answer)] = engine.generate(PROMPTS[:1], max_new_tokens=3, batch_size=1)
    assert (answer.text, answer.tokens, answer.stopped) == (encoder.decode_answer(ids[:3]), 3, False)
    assert engine._llama.computed == 3


def test_the_context_ends_an_answer_and_refuses_a_prompt(library, gguf, encoder, monkeypatch):
    ids = encoder.tokenizer.encode_plain("the dog " * 20)
    monkeypatch.setattr(Llama, "script", tuple(ids))
    room = len(encoder.encode_prompt(PROMPTS[0])) + 2
    engine = opened(gguf, encoder, room)
    [(_, answer)] = engine.generate(PROMPTS[:1], max_new_tokens=30, batch_size=1)
    assert (answer.tokens, answer.stopped) == (2, False)
    long = [Message("user", "the dog " * 50)]
    with pytest.raises(DataError, match=r"prompt 2: needs \d+ tokens, model reads"):
        list(engine.generate([PROMPTS[0], long], max_new_tokens=5, batch_size=1))
    assert opened(gguf, encoder, None)._llama.n_ctx() == llama_cpp_engine.LONGEST_CONTEXT
    assert opened(gguf, encoder, 10**6)._llama.n_ctx() == llama_cpp_engine.LONGEST_CONTEXT


def test_another_file_is_another_engine(library, gguf, encoder):
    before = opened(gguf, encoder).fingerprint
    assert opened(gguf, encoder).fingerprint == before
    write_gguf(gguf, "another")
    assert opened(gguf, encoder).fingerprint != before
    with pytest.raises(NotImplementedError):
        opened(gguf, encoder).likelihood([])
    assert not opened(gguf, encoder).measures_likelihood
    assert ENGINES["llama_cpp"].build is open_gguf


def test_what_can_not_be_opened_is_one_line(library, gguf, encoder, monkeypatch):
    with pytest.raises(ModelError, match="no such file"):
        opened(gguf.with_name("none.gguf"), encoder)
    with pytest.raises(ModelError, match="300 tokens, and the base 299"):
        open_gguf(gguf, encoder, vocabulary=299, context=64)

    def broken(**_):
        raise ValueError("Failed to load model from file")

    monkeypatch.setattr(sys.modules["llama_cpp"], "Llama", broken)
    with pytest.raises(ModelError, match=r"can't load it.*; is this llama\.cpp too old"):
        opened(gguf, encoder)
    for content in (b"", b"PK and more, as much as a header takes", gguf.read_bytes()[:-24]):
        gguf.write_bytes(content)
        with pytest.raises(
            ModelError, match=r"not a readable GGUF file.*; fetch, install or export it again"
        ):
            opened(gguf, encoder)


def test_without_the_library_the_cure_is_said(gguf, encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MachineError, match=r"pip install 'lora-kit\[llama\]'"):
        opened(gguf, encoder)


def test_a_gguf_target_needs_its_base(library, gguf, tiny_llama, monkeypatch):
    with pytest.raises(RecipeError, match="--base"):
        open_engines(str(gguf), EvaluateOptions())
    with pytest.raises(ModelError, match="no such file"):  # no base helps, so none is asked for
        open_engines(str(gguf.with_name("none.gguf")), EvaluateOptions())
    with pytest.raises(RecipeError, match="leave --engine out"):
        open_engines(str(gguf), EvaluateOptions(base=str(tiny_llama), engine="vllm"))
    with pytest.raises(RecipeError, match="in process"):
        open_engines(str(gguf), EvaluateOptions(base=str(tiny_llama), lm_eval=("arc_easy",)))
    with pytest.raises(RecipeError, match="no engine 'vlm'"):
        open_engines(str(gguf), EvaluateOptions(engine="vlm"))
    import json

    config = json.loads((tiny_llama / "config.json").read_text())
    monkeypatch.setattr(sys.modules[__name__], "VOCABULARY", config["vocab_size"])
    found = open_engines(str(gguf), EvaluateOptions(base=str(tiny_llama)))
    assert (found.name, found.adapter, found.opened) == ("model", None, None)
    [engine] = found.engines
    assert engine._llama.n_ctx() == config["max_position_embeddings"]
