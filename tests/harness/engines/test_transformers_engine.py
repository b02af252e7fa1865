"""The engine on tiny models, in float64: batches, the adapter's two sides, stops, likelihoods."""

import logging
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import GenerationConfig

from lora_kit.catalogue import ENGINES
from lora_kit.data.encode import Encoder
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError, ModelError
from lora_kit.harness.engines.transformers_engine import TransformersEngine
from lora_kit.harness.run import evaluate
from lora_kit.harness.suite import Item, Suite
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter, attach_another
from lora_kit.model.base import find_base
from lora_kit.model.generate import Decoding
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, EvaluateSpec, LoraSpec, QuantizationSpec

PROMPTS = [
    [Message("user", "hi")],
    [Message("user", "what is the answer to this question? " * 3)],
    [Message("user", "the dog")],
    [Message("system", "brief"), Message("user", "a"), Message("assistant", "b"), Message("user", "c")],
    [Message("user", "the quick brown fox jumps over the lazy dog", "and then the dog sleeps in the sun")],
]


class Opened:
    def __init__(self, folder: Path, *, lora: bool, dtype: str = "float64") -> None:
        files = find_base(BaseSpec(model=str(folder)))
        self.encoder: Encoder = open_encoder(files.folder, "model", None)
        self.model = load_model(files, dtype=dtype, quantization=QuantizationSpec(), device="cpu")
        if lora:
            self.model = add_adapter(self.model, LoraSpec(rank=4), files.family, seed=0)

    def engine(self, *, adapter: bool, name: str = "m") -> TransformersEngine:
        return TransformersEngine(name, self.model, self.encoder, adapter=adapter)

    def train_a_little(self) -> None:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.3, generator=generator)


def answers(engine: TransformersEngine, prompts=PROMPTS, *, limit: int = 12, batch_size: int = 8) -> list:
    found = dict(engine.generate(prompts, max_new_tokens=limit, batch_size=batch_size))
    assert len(found) == len(prompts)
    return [found[index] for index in range(len(prompts))]


def greedy(opened: Opened, messages: list[Message], limit: int) -> list[int]:
    """One prompt, one token at a time, no cache, no padding."""
    ids = opened.encoder.encode_prompt(messages)
    start = len(ids)
    while len(ids) < start + limit:
        with torch.no_grad():
            logits = opened.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids = [*ids, int(logits[0, -1].argmax())]
        if ids[-1] in opened.encoder.stop_ids:
            break
    return ids[start:]


@pytest.fixture(params=["llama", "gpt_neox", "bloom"])
def opened(request, tiny_folder) -> Opened:
    # transformers' BLOOM makes NaN of left padding in float64: its mask overflows a float32 softmax.
    dtype = "float32" if request.param == "bloom" else "float64"
    return Opened(tiny_folder(request.param), lora=False, dtype=dtype)


@pytest.fixture
def tuned(tiny_llama) -> Opened:
    opened = Opened(tiny_llama, lora=True)
    opened.train_a_little()
    return opened


def test_answers_are_greedy_and_do_not_depend_on_the_batch(opened):
    expected = [greedy(opened, messages, 12) for messages in PROMPTS]
    for batch_size in (1, 2, 5):
        found = answers(opened.engine(adapter=False), batch_size=batch_size)
        assert [a.tokens for a in found] == [len(ids) for ids in expected]
        assert [a.text for a in found] == [opened.encoder.decode_answer(ids) for ids in expected]
        assert [a.stopped for a in found] == [ids[-1] in opened.encoder.stop_ids for ids in expected]


def test_an_answer_ends_at_the_stop_id_and_does_not_show_it(opened, monkeypatch):
    free = [greedy(opened, messages, 12) for messages in PROMPTS]
    third = free[0][2]
    at = free[0].index(third)
    monkeypatch.setitem(opened.encoder.__dict__, "stop_ids", frozenset({third}))
    found = answers(opened.engine(adapter=False))
    assert found[0].stopped
    assert found[0].tokens == at + 1
    assert found[0].text == opened.encoder.decode_answer(free[0][:at])
    for answer, ids in zip(found, free, strict=True):
        assert answer.stopped == (third in ids)
        assert answer.tokens == (ids.index(third) + 1 if third in ids else 12)


def test_without_stop_ids_it_goes_on_to_the_limit(opened, monkeypatch):
    monkeypatch.setitem(opened.encoder.__dict__, "stop_ids", frozenset())
    assert {(a.tokens, a.stopped) for a in answers(opened.engine(adapter=False), limit=7)} == {(7, False)}


def test_base_and_adapter_are_two_sides_of_one_model(tuned, tiny_llama):
    plain = Opened(tiny_llama, lora=False)
    base = answers(tuned.engine(adapter=False))
    assert base == answers(plain.engine(adapter=False))
    assert base != answers(tuned.engine(adapter=True))
    assert answers(tuned.engine(adapter=False)) == base


