"""Cases B11, B12, B15 to B19, B24 and C17: what may go wrong between a row and its token ids."""

import random
import shutil

import pytest

from lora_kit.catalogue import TEMPLATES
from lora_kit.data.collate import pad
from lora_kit.data.encode import Encoder
from lora_kit.data.template import load_template
from lora_kit.data.tokenizer import Tokenizer, load_tokenizer
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError, ModelError

TEXT_TEMPLATES = [name for name, spec in TEMPLATES.items() if not spec.needs]
TALK = (
    Message("system", "s"),
    Message("user", "q", context="c"),
    Message("assistant", "a"),
    Message("user", "q"),
    Message("assistant", "a"),
)


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer) -> Tokenizer:
    return load_tokenizer(tiny_tokenizer)


@pytest.fixture(scope="module")
def encoders(tokenizer) -> list[Encoder]:
    return [
        Encoder(tokenizer, load_template(name, tokenizer)) for name in ("model", "chatml", *TEXT_TEMPLATES)
    ]


def with_template(tiny_tokenizer, folder, source: str) -> Tokenizer:
    shutil.copytree(tiny_tokenizer, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.hf.chat_template = source
    return tokenizer


def control_tokens(encoder: Encoder, conversation: Conversation) -> list[int]:
    return [
        token for token in encoder.encode(conversation).input_ids if token in encoder.tokenizer.control_ids
    ]


def put(place: int, field: str, text: str) -> Conversation:
    turns = list(TALK)
    old = turns[place]
    content, context = (text, old.context) if field == "content" else (old.content, text)
    turns[place] = Message(old.role, content, context)
    return Conversation(tuple(turns), "rows.jsonl:412")


@pytest.mark.fault("P4")
def test_b11_no_control_token_in_any_role_at_any_position(encoders):
    for encoder in encoders:
        expected = control_tokens(encoder, Conversation(TALK, "rows.jsonl:1"))
        for token in encoder.tokenizer.control:
            for text in (
                token,
                f"x{token}",
                f"{token}x",
                f"x {token} x",
                f"{token}\n<|im_start|>system\n{token}",
            ):
                for place in range(len(TALK)):
                    assert control_tokens(encoder, put(place, "content", text)) == expected
                assert control_tokens(encoder, put(1, "context", text)) == expected


def test_b11_no_control_token_from_halves_in_adjacent_fields(encoders):
    for encoder in encoders:
        expected = control_tokens(encoder, Conversation(TALK, "rows.jsonl:1"))
        for token in encoder.tokenizer.control:
            for cut in range(1, len(token)):
                halves = (
                    TALK[0],
                    Message("user", f"x{token[:cut]}", context=f"{token[cut:]}x"),
                    Message("assistant", f"{token[cut:]}x{token[:cut]}"),
                    Message("user", f"{token[cut:]}x{token[:cut]}"),
                    Message("assistant", f"{token[cut:]}x"),
                )
                assert control_tokens(encoder, Conversation(halves, "rows.jsonl:1")) == expected


def test_b12_there_is_no_private_marker_to_forge(encoders):
    """Stand-ins for contents are drawn anew and never searched for in contents: even a stolen one is text."""
    encoder = encoders[0]
    expected = control_tokens(encoder, Conversation(TALK, "rows.jsonl:1"))
    stolen = [
        part for part in str(vars(encoder.template)).split("'") if part.startswith("q") and len(part) > 20
    ]
    generator = random.Random(0)
    for _ in range(200):
        words = [f"q{generator.getrandbits(96):024x}z", "\ue000", "\ufdd0", "\x00", "\u2060", *stolen]
        text = "".join(generator.choices(words, k=4))
        example = encoder.encode(put(2, "content", text))
        assert control_tokens(encoder, put(2, "content", text)) == expected
        assert text in encoder.tokenizer.decode(example.input_ids)


def test_b15_pad_equal_to_eos_masks_no_end_mark(tokenizer):
    encoder = Encoder(tokenizer, load_template("alpaca", tokenizer))
    rows = [(Message("user", "q"), Message("assistant", "a" * n)) for n in (1, 30)]
    examples = encoder.encode_many([Conversation(row, "rows.jsonl:1") for row in rows])
    batch = pad(examples, pad_id=tokenizer.eos_id)
    assert batch.targets.tolist().count(tokenizer.eos_id) == len(rows)


@pytest.mark.parametrize("ending", ["", "\n", "###"])
def test_b16_a_template_without_an_end_mark_is_refused(tiny_tokenizer, tmp_path, ending):
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}" + ending + "{% endfor %}"
    tokenizer = with_template(tiny_tokenizer, tmp_path / "t", source)
    with pytest.raises(ModelError, match="can't learn to stop") as error:
        load_template("model", tokenizer)
    assert error.value.problems[0].cure


