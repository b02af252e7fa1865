"""Named templates: the bytes and masks of golden files that were written by the originals' own formulas.

In a golden file ⟦ ⟧ enclose an answer span and ␃ ends a text; everything else is what the original
repository's code makes of the same conversation (for EOS after each answer of Guanaco and Dolly, and for
further turns of Alpaca and Dolly, which the originals lack, see the template's docstring).
"""

import copy
from pathlib import Path

import pytest

from lora_kit.catalogue import TEMPLATES
from lora_kit.data.encode import Encoder
from lora_kit.data.template import load_template
from lora_kit.data.tokenizer import load_tokenizer, wrap_tokenizer
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import ModelError, RecipeError

GOLDEN = Path(__file__).parents[1] / "golden" / "templates"
ASK = Message("user", "What is LoRA?")
SAY = Message("assistant", "A small update of rank R.")
ASK_MORE = Message("user", "Why is it cheap?\nSay it in one line.")
CASES = {
    "one exchange": (ASK, SAY),
    "one exchange with context": (Message("user", ASK.content, context="LoRA adds BA to a weight."), SAY),
    "system message and two exchanges": (
        Message("system", "Answer like a teacher."),
        *(ASK, SAY, ASK_MORE),
        Message("assistant", "Few weights are trained."),
    ),
    "prompt": (ASK,),
    "prompt after one exchange": (ASK, SAY, ASK_MORE),
}


def render(template, messages) -> str:
    text, inside = "", False
    for segment in template.render(messages, generation_prompt=messages[-1].role == "user"):
        if segment.trained != inside:
            text += "⟧" if inside else "⟦"
            inside = segment.trained
        text += segment.text
    return text + ("⟧" if inside else "")


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_masks_equal_the_golden_file(make_tokenizer, name):
    template = load_template(name, make_tokenizer("sentencepiece_bpe"))
    rendered = "".join(f"=== {title}\n{render(template, messages)}␃\n" for title, messages in CASES.items())
    assert rendered == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_every_template_has_a_golden_file_and_a_source():
    assert {path.stem for path in GOLDEN.iterdir()} == set(TEMPLATES)
    for name, spec in TEMPLATES.items():
        assert spec.name == name
        assert spec.source


@pytest.mark.parametrize("name", TEMPLATES)
def test_only_what_was_said_is_outside_control(make_tokenizer, name):
    template = load_template(name, make_tokenizer("byte_bpe"))
    for messages in CASES.values():
        said = [
            s.text
            for s in template.render(messages, generation_prompt=messages[-1].role == "user")
            if not s.control
        ]
        text = [part for m in messages for part in (m.content, m.context) if part]
        assert "\n\n".join(said) == "\n\n".join(text)


@pytest.mark.parametrize("name", ["llama-2-chat", "llama-3"])
def test_templates_that_strip_do_so_for_training_and_serving(make_tokenizer, name):
    tokenizer = make_tokenizer("byte_bpe")
    encoder = Encoder(tokenizer, load_template(name, tokenizer))
    loose = (Message("user", " What is LoRA?\n"), Message("assistant", "\tA small update of rank R. "))
    assert (
        encoder.encode(Conversation(loose, "x:1")).input_ids
        == encoder.encode(Conversation((ASK, SAY), "x:1")).input_ids
    )
    assert encoder.encode_prompt(loose[:1]) == encoder.encode_prompt([ASK])


def test_llama_2_keeps_blanks_between_system_and_request_as_the_original_does(make_tokenizer):
    template = load_template("llama-2-chat", make_tokenizer("byte_bpe"))
    text = render(template, (Message("system", "S"), Message("user", " q "), SAY))
    assert text.startswith("[INST] <<SYS>>\nS\n<</SYS>>\n\n q [/INST]⟦ A small")


def test_the_users_token_of_stablelm_ends_answers_that_are_followed(make_tokenizer):
    tokenizer = make_tokenizer("byte_bpe")
    encoder = Encoder(tokenizer, load_template("stablelm-tuned", tokenizer))
    example = encoder.encode(Conversation(CASES["system message and two exchanges"], "x:1"))
    user = tokenizer.control["<|USER|>"]
    flags = [flag for token, flag in zip(example.input_ids, example.trained, strict=True) if token == user]
    assert flags == [False, True]
    assert encoder.stop_ids == {user, tokenizer.eos_id}


def test_dolly_stops_at_its_own_end_token_where_there_is_one(make_tokenizer):
    twin = copy.deepcopy(make_tokenizer("byte_bpe").hf)
    twin.add_special_tokens({"additional_special_tokens": ["### End"]})
    tokenizer = wrap_tokenizer(twin)
    encoder = Encoder(tokenizer, load_template("dolly", tokenizer))
    assert tokenizer.control["### End"] in encoder.stop_ids
    ids = encoder.encode(Conversation((ASK, SAY), "x:1"))
    run = [token for token, flag in zip(ids.input_ids, ids.trained, strict=True) if flag]
    assert encoder.decode_answer(run) == SAY.content


@pytest.mark.parametrize("name", ["chatml", "mpt-chat", "starchat", "stablelm-tuned", "llama-3"])
def test_a_template_without_its_control_tokens_is_refused(tiny_tokenizer, name):
    tokenizer = load_tokenizer(tiny_tokenizer)
    missing = [token for token in TEMPLATES[name].needs if token not in tokenizer.control]
    if not missing:
        assert load_template(name, tokenizer).name == name
        return
    with pytest.raises(ModelError) as error:
        load_template(name, tokenizer)
    assert all(token in str(error.value) for token in missing)


def test_an_unknown_name_gets_an_answer(make_tokenizer):
    with pytest.raises(RecipeError, match="did you mean 'alpaca'"):
        load_template("aplaca", make_tokenizer("byte_bpe"))