def test_everything_is_put_back(tuned):
    tuned.model.train()
    own = GenerationConfig(temperature=0.3, do_sample=True, max_length=7)
    tuned.model.get_base_model().generation_config = own
    trainable = [p.requires_grad for p in tuned.model.parameters()]
    assert any(trainable)
    base, conversations = (
        tuned.engine(adapter=False),
        [Conversation((*PROMPTS[0], Message("assistant", "x")), "o")],
    )
    answers(base, limit=3)
    list(base.likelihood(conversations))
    assert tuned.model.training
    assert [p.requires_grad for p in tuned.model.parameters()] == trainable
    assert tuned.model.get_base_model().generation_config is own
    assert tuned.model.config.use_cache is False
    assert tuned.model.get_model_status().enabled is True
    assert torch.is_grad_enabled()


def test_the_models_own_generation_settings_neither_act_nor_warn(opened, caplog):
    expected = answers(opened.engine(adapter=False))
    opened.model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_k=2,
        repetition_penalty=3.0,
        num_beams=3,
        max_length=4,
        min_new_tokens=20,
    )
    transformers_log = logging.getLogger("transformers")
    transformers_log.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert answers(opened.engine(adapter=False)) == expected
    finally:
        transformers_log.removeHandler(caplog.handler)
    assert not caplog.records


def test_likelihood_is_that_of_the_answer_and_its_end_mark(opened):
    conversations = [
        Conversation((*m, Message("assistant", f"größe {len(m)}")), f"o:{n}") for n, m in enumerate(PROMPTS)
    ]
    silent = [Message(m.role, m.content, m.context, train=False) for m in PROMPTS[3]]
    conversations[3] = Conversation((*silent, Message("assistant", "größe 4")), "o:3")
    found = dict(opened.engine(adapter=False).likelihood(conversations))
    for index, conversation in enumerate(conversations):
        prompt = opened.encoder.encode_prompt(conversation.messages[:-1])
        ids = list(opened.encoder.encode(conversation).input_ids)
        with torch.no_grad():
            logits = opened.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        trained = [t for t in range(len(prompt), len(ids)) if opened.encoder.encode(conversation).trained[t]]
        nats = -sum(float(logits[t - 1, ids[t]]) for t in trained)
        assert ids[trained[-1]] in opened.encoder.stop_ids
        # Not nearer: transformers' RMSNorm rounds to float32 on its way, ours does not.
        assert found[index].nats == pytest.approx(
            nats, rel=1e-7 if opened.model.dtype == torch.float64 else 1e-5
        )
        assert found[index].tokens == len(trained)
        assert found[index].utf8_bytes == len(conversation.messages[-1].content.encode())


def test_likelihood_sees_the_adapter_and_the_base_does_not(tuned, tiny_llama):
    conversation = Conversation((Message("user", "hi"), Message("assistant", "the dog")), "o")
    nats = [
        next(iter(tuned.engine(adapter=side).likelihood([conversation])))[1].nats for side in (False, True)
    ]
    plain = Opened(tiny_llama, lora=False).engine(adapter=False)
    assert nats[0] == pytest.approx(next(iter(plain.likelihood([conversation])))[1].nats, rel=1e-12)
    assert abs(nats[0] - nats[1]) > 0.01


def test_an_untrained_adapter_changes_no_bit(tiny_llama):
    opened = Opened(tiny_llama, lora=True, dtype="float32")
    conversation = Conversation((Message("user", "hi"), Message("assistant", "the dog")), "o")
    results = [
        (answers(opened.engine(adapter=side)), list(opened.engine(adapter=side).likelihood([conversation])))
        for side in (False, True)
    ]
    assert results[0] == results[1]


def test_prompts_and_answers_that_do_not_fit_are_named(tiny_llama):
    engine = Opened(tiny_llama, lora=False).engine(adapter=False, name="tiny")
    long = [Message("user", "dog " * 300)]
    with pytest.raises(DataError, match=r"prompt 'dog dog .*\.\.\.': needs \d+ tokens, tiny reads 256"):
        answers(engine, [PROMPTS[0], long])
    with pytest.raises(DataError, match=r"p\.jsonl:4: needs \d+ tokens, tiny reads 256"):
        list(engine.likelihood([Conversation((*long, Message("assistant", "x")), "p.jsonl:4")]))


def test_an_answer_never_leaves_the_positions_of_the_model(tiny_llama):
    opened = Opened(tiny_llama, lora=False)
    prompt = [Message("user", "x" * 225)]
    room = 256 - len(opened.encoder.encode_prompt(prompt))
    assert 0 < room < 24
    alone = answers(opened.engine(adapter=False), [prompt], limit=50)
    both = answers(opened.engine(adapter=False), [prompt, PROMPTS[0]], limit=50)
    assert alone[0] == both[0]
    assert both[0].tokens <= room
    assert both[1] == answers(opened.engine(adapter=False), [PROMPTS[0]], limit=50)[0]


