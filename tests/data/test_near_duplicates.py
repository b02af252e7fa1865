import random
import re
from itertools import combinations

import pytest
from datasketch import MinHash, MinHashLSH

from lora_kit.data import near_duplicates
from lora_kit.data.near_duplicates import (
    BANDS,
    KEPT_SHINGLES,
    THRESHOLD,
    NearIndex,
    similarity,
    sketch,
)

WORDS = [f"w{n}" for n in range(400)]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(max(len(words) - 4, bool(words)))}


def jaccard(one: str, other: str) -> float:
    ours, theirs = shingles(one), shingles(other)
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


def near_pairs(texts: list[str], index: NearIndex | None = None) -> set[tuple[int, int]]:
    index = index or NearIndex()
    pairs = set()
    for number, row in enumerate(sketch(texts)):
        pairs |= {(other, number) for other, _ in index.like(row, lambda _: True)}
        index.enter(number, row)
    return pairs


def varied(seed: int, count: int = 60) -> list[str]:
    """Families of texts that differ in a word or a few, of 1 to 120 words."""
    draw = random.Random(seed)
    texts = []
    while len(texts) < count:
        words = draw.choices(WORDS, k=draw.choice([1, 3, 5, 6, 12, 40, 120]))
        for changes in (0, 0, 1, 2, 5):
            other = list(words)
            for _ in range(changes):
                other[draw.randrange(len(other))] = draw.choice(WORDS)
            texts.append(draw.choice([" ", "\n", ", "]).join(other).upper())
    draw.shuffle(texts)
    return texts


@pytest.mark.parametrize("seed", range(8))
def test_the_pairs_are_those_of_exact_jaccard(seed: int) -> None:
    texts = varied(seed)
    exact = {
        (one, two)
        for one, two in combinations(range(len(texts)), 2)
        if jaccard(texts[one], texts[two]) >= 0.8
    }
    assert len(exact) > 10
    assert near_pairs(texts) == exact


@pytest.mark.parametrize("seed", range(3))
def test_datasketch_finds_the_same_candidates(seed: int) -> None:
    texts = varied(seed)
    lsh = MinHashLSH(num_perm=BANDS * 4, params=(BANDS, 4))
    pairs = set()
    for number, text in enumerate(texts):
        hashed = MinHash(num_perm=BANDS * 4)
        hashed.update_batch([" ".join(one).encode() for one in shingles(text)])
        pairs |= {(other, number) for other in lsh.query(hashed)}
        lsh.insert(number, hashed)
    assert near_pairs(texts) == {
        (one, two) for one, two in pairs if jaccard(texts[one], texts[two]) >= THRESHOLD
    }


def test_similarity_is_exact_and_of_long_texts_close() -> None:
    texts = varied(1)
    rows = sketch(texts)
    for one, two in combinations(range(len(texts)), 2):
        assert similarity(rows[one], rows[two]) == pytest.approx(jaccard(texts[one], texts[two]))
    draw = random.Random(0)
    long = [str(draw.random()) for _ in range(5000)]
    other = [word if draw.random() > 0.02 else "x" for word in long]
    pair = sketch([" ".join(long), " ".join(other)])
    assert all(len(row.shingles) == KEPT_SHINGLES for row in pair)
    assert similarity(*pair) == pytest.approx(jaccard(" ".join(long), " ".join(other)), abs=0.06)


def test_texts_without_words_are_like_nothing() -> None:
    assert near_pairs(["", "", "+-*/", "+-*/", "one", "One!"]) == {(4, 5)}
    empty = sketch([""])[0]
    assert similarity(empty, empty) == 0.0


def test_beyond_its_limit_the_index_says_that_it_is_not_complete() -> None:
    rows = sketch(["a b c d e f", "g h i j k l", "G h i j k l", "a b c d e f"])
    index = NearIndex(limit=1)
    found = []
    for number, row in enumerate(rows):
        found.append([other for other, _ in index.like(row, lambda _: True)])
        index.enter(number, row)
    assert found == [[], [], [], [0]]
    assert not index.is_complete
    assert NearIndex(limit=1).is_complete


def test_a_crowd_of_half_alike_rows_is_bounded_and_told() -> None:
    draw = random.Random(0)
    head = " ".join(WORDS[:60])
    texts = [f"{head} {' '.join(draw.choices(WORDS, k=40))}" for _ in range(400)]
    index = NearIndex()
    compared = 0

    def count(_: int) -> bool:
        nonlocal compared
        compared += 1
        return True

    for number, row in enumerate(sketch(texts)):
        list(index.like(row, count))
        index.enter(number, row)
    assert compared <= near_duplicates.COMPARED_ROWS * len(texts)
    assert index.crowded
    assert not index.is_complete


def test_the_bands_are_the_same_on_every_machine() -> None:
    row = sketch(["What is LoRA, and why is it cheap?"])[0]
    assert f"{row.bands[0]:016x}" == "c440f7028bbd2a7c"
    assert len(row.shingles) == 4
