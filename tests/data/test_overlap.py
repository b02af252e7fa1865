import re

from hypothesis import given
from hypothesis import strategies as st

from lora_kit.data.overlap import SuiteOverlap, SuiteText

PROMPT = "Explain to a child of ten years why the sky is blue at noon and red at dusk"
REFERENCE = "Air bends blue light in all directions, and red light goes straight through more of it."


def levels(rows: list[str], prompt: str = PROMPT, reference: str = REFERENCE) -> dict[str, str]:
    overlap = SuiteOverlap([SuiteText("suite", "one", prompt, reference)])
    overlap.add(rows, [f"rows.jsonl:{n}" for n in range(1, len(rows) + 1)])
    return {found["part"]: found["level"] for found in overlap.to_json()["suite"]["found"]}


def test_levels_follow_the_words_found_in_a_row() -> None:
    words = PROMPT.split()
    assert levels([" ".join(words[:7]), " ".join(words[1:8])]) == {}
    assert levels(["So: " + " ".join(words[2:10]).upper() + "!"]) == {"prompt": "possible"}
    assert levels([" ".join(words[1:14])]) == {"prompt": "probable"}
    assert levels([f"a\n{PROMPT.lower()}?\nb"]) == {"prompt": "exact"}
    assert levels([f"{PROMPT} {REFERENCE}"]) == {"prompt": "exact", "reference": "exact"}
    assert levels([REFERENCE[:50]]) == {"reference": "possible"}


def test_half_of_the_runs_found_here_and_there_is_probable() -> None:
    words = PROMPT.split()  # 18 words, 11 runs of 8
    rows = [" ".join(words[at : at + 8]) for at in range(0, 11, 2)]
    assert levels(rows[:5]) == {"prompt": "possible"}
    assert levels(rows) == {"prompt": "probable"}


def test_short_prompts_count_whole_and_short_references_not_at_all() -> None:
    assert levels(["Say: what is LoRA? A method. Yes, it is."], "What is LoRA?", "Yes, it is") == {
        "prompt": "exact"
    }
    assert levels(["what is a LoRA"], "What is LoRA?", "") == {}
    assert levels(["Why not? Why not!"], "Why not?", "") == {}
    assert levels(["", "?"], "?", "!") == {}


def test_the_report_counts_items_and_names_the_first_rows() -> None:
    items = [SuiteText("a", "x", PROMPT, "short"), SuiteText("a", "y", "Why?", REFERENCE)]
    overlap = SuiteOverlap([*items, SuiteText("b", "x", "Never asked", "short")])
    for n in range(9):
        overlap.add([f"{PROMPT} {n}", "nothing"], [f"f:{2 * n}", f"f:{2 * n + 1}"])
    none = {"exact": 0, "probable": 0, "possible": 0}
    found = {"id": "x", "part": "prompt", "level": "exact", "share": 1.0}
    assert overlap.to_json() == {
        "a": {
            "items": 2,
            "found": [found | {"rows": ["f:0", "f:2", "f:4", "f:6", "f:8"]}],
            "prompt": none | {"exact": 1},
            "reference": none,
        },
        "b": {"items": 1, "found": [], "prompt": none, "reference": none},
    }


def test_no_suites_no_report() -> None:
    overlap = SuiteOverlap([])
    overlap.add(["text"], ["f:1"])
    assert overlap.to_json() == {}


WORDS = st.lists(st.sampled_from("abc"), max_size=24)


@given(prompt=WORDS, rows=st.lists(WORDS, max_size=4))
def test_it_agrees_with_a_plain_search(prompt: list[str], rows: list[list[str]]) -> None:
    def runs(words: list[str], size: int) -> set[str]:
        return {" ".join(words[at : at + size]) for at in range(len(words) - size + 1)}

    texts = [re.sub(" ", ", ", " ".join(row)) for row in rows]
    seen = {size: set().union(*(runs(row, size) for row in rows)) for size in (8, 13, len(prompt))}
    eight = runs(prompt, 8)
    expected = ""
    if eight & seen[8]:
        expected = "possible"
        if runs(prompt, 13) & seen[13] or len(eight & seen[8]) >= len(eight) / 2:
            expected = "probable"
    if len(prompt) > 2 and " ".join(prompt) in seen[len(prompt)]:
        expected = "exact"
    assert levels(texts, " ".join(prompt), "").get("prompt", "") == expected
