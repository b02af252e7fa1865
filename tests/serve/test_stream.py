"""Streaming gives what ``generate()`` gives, with or without a memory of earlier turns."""

import pytest
import torch
from transformers import GenerationConfig

from lora_kit.assemble import Opened
from lora_kit.data.types import Message
from lora_kit.errors import DataError
from lora_kit.model.context import context_tokens
from lora_kit.serve.memory import Memory
from lora_kit.serve.stream import Sampling, stream_answer

FIRST = [Message("user", "what is the answer?")]
SHORT = Sampling(max_new_tokens=24)


def generated(opened: Opened, messages: list[Message], limit: int) -> list[int]:
    prompt = opened.encoder.encode_prompt(messages)
    stops = sorted(opened.encoder.stop_ids)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=limit, eos_token_id=stops, pad_token_id=stops[0], use_cache=True
    )
    ids = torch.tensor([prompt])
    output = opened.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
    )
    return output[0, len(prompt) :].tolist()


def test_greedy_ids_equal_generate(any_tiny: Opened) -> None:
    stream = stream_answer(any_tiny.model, any_tiny.encoder, FIRST, SHORT)
    text = "".join(stream)
    assert stream.ids == generated(any_tiny, FIRST, 24)
    assert len(set(stream.ids)) > 3
    assert text == any_tiny.encoder.decode_answer(stream.ids)


def test_answer_ends_at_a_stop_token(any_tiny: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    free = stream_answer(any_tiny.model, any_tiny.encoder, FIRST, SHORT)
    list(free)
    stop = next(token for token in free.ids[3:] if token not in free.ids[:3])
    monkeypatch.setitem(any_tiny.encoder.__dict__, "stop_ids", frozenset({stop}))
    stream = stream_answer(any_tiny.model, any_tiny.encoder, FIRST, SHORT)
    text = "".join(stream)
    assert stream.stopped
    assert stream.ids == free.ids[: free.ids.index(stop) + 1]
    assert text == any_tiny.encoder.decode_answer(stream.ids)


def test_memory_equals_a_fresh_start_over_several_turns(any_tiny: Opened) -> None:
    memory = Memory()
    messages = list(FIRST)
    for turn in range(3):
        kept = stream_answer(any_tiny.model, any_tiny.encoder, messages, Sampling(8), memory=memory)
        answer = "".join(kept)
        fresh = stream_answer(any_tiny.model, any_tiny.encoder, messages, Sampling(8))
        assert "".join(fresh) == answer
        assert kept.ids == fresh.ids
        messages += [Message("assistant", answer), Message("user", f"and then the dog {turn}?")]


def test_memory_reuses_all_that_two_prompts_share(llama: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    list(stream_answer(llama.model, llama.encoder, FIRST, Sampling(4), memory=memory))
    before = list(memory.tokens)
    assert memory.cache is not None
    other = [Message("user", "what is the answer then?")]
    stream = stream_answer(llama.model, llama.encoder, other, Sampling(4), memory=memory)
    computed: list[int] = []
    forward = llama.model.model.forward

    def counted(*, input_ids: torch.Tensor, **options: object) -> object:
        computed.append(input_ids.shape[1])
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(llama.model.model, "forward", counted)
    list(stream)
    shared = next(at for at, (a, b) in enumerate(zip(before, stream.prompt, strict=False)) if a != b)
    assert shared > 5
    assert computed[0] == len(stream.prompt) - shared
    assert computed[1:] == [1] * (len(stream.ids) - 1)
    assert memory.tokens == [*stream.prompt, *stream.ids[:-1]]


def test_memory_is_empty_after_an_answer_that_was_broken_off(llama: Opened) -> None:
    memory = Memory()
    stream = iter(stream_answer(llama.model, llama.encoder, FIRST, SHORT, memory=memory))
    next(stream)
    assert (memory.tokens, memory.cache) == ([], None)
    del stream
    assert memory.cache is None


def test_same_prompt_twice_computes_the_last_token_again(llama: Opened) -> None:
    memory = Memory()
    first = stream_answer(llama.model, llama.encoder, FIRST, SHORT, memory=memory)
    second = stream_answer(llama.model, llama.encoder, FIRST, SHORT, memory=memory)
    assert "".join(first) == "".join(second)
    assert first.ids == second.ids


def test_gradients_are_not_switched_off_for_the_caller(llama: Opened) -> None:
    for _ in stream_answer(llama.model, llama.encoder, FIRST, Sampling(3)):
        assert torch.is_grad_enabled()


def test_answer_ends_where_the_context_ends(llama: Opened) -> None:
    limit = context_tokens(llama.model.config)
    assert limit == 256
    question = [Message("user", "x" * 200)]
    prompt = llama.encoder.encode_prompt(question)
    stream = stream_answer(llama.model, llama.encoder, question, Sampling(500))
    list(stream)
    assert stream.stopped or len(prompt) + len(stream.ids) == limit
    with pytest.raises(DataError, match="256"):
        stream_answer(llama.model, llama.encoder, [Message("user", "x" * 300)], SHORT)


def test_model_without_a_limit(open_tiny) -> None:
    bloom = open_tiny("bloom")
    assert context_tokens(bloom.model.config) is None
    stream = stream_answer(bloom.model, bloom.encoder, [Message("user", "x" * 300)], Sampling(2))
    list(stream)
    assert stream.ids


def test_samples_are_repeatable_and_differ_by_seed(llama: Opened) -> None:
    def sample(seed: int) -> list[int]:
        sampling = Sampling(16, temperature=1.5, top_p=0.95, seed=seed)
        stream = stream_answer(llama.model, llama.encoder, FIRST, sampling)
        list(stream)
        return stream.ids

    assert sample(1) == sample(1)
    assert len({tuple(sample(seed)) for seed in range(4)}) > 1
