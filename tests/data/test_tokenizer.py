import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.data.tokenizer import load_tokenizer
from lora_kit.data.tokenizer_variants import Place
from lora_kit.errors import ModelError

KINDS = ("byte_bpe", "sentencepiece_bpe", "sentencepiece_legacy", "unigram")
# SentencePiece's stand-in for a space reads as a space; nothing can be done about it.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=30)


def test_text_of_a_control_token_is_text(tokenizer):
    for token, index in tokenizer.control.items():
        for text in (token, f"a{token}", f"{token} b", f"a {token}{token} b"):
            for place in Place:
                ids = tokenizer.encode_plain(text, place)
                assert not tokenizer.control_ids & set(ids), (text, place)
                assert tokenizer.decode(ids, place) == text
        assert tokenizer.encode_control(token) == [index]


def test_the_original_would_have_read_a_control_token(tokenizer):
    ids = tokenizer.hf("a</s>b<tool_call>", add_special_tokens=False)["input_ids"]
    assert {tokenizer.control["</s>"], tokenizer.control["<tool_call>"]} <= set(ids)


@pytest.mark.parametrize("kind", ["unigram", "sentencepiece_bpe", "sentencepiece_legacy"])
def test_leaving_out_added_tokens_alone_would_not_be_enough(make_tokenizer, kind):
    from tokenizers import Tokenizer as Backend

    tokenizer = make_tokenizer(kind)
    naive = Backend.from_str(json.dumps({**tokenizer.spec, "added_tokens": []}))
    assert tokenizer.eos_id in naive.encode("</s>", add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT, place=st.sampled_from([Place.START, Place.MIDDLE]))
def test_plain_text_round_trips_exactly(make_tokenizer, kind, text, place):
    tokenizer = make_tokenizer(kind)
    ids = tokenizer.encode_plain(text, place)
    kept = (
        text.removeprefix(" ") if kind in {"sentencepiece_bpe", "unigram"} and place is Place.START else text
    )
    assert tokenizer.decode(ids, place) in {text, kept}
    assert not tokenizer.control_ids & set(ids)


@pytest.mark.parametrize("kind", KINDS)
@given(
    parts=st.lists(
        st.sampled_from(["a b", "the answer", " x", "\n", "</s>", "<|im_end|>", "<tool_call>"]), max_size=6
    )
)
def test_control_text_is_encoded_as_the_original_does(make_tokenizer, kind, parts):
    tokenizer = make_tokenizer(kind)
    text = "".join(parts)
    assert tokenizer.encode_control(text) == tokenizer.hf(text, add_special_tokens=False)["input_ids"]


def test_only_the_start_of_a_text_gets_a_prefix_space(make_tokenizer):
    for kind in ("sentencepiece_bpe", "unigram"):
        tokenizer = make_tokenizer(kind)
        assert tokenizer.hf.convert_ids_to_tokens(tokenizer.encode_plain("the"))[0].startswith("▁")
        for place in (Place.AFTER_CONTROL, Place.MIDDLE):
            assert not tokenizer.hf.convert_ids_to_tokens(tokenizer.encode_plain("the", place))[0].startswith(
                "▁"
            )
    legacy = make_tokenizer("sentencepiece_legacy")
    first = {place: legacy.hf.convert_ids_to_tokens(legacy.encode_plain("the", place))[0] for place in Place}
    assert first[Place.AFTER_CONTROL].startswith("▁")  # as that tokenizer does behind <s>
    assert not first[Place.MIDDLE].startswith("▁")


@pytest.mark.parametrize("kind", ["byte_bpe", "sentencepiece_bpe", "unigram"])
def test_runs_of_spaces_keep_their_tokens(make_tokenizer, kind):
    tokenizer, spaces = make_tokenizer(kind), " " * 8
    ids = tokenizer.encode_plain(f"def f():\n{spaces}return", Place.MIDDLE)
    assert tokenizer.added[spaces] in ids
    assert spaces not in tokenizer.control


def test_bos_is_found_out(make_tokenizer):
    assert {kind: make_tokenizer(kind).adds_bos for kind in KINDS} == {
        kind: kind != "byte_bpe" for kind in KINDS
    }


def test_flags_of_added_tokens_are_kept(tiny_tokenizer, tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(tiny_tokenizer, folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    for token in spec["added_tokens"]:
        token["rstrip"] = token["content"] == "<|im_start|>"
        token["lstrip"] = token["content"] == "<|im_end|>"
        token["single_word"] = token["content"] == "</s>"
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("extra_special_tokens", None)
    config.pop("additional_special_tokens", None)
    for key in ("eos_token", "bos_token", "added_tokens_decoder"):
        config.pop(key, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(folder)
    for text in ("<|im_start|>\n user x \n<|im_end|> y", "a</s> b", "a </s> b", "<|im_start|><|im_end|>"):
        assert tokenizer.encode_control(text) == tokenizer.hf(text, add_special_tokens=False)["input_ids"], (
            text
        )


def test_the_fingerprint_survives_saving_and_sees_every_change(tiny_tokenizer, tmp_path):
    original = load_tokenizer(tiny_tokenizer)
    original.hf("some text", truncation=True, max_length=4)  # leaves traces in the backend
    original.hf.save_pretrained(tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").fingerprint == original.fingerprint
    path = tmp_path / "copy" / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["model"]["merges"].pop()
    path.write_text(json.dumps(spec))
    assert load_tokenizer(tmp_path / "copy").fingerprint != original.fingerprint


def test_threads_share_a_tokenizer(tokenizer):
    texts = [f"thread {n} says </s> and <|im_end|> the answer" for n in range(64)]
    alone = [tokenizer.encode_plain(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        control = [pool.submit(tokenizer.encode_control, text) for text in texts]
        assert list(pool.map(tokenizer.encode_plain, texts)) == alone
    assert all(tokenizer.eos_id in job.result() for job in control)


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}', "[]", "null"])
def test_a_broken_tokenizer_is_one_line(tiny_tokenizer, tmp_path, content):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_tokenizer, folder)
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError) as error:
        load_tokenizer(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        load_tokenizer(Path(tmp_path / "nothing"))
