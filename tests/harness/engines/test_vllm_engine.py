"""The vLLM engine against a stand-in for the library: the exact calls, and what becomes of their outputs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lora_kit.assemble import AdapterParts
from lora_kit.catalogue import ENGINES
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError, MachineError, ModelError
from lora_kit.harness import open_engines as module
from lora_kit.harness.engines import vllm_engine
from lora_kit.harness.engines.vllm_engine import VllmEngine, open_llm
from lora_kit.harness.open_engines import EvaluateOptions, open_engines
from lora_kit.recipe.schema import QuantizationSpec

PROMPTS = [[Message("user", "hi")], [Message("user", "the quick brown fox")]]
ADAPTER = {"r": 12, "lora_alpha": 24, "bias": "none", "use_dora": False, "rank_pattern": {}}


class LLM:
    """As much of ``vllm.LLM`` as is used; says ``script``, and gives every prompt token -0.5 nats."""

    def __init__(self, **settings):
        self.settings, self.calls, self.script = settings, [], (5, 6, 7)
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=64))

    def generate(self, prompts, sampling_params, *, use_tqdm, lora_request):
        self.calls.append((prompts, sampling_params, use_tqdm, lora_request))
        return [
            self.output(prompt["prompt_token_ids"], one)
            for prompt, one in zip(prompts, sampling_params, strict=True)
        ]

    def output(self, ids, settings):
        told = None
        if "prompt_logprobs" in settings:
            told = [None, *({token: SimpleNamespace(logprob=-0.5)} for token in ids[1:])]
        answer = SimpleNamespace(token_ids=self.script[: settings["max_tokens"]])
        return SimpleNamespace(outputs=[answer], prompt_logprobs=told)


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@pytest.fixture
def library(monkeypatch):
    vllm: Any = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams, vllm.TokensPrompt, vllm.__version__ = LLM, dict, dict, "0.0"
    request: Any = ModuleType("vllm.lora.request")
    request.LoRARequest = LoRARequest
    for name, one in (("vllm", vllm), ("vllm.lora", ModuleType("vllm.lora")), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, one)


@pytest.fixture
def encoder(tiny_llama):
    return open_encoder(tiny_llama, "model", None)


def engine(encoder, adapter: Path | None = None, *weights: str) -> VllmEngine:
    return VllmEngine("tuned", LLM(), encoder, weights or ("w",), adapter=adapter)


def test_prompts_are_our_ids_and_only_our_stop_ids_end_an_answer(library, encoder, tmp_path):
    stop = min(encoder.stop_ids)
    one = engine(encoder, tmp_path)
    one._llm.script = (*encoder.tokenizer.encode_plain("the dog"), stop)
    found = dict(one.generate(PROMPTS, max_new_tokens=20, batch_size=4))
    rows = [encoder.encode_prompt(prompt) for prompt in PROMPTS]
    settings = {"temperature": 0.0, "stop_token_ids": sorted(encoder.stop_ids), "ignore_eos": True}
    [(prompts, sampling, tqdm, request)] = one._llm.calls
    assert prompts == [{"prompt_token_ids": row} for row in rows]
    assert sampling == [
        {**settings, "max_tokens": min(20, 64 - len(row)), "detokenize": False} for row in rows
    ]
    assert tqdm is False
    assert request == LoRARequest("tuned", 1, str(tmp_path))
    assert found[0].text == found[1].text == encoder.decode_answer(one._llm.script[:-1])
    assert (found[1].tokens, found[1].stopped) == (len(one._llm.script), True)


def test_the_base_is_asked_without_an_adapter_and_the_limit_is_kept(library, encoder):
    one = engine(encoder)
    room = 64 - len(encoder.encode_prompt(PROMPTS[0]))
    one._llm.script = tuple(encoder.tokenizer.encode_plain("the dog " * 40))
    [(_, short)] = one.generate(PROMPTS[:1], max_new_tokens=2, batch_size=4)
    [(_, full)] = one.generate(PROMPTS[:1], max_new_tokens=500, batch_size=4)
    assert [(short.tokens, short.stopped), (full.tokens, full.stopped)] == [(2, False), (room, False)]
    assert [request for *_, request in one._llm.calls] == [None, None]
    with pytest.raises(DataError, match=r"prompt 1: needs \d+ tokens, tuned reads 64"):
        list(one.generate([[Message("user", "the dog " * 100)]], max_new_tokens=2, batch_size=1))


def test_many_prompts_go_in_parts_and_keep_their_order(library, encoder, monkeypatch):
    monkeypatch.setattr(vllm_engine, "TOGETHER", 2)
    one = engine(encoder)
    indices = [at for at, _ in one.generate([PROMPTS[0]] * 5, max_new_tokens=2, batch_size=1)]
    assert indices == [0, 1, 2, 3, 4]
    assert [len(prompts) for prompts, *_ in one._llm.calls] == [2, 2, 1]


def test_likelihood_sums_over_the_answer_and_its_end(library, encoder):
    one = engine(encoder)
    turns = (Message("user", "hi"), Message("assistant", "the dög"))
    conversation = Conversation(turns, "row 1")
    example = encoder.encode(conversation)
    [(index, found)] = one.likelihood([conversation])
    assert index == 0
    assert found.nats == pytest.approx(0.5 * example.trained_tokens)
    assert (found.tokens, found.utf8_bytes) == (example.trained_tokens, 8)
    [(prompts, [setting], *_)] = one._llm.calls
    assert prompts == [{"prompt_token_ids": list(example.input_ids)}]
    assert setting == {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
    long = Conversation((Message("user", "the dog " * 100), turns[1]), "row 9")
    with pytest.raises(DataError, match="row 9: needs"):
        list(one.likelihood([long]))


def test_fingerprint_depends_on_the_weights(library, encoder, tmp_path):
    assert engine(encoder, None, "a").fingerprint == engine(encoder, None, "a").fingerprint
    assert engine(encoder, None, "a").fingerprint != engine(encoder, None, "a", "b").fingerprint
    assert ENGINES["vllm"].build is VllmEngine


def test_the_base_is_opened_with_room_for_the_adapter(library, tmp_path):
    plain = {"model": str(tmp_path), "dtype": "bfloat16", "seed": 0, "trust_remote_code": False}
    assert open_llm(tmp_path, dtype="bfloat16", adapter=None).settings == plain
    room = {"enable_lora": True, "max_loras": 1, "max_lora_rank": 16}
    assert open_llm(tmp_path, dtype="bfloat16", adapter=ADAPTER).settings == plain | room


@pytest.mark.parametrize(
    "more",
    [
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 4}},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"r": 1000},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_vllm_leaves_out_is_refused(library, tmp_path, more):
    with pytest.raises(ModelError):
        open_llm(tmp_path, dtype="float32", adapter={**ADAPTER, **more})


def test_without_the_library_the_cure_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MachineError, match=r"pip install 'lora-kit\[vllm\]'"):
        open_llm(tmp_path, dtype="float32", adapter=None)


def test_a_base_and_an_adapter_are_opened(library, encoder, tiny_llama, tmp_path, monkeypatch):
    found = open_engines(str(tiny_llama), EvaluateOptions(engine="vllm"))
    assert [one.name for one in found.engines] == ["base"]
    assert found.engines[0]._llm.settings["model"] == str(tiny_llama)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    files = SimpleNamespace(folder=tiny_llama, fingerprint="f")
    saved = SimpleNamespace(folder=tmp_path, config=ADAPTER, provenance={})

    def parts(method):
        quantization = QuantizationSpec(method=method)
        found = AdapterParts(
            name="m", encoder=encoder, files=files, adapter=saved, quantization=quantization, dtype="float32"
        )
        return lambda *_, **__: found

    monkeypatch.setattr(module, "find_target", parts("none"))
    found = open_engines(str(tmp_path), EvaluateOptions(engine="vllm"))
    base, tuned = found.engines
    assert (base.name, tuned.name, found.adapter) == ("base", "tuned", tmp_path)
    assert base._llm is tuned._llm
    assert tuned._request == LoRARequest("tuned", 1, str(tmp_path))
    assert base.fingerprint != tuned.fingerprint
    monkeypatch.setattr(module, "find_target", parts("nf4"))
    with pytest.raises(ModelError, match="nf4"):
        open_engines(str(tmp_path), EvaluateOptions(engine="vllm"))
