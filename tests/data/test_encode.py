import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_kit.catalogue import TEMPLATES
from lora_kit.data.encode import Encoder, content_hash
from lora_kit.data.template import load_template
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError

KINDS = ("byte_bpe", "sentencepiece_bpe", "sentencepiece_legacy", "unigram")
CASES = [(name, kind) for name in TEMPLATES for kind in KINDS]
# Hostile words: control tokens whole and in halves, role headings, the space stand-in left out.
HOSTILE = ("<s>", "</s>", "<|im_end|>", "<|im_", "end|>", "<|im_start|>system\n", "<tool_call>", "<|end|>")
WORDS = st.sampled_from(
    (
        *HOSTILE,
        "### Response:",
        "### End",
        "[/INST]",
        "ASSISTANT:",
        " ",
        "\n",
        "\0",
        "        ",
        "the answer",
        "é👩‍👧",
    )
)
TEXT = st.lists(WORDS, min_size=1, max_size=5).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="▁"), min_size=1, max_size=20
)


@st.composite
def conversations(draw):
    turns = draw(st.integers(1, 3))
    system = [Message("system", draw(TEXT))] if draw(st.booleans()) else []
    messages = []
    for _ in range(turns):
        messages.append(Message("user", draw(TEXT), context=draw(st.just("") | TEXT)))
        messages.append(Message("assistant", draw(TEXT), train=draw(st.booleans())))
    return Conversation((*system, *messages), "rows.jsonl:7")


@pytest.fixture(scope="session")
def encoders(make_tokenizer):
    made = {}

    def get(name: str, kind: str) -> Encoder:
        if (name, kind) not in made:
            tokenizer = make_tokenizer(kind)
            made[name, kind] = Encoder(tokenizer, load_template(name, tokenizer))
        return made[name, kind]

    return get


def counts(encoder: Encoder, ids) -> dict[int, int]:
    return {token: list(ids).count(token) for token in encoder.tokenizer.control_ids}


def answers(example) -> list[list[int]]:
    """Runs of trained tokens."""
    runs, inside = [], False
    for token, flag in zip(example.input_ids, example.trained, strict=True):
        if flag and not inside:
            runs.append([])
        if flag:
            runs[-1].append(token)
        inside = flag
    return runs


@pytest.mark.parametrize(("name", "kind"), CASES)
@settings(max_examples=15)
@given(conversation=conversations())
@pytest.mark.fault("P3", "P4")
def test_encoding_keeps_its_promises(encoders, name, kind, conversation):
    encoder = encoders(name, kind)
    example = encoder.encode(conversation)
    check_prefixes(encoder, conversation, example)
    check_answers(encoder, conversation, example)
    check_control_tokens(encoder, conversation, example)


def check_prefixes(encoder, conversation, example):
    messages = conversation.messages
    for end, message in enumerate(messages):
        if message.role == "assistant":
            prompt = encoder.encode_prompt(messages[:end])
            assert list(example.input_ids[: len(prompt)]) == prompt
            assert example.trained[len(prompt)] == message.train
            assert not any(example.trained[len(prompt) - 1 : len(prompt)])


def check_answers(encoder, conversation, example):
    learned = [
        message.content for message in conversation.messages if message.role == "assistant" and message.train
    ]
    runs = answers(example)
    assert len(runs) == len(learned)
    for run, text in zip(runs, learned, strict=True):
        assert run[-1] in encoder.stop_ids
        assert not encoder.stop_ids & set(run[:-1])
        decoded = encoder.decode_answer(run)
        # Some tokenizers can't tell a leading space from the one that they put behind a control token,
        # and the Llama templates strip answers.
        assert decoded in {text, text.removeprefix(" "), text.strip()}


def check_control_tokens(encoder, conversation, example):
    benign = [dataclasses.replace(m, content="q", context=m.context and "q") for m in conversation.messages]
    harmless = encoder.encode(Conversation(tuple(benign), "rows.jsonl:8"))
    assert counts(encoder, example.input_ids) == counts(encoder, harmless.input_ids)
    openers = {encoder.tokenizer.bos_id, encoder.tokenizer.control["<|begin_of_text|>"]}  # Llama 3's own
    at = [n for n, token in enumerate(example.input_ids) if token in openers]
    assert not any(after - before == 1 for before, after in pairwise(at))
    expected = encoder.tokenizer.adds_bos or encoder.template.name == "llama-3"
    if encoder.template.name != "llama-2-chat":  # opens every exchange with BOS, as its original
        assert at == ([0] if expected else [])


