import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.data.word_hashes import BLOCK_BYTES, hash_runs, hash_whole, hash_words

TEXTS = st.lists(
    st.text(max_size=60) | st.lists(st.sampled_from(["a", "B", "b", "é", "_1", "x.y", "-"])).map(" ".join)
)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@given(texts=TEXTS)
def test_equal_words_and_no_others_have_equal_hashes(texts: list[str]) -> None:
    found = hash_words(texts)
    expected = [words_of(text) for text in texts]
    assert np.diff(found.bounds).tolist() == [len(words) for words in expected]
    flat = [word for words in expected for word in words]
    meaning: dict[int, str] = {}
    for word, code in zip(flat, found.hashes.tolist(), strict=True):
        assert meaning.setdefault(code, word) == word
    assert len(meaning) == len(set(flat))


@given(texts=TEXTS, size=st.integers(1, 6))
def test_runs_stay_inside_their_text(texts: list[str], size: int) -> None:
    words = hash_words(texts)
    runs = hash_runs(words, size)
    expected = [
        tuple(found[at : at + size]) for found in map(words_of, texts) for at in range(len(found) - size + 1)
    ]
    assert len(expected) == len(runs.hashes) == runs.bounds[-1]
    assert len(set(expected)) == len(set(runs.hashes.tolist()))
    for n in range(len(texts)):
        own = words.hashes[words.bounds[n] : words.bounds[n + 1]]
        found = runs.hashes[runs.bounds[n] : runs.bounds[n + 1]].tolist()
        assert found == [hash_whole(own[at : at + size]) for at in range(len(own) - size + 1)]


def test_a_text_hashes_the_same_alone_and_behind_others() -> None:
    long = "word " * BLOCK_BYTES
    together = hash_words(["one", long, "two words", "", "Two, words!"])
    assert together.hashes[-2:].tolist() == hash_words(["two words"]).hashes.tolist()
    assert together.bounds.tolist() == [
        0,
        1,
        1 + BLOCK_BYTES,
        3 + BLOCK_BYTES,
        3 + BLOCK_BYTES,
        5 + BLOCK_BYTES,
    ]


def test_hashes_are_the_same_on_every_machine() -> None:
    words = hash_words(["What is LoRA?"])
    assert [f"{code:016x}" for code in words.hashes.tolist()] == [
        "4241a0ef1f7da89e",
        "c740ed07f6d0cc1c",
        "10d4e36ad1be5e83",
    ]
    assert f"{hash_whole(words.hashes):016x}" == "9d76fb03884c1296"