def test_the_fingerprint_is_of_weights_adapter_and_number_type(tuned, tiny_llama, tiny_folder):
    base = tuned.engine(adapter=False).fingerprint
    assert base != tuned.engine(adapter=True).fingerprint
    assert base == tuned.engine(adapter=False, name="another").fingerprint
    assert base != Opened(tiny_folder("llama", seed=1), lora=False).engine(adapter=False).fingerprint
    assert base != Opened(tiny_llama, lora=True, dtype="float32").engine(adapter=False).fingerprint
    before = tuned.engine(adapter=True).fingerprint
    tuned.train_a_little()
    assert before == tuned.engine(adapter=True).fingerprint
    with torch.no_grad():
        next(p for n, p in tuned.model.named_parameters() if "lora_B" in n)[0, 0] += 1e-6
    assert before != tuned.engine(adapter=True).fingerprint
    before = tuned.engine(adapter=True).fingerprint
    tuned.model.peft_config["default"].lora_alpha += 1
    assert before != tuned.engine(adapter=True).fingerprint
    known = TransformersEngine("m", tuned.model, tuned.encoder, adapter=False, base_fingerprint="ab")
    assert known.fingerprint != base


def test_an_adapter_must_be_there_to_be_switched_on(tiny_llama):
    opened = Opened(tiny_llama, lora=False)
    assert not isinstance(opened.model, PeftModel)
    with pytest.raises(ModelError, match="m has no adapter"):
        opened.engine(adapter=True)


def test_nothing_to_do_is_nothing(tiny_llama):
    engine = Opened(tiny_llama, lora=False).engine(adapter=False)
    assert answers(engine, []) == []
    assert list(engine.likelihood([])) == []


def test_the_catalogue_knows_it():
    assert ENGINES["transformers"].build is TransformersEngine


def test_an_evaluation_of_base_and_adapter_end_to_end(tiny_llama, tmp_path):
    items = tuple(
        Item(f"q{n}", "qa", tuple(m), "the answer", f"q{n}", f"p:{n}") for n, m in enumerate(PROMPTS * 2)
    )
    suite, spec = Suite("s", "d", items, ("chrf",)), EvaluateSpec(max_new_tokens=4, bootstrap_samples=100)
    opened = Opened(tiny_llama, lora=True, dtype="float32")

    def engines() -> list[TransformersEngine]:
        return [opened.engine(adapter=False, name="base"), opened.engine(adapter=True, name="tuned")]

    nil = evaluate(engines(), suite, spec, folder=tmp_path)
    assert "tuned equals base in every answer and likelihood: its effect is nil" in nil.notes
    assert {c.outcome.verdict for c in nil.comparisons} == {"can't tell"}
    opened.train_a_little()
    real = evaluate(engines(), suite, spec, folder=tmp_path)
    assert not any("nil" in note for note in real.notes)
    assert real.models[0] == nil.models[0]
    assert real.models[1].metrics["bits_per_byte"] != nil.models[1].metrics["bits_per_byte"]
    assert real.to_json() | {"seconds": 0} == evaluate(engines(), suite, spec).to_json() | {"seconds": 0}


def test_several_adapters_answer_on_one_copy_of_the_base(tuned, tiny_llama):
    second = Opened(tiny_llama, lora=True)
    with torch.no_grad():
        for name, parameter in second.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.4, generator=torch.Generator().manual_seed(len(name)))
    first, base = answers(tuned.engine(adapter=True)), answers(tuned.engine(adapter=False))
    weights = sum(p.numel() for n, p in tuned.model.named_parameters() if "lora_" not in n)
    prints = tuned.engine(adapter=True).fingerprint
    config = adapter_config(second.model, "tiny")
    attach_another(tuned.model, "second", config, adapter_tensors(second.model))
    assert sum(p.numel() for n, p in tuned.model.named_parameters() if "lora_" not in n) == weights
    other = TransformersEngine("second", tuned.model, tuned.encoder, adapter="second")
    assert answers(other) == answers(second.engine(adapter=True))
    assert tuned.model.active_adapter == "default"
    assert (answers(tuned.engine(adapter=True)), answers(tuned.engine(adapter=False))) == (first, base)
    assert tuned.engine(adapter=True).fingerprint == prints
    assert other.fingerprint == second.engine(adapter=True).fingerprint != prints
    with pytest.raises(ModelError, match="'second' already"):
        attach_another(tuned.model, "second", config, adapter_tensors(second.model))
    with pytest.raises(ModelError, match="no adapter"):
        TransformersEngine("m", tuned.model, tuned.encoder, adapter="third")


def test_answers_are_yielded_when_they_are_finished(opened, monkeypatch):
    """Two places for five prompts of unlike lengths: a finished answer does not wait for the others."""
    advanced = []
    plain = Decoding.advance
    monkeypatch.setattr(Decoding, "advance", lambda self: advanced.append(1) or plain(self))
    seen = [
        len(advanced) for _ in opened.engine(adapter=False).generate(PROMPTS, max_new_tokens=6, batch_size=2)
    ]
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3