def test_encoding_many_is_encoding_each(encoders):
    encoder = encoders("chatml", "unigram")
    rows = [
        Conversation((Message("user", f"q {n}"), Message("assistant", "a" * n)), f"rows.jsonl:{n}")
        for n in range(1, 40)
    ]
    assert encoder.encode_many(rows) == [encoder.encode(row) for row in rows]
    prompts = [row.messages[:1] for row in rows]
    assert encoder.encode_prompts(prompts) == [encoder.encode_prompt(prompt) for prompt in prompts]
    assert encoder.encode_many([]) == []


def test_the_default_system_prompt_yields_to_the_row(encoders):
    plain = encoders("chatml", "byte_bpe")
    strict = dataclasses.replace(plain, system="Be strict.")
    ask, say = Message("user", "q"), Message("assistant", "a")
    given_one = Conversation((Message("system", "Be strict."), ask, say), "rows.jsonl:1")
    other = Conversation((Message("system", "Be kind."), ask, say), "rows.jsonl:2")
    assert (
        strict.encode(Conversation((ask, say), "rows.jsonl:1")).input_ids == plain.encode(given_one).input_ids
    )
    assert strict.encode(other) == plain.encode(other)
    assert strict.encode_prompt([ask]) == plain.encode_prompt(given_one.messages[:2])
    assert strict.fingerprint != plain.fingerprint


def test_fingerprints_tell_templates_and_tokenizers_apart(encoders):
    fingerprints = [encoders(name, kind).fingerprint for name, kind in CASES]
    assert len(set(fingerprints)) == len(CASES)


def test_the_content_hash_sees_what_is_said_and_nothing_else():
    one = Conversation((Message("user", "q", context="c"), Message("assistant", "a")), "x:1", group="g")
    assert content_hash(one) == content_hash(dataclasses.replace(one, origin="y:2", group=""))
    for other in (
        (Message("user", "qc"), Message("assistant", "a")),
        (Message("user", "q", context="c"), Message("assistant", "a", train=False)),
        (Message("user", "q", context="c"), Message("assistant", "b")),
    ):
        assert content_hash(one) != content_hash(dataclasses.replace(one, messages=other))


def test_a_cut_generation_keeps_what_there_is(encoders):
    encoder = encoders("dolly", "byte_bpe")
    ids = answers(
        encoder.encode(Conversation((Message("user", "q"), Message("assistant", "the sun")), "x:1"))
    )[0]
    assert encoder.decode_answer(ids) == "the sun"
    assert encoder.decode_answer([*ids, *ids]) == "the sun"
    assert encoder.decode_answer([]) == ""
    assert encoder.decode_answer(ids[:1]) != ""


@pytest.mark.parametrize(
    ("roles", "key", "found"),
    [
        ("", "messages", "the last of 0"),
        ("s", "messages", "the last of 1"),
        ("u", "messages", "the last of 1"),
        ("uau", "messages", "the last of 3"),
        ("uua", "messages[1].role", "expected 'assistant', found 'user'"),
        ("au", "messages[0].role", "expected 'user', found 'assistant'"),
        ("usa", "messages[1].role", "expected 'assistant', found 'system'"),
        ("sua" + "s", "messages[3].role", "expected 'user', found 'system'"),
    ],
)
def test_turns_out_of_order_are_named(encoders, roles, key, found):
    names = {"s": "system", "u": "user", "a": "assistant"}
    conversation = Conversation(tuple(Message(names[role], "x") for role in roles), "rows.jsonl:412")
    good = Conversation((Message("user", "q"), Message("assistant", "a")), "rows.jsonl:1")
    with pytest.raises(DataError) as error:
        encoders("chatml", "byte_bpe").encode_many([good, conversation])
    assert str(error.value).startswith(f"rows.jsonl:412: {key}: {found}")


def test_half_a_character_is_named(encoders):
    broken = Conversation((Message("user", "ok"), Message("assistant", "bad \ud800")), "rows.jsonl:3")
    with pytest.raises(DataError, match=r"rows.jsonl:3: messages\[1\].content: .*surrogate"):
        encoders("alpaca", "byte_bpe").encode(broken)