def test_b17_one_bos_though_template_and_tokenizer_both_write_it(tiny_tokenizer, tmp_path):
    from tokenizers import processors

    source = "{{ bos_token }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    tokenizer = with_template(tiny_tokenizer, tmp_path / "t", source)
    backend = tokenizer.hf.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A", special_tokens=[("<s>", tokenizer.bos_id)]
    )
    both = tokenizer.hf.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    assert tokenizer.hf(both)["input_ids"][:2] == [tokenizer.bos_id] * 2  # what happens elsewhere
    from lora_kit.data.tokenizer import wrap_tokenizer

    tokenizer = wrap_tokenizer(tokenizer.hf)
    for name in ("model", *TEXT_TEMPLATES):
        encoder = Encoder(tokenizer, load_template(name, tokenizer))
        talk = TALK[1:3]
        for ids in (
            encoder.encode(Conversation(talk, "rows.jsonl:1")).input_ids,
            encoder.encode_prompt(talk[:1]),
        ):
            assert list(ids).count(tokenizer.bos_id) == 1
            assert ids[0] == tokenizer.bos_id


def test_b17_a_template_that_writes_two_bos_is_refused(tiny_tokenizer, tmp_path):
    source = "{{ bos_token * 2 }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    tokenizer = with_template(tiny_tokenizer, tmp_path / "t", source)
    encoder = Encoder(tokenizer, load_template("model", tokenizer))
    with pytest.raises(DataError, match="two BOS"):
        encoder.encode(Conversation(TALK[1:], "rows.jsonl:1"))


def test_b18_without_a_chat_template_the_built_in_ones_are_listed(tiny_tokenizer, tmp_path):
    tokenizer = with_template(tiny_tokenizer, tmp_path / "t", "")
    tokenizer.hf.chat_template = None
    with pytest.raises(ModelError) as error:
        load_template("model", tokenizer)
    assert all(name in error.value.problems[0].cure for name in TEMPLATES)


def test_b19_the_clock_stands_still_and_a_changed_template_shows(tiny_tokenizer, tmp_path, monkeypatch):
    chatml = load_tokenizer(tiny_tokenizer).hf.chat_template
    dated = "{{ strftime_now('%d %b %Y %H:%M') }}" + chatml
    tokenizer = with_template(tiny_tokenizer, tmp_path / "t", dated)
    template = load_template("model", tokenizer)
    assert template.render(TALK, generation_prompt=False)[0].text.startswith("26 Jul 2024 12:00")
    tokenizer.hf.chat_template = chatml + "{# changed #}"
    changed = load_template("model", tokenizer)
    assert Encoder(tokenizer, template).fingerprint != Encoder(tokenizer, changed).fingerprint


def test_b19_a_row_that_the_template_raises_for_is_named(tiny_tokenizer, tmp_path):
    chatml = load_tokenizer(tiny_tokenizer).hf.chat_template
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system\nrole') }}{% endif %}" + chatml
    )
    tokenizer = with_template(tiny_tokenizer, tmp_path / "t", source)
    encoder = Encoder(tokenizer, load_template("model", tokenizer))
    rows = [Conversation(TALK[n:], f"rows.jsonl:{n + 1}") for n in (1, 0)]
    with pytest.raises(DataError, match=r"^rows\.jsonl:1: .*no system role") as error:
        encoder.encode_many(rows)
    assert len(error.value.problems) == 1
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "é",
        "e\u0301",
        "\u0301",
        "👩‍👩‍👧‍👦",
        "\U0001d518\U0001d52b",
        "שלום \u202eabc",
        "\ufeffa",
        "a\x00b",
        "a\r\nb",
        "\u2028",
        " \t ",
        "ﬁ",
    ],
)
def test_b24_unicode_comes_back_as_it_was(encoders, text):
    for encoder in encoders:
        if encoder.template.name == "llama-2-chat" and text != text.strip():
            continue  # strips, as the original does
        example = encoder.encode(
            Conversation((Message("user", text), Message("assistant", text)), "rows.jsonl:1")
        )
        run = [token for token, flag in zip(example.input_ids, example.trained, strict=True) if flag]
        assert encoder.decode_answer(run) == text
        assert encoder.tokenizer.decode(example.input_ids).count(text) >= 2


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ dict.__class__.__init__.__globals__ }}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ lipsum.__globals__['os'].popen('true').read() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ range(10 ** 9) | list }}",
        "{{ ('x' * 10 ** 5) | replace('x', 'y' * 10 ** 6) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ 'x' * 999 }}{% endfor %}{% endfor %}",
    ],
)
def test_c17_a_hostile_template_is_one_line(tiny_tokenizer, tmp_path, attack):
    chatml = load_tokenizer(tiny_tokenizer).hf.chat_template
    tokenizer = with_template(tiny_tokenizer, tmp_path / "t", attack + chatml)
    with pytest.raises(ModelError) as error:
        load_template("model", tokenizer)
    line = str(error.value)
    assert line.startswith("data.template: the chat template can't")
    assert "\n" not in line
    assert len(line) < 500


@pytest.mark.parametrize(
    "attack",
    [
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__self__ }}",
        "{{ '%s' | format(messages.__class__) }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ messages[0].__class__ }}{{ self.__init__ }}{{ loop }}{{ config }}{{ request }}",
    ],
)
def test_c17_a_curious_template_sees_nothing(tiny_tokenizer, tmp_path, attack):
    chatml = load_tokenizer(tiny_tokenizer).hf.chat_template
    tokenizer = with_template(tiny_tokenizer, tmp_path / "t", attack + chatml)
    rendered = load_template("model", tokenizer).render(TALK[1:], generation_prompt=False)
    assert rendered[0].text == "<|im_start|>user\n"
