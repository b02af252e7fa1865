"""Museum, first room: defects between a row and its tokens that the field met and lora_kit must not have."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_kit.catalogue import TEMPLATES
from lora_kit.data.collate import pad
from lora_kit.data.encode import Encoder
from lora_kit.data.prepare import prepare_data
from lora_kit.data.template import load_template
from lora_kit.data.tokenizer import Tokenizer, load_tokenizer, wrap_tokenizer
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError
from lora_kit.recipe.schema import DataSpec

pytestmark = pytest.mark.fault("P16")

TALK = (Message("user", "Name a colour."), Message("assistant", "Blue."))
PLAIN = [name for name, spec in TEMPLATES.items() if not spec.needs]


@pytest.fixture
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    return load_tokenizer(tiny_tokenizer)


def encoder_of(tokenizer: Tokenizer, name: str = "model") -> Encoder:
    return Encoder(tokenizer, load_template(name, tokenizer))


def test_a_pad_token_that_is_the_end_mark_hides_no_end_mark(tokenizer: Tokenizer) -> None:
    """https://github.com/unslothai/unsloth/issues/416, https://github.com/mlabonne/llm-course/issues/33

    With pad = eos, collators mask every end mark together with the padding: the model never learns to stop.
    """
    rows = [Conversation((Message("user", "q"), Message("assistant", "a" * n)), "r:1") for n in (1, 20)]
    examples = encoder_of(tokenizer, "alpaca").encode_many(rows)
    targets = pad(examples, pad_id=tokenizer.eos_id).targets.tolist()
    assert targets.count(tokenizer.eos_id) == len(rows)
    assert len(targets) == sum(sum(example.trained) for example in examples)


@pytest.mark.parametrize("name", ["model", *PLAIN])
def test_every_answer_ends_in_a_trained_stop_token(tokenizer: Tokenizer, name: str) -> None:
    """https://github.com/huggingface/trl/issues/1623

    A trainer did not append the end mark to rows of plain text, and the tuned models talked on and on.
    """
    encoder = encoder_of(tokenizer, name)
    example = encoder.encode(Conversation(TALK, "r:1"))
    trained = [
        token for token, is_trained in zip(example.input_ids, example.trained, strict=True) if is_trained
    ]
    assert set(trained) & encoder.stop_ids
    assert encoder.decode_answer(trained[:-1]).strip() == "Blue."


def test_one_beginning_of_text(tiny_tokenizer: Path, tmp_path: Path) -> None:
    """https://github.com/OpenRLHF/OpenRLHF/issues/393, https://github.com/huggingface/trl/pull/1114

    The template writes a BOS and the tokenizer adds another: trained on two, served with one, or the reverse.
    """
    from tokenizers import processors

    shutil.copytree(tiny_tokenizer, tmp_path / "t")
    hf = load_tokenizer(tmp_path / "t").hf
    hf.chat_template = "{{ bos_token }}" + hf.chat_template
    hf.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A", special_tokens=[("<s>", hf.bos_token_id)]
    )
    rendered = hf.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    assert hf(rendered)["input_ids"][:2] == [hf.bos_token_id] * 2  # the defect, as it is elsewhere
    encoder = encoder_of(wrap_tokenizer(hf))
    example, prompt = encoder.encode(Conversation(TALK, "r:1")), encoder.encode_prompt(TALK[:1])
    assert list(example.input_ids).count(hf.bos_token_id) == prompt.count(hf.bos_token_id) == 1
    assert list(example.input_ids[: len(prompt)]) == prompt


def test_the_same_prompt_on_every_day(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://github.com/sgl-project/sglang/issues/3296

    Templates that write today's date give other tokens tomorrow: training, evaluation and serving differ.
    """
    tokenizer.hf.chat_template = "{{ strftime_now('%d %b %Y') }} " + tokenizer.hf.chat_template
    prompts = []
    for seconds in (10**9, 2 * 10**9):
        monkeypatch.setattr("time.time", lambda seconds=seconds: float(seconds))
        prompts.append(encoder_of(tokenizer).encode_prompt(TALK[:1]))
    assert prompts[0] == prompts[1]


def test_nothing_is_cut_in_silence(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """https://github.com/hiyouga/LlamaFactory/issues/3995

    Rows over the limit were cut without a word: half answers without an end mark, and a model that is worse.
    """
    rows = [{"instruction": "Count.", "input": "", "output": "one two " * n} for n in (1, 200)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DataSpec(
        train=str(path), format="alpaca", template="alpaca", max_tokens=200, validation_fraction=0.0
    )
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*data\.max_tokens"):
        prepare_data(spec, encoder_of(tokenizer, "alpaca"))
    kept = prepare_data(spec.model_copy(update={"overlong": "drop"}), encoder_of(tokenizer, "alpaca"))
    assert kept.report.to_json()["dropped"]["overlong"] == {"count": 1, "rows": ["rows.jsonl:2"]}
    assert [example.input_ids[-1] for example in kept.train] == [tokenizer.eos_id]


def test_rows_that_were_edited_in_place_are_read_again(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://github.com/axolotl-ai-cloud/axolotl/pull/1136

    A cache of tokens that is known by a file's name went on training on the rows as they were yesterday.
    """
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    spec = DataSpec(train=str(path), format="alpaca", template="alpaca", validation_fraction=0.0)
    read: Callable[[], str] = lambda: tokenizer.decode(  # noqa: E731
        prepare_data(spec, encoder_of(tokenizer, "alpaca")).train[0].input_ids
    )
    for answer in ("Blue", "Pink"):
        path.write_text(json.dumps({"instruction": "A colour?", "input": "", "output": answer}) + "\n")
        os.utime(path, (10**9, 10**9))
        assert answer in read()
        assert answer in read()
