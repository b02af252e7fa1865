"""The evaluation page in a real browser: plots are seen, prompts open and are found, answers are compared."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_kit.report.evaluation_page import write_evaluation

PLOTS = {"forest": 2, "outcomes": 2, "lengths": 2, "categories": 1}


@pytest.fixture(scope="module")
def page_file(judged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(judged, tmp_path_factory.mktemp("browser") / "evaluation")
    return write_evaluation(Path(folder))[0]


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    yield from opened(browser, page_file)


def opened(browser: Any, file: Path) -> Iterator[Any]:
    """The page, and afterwards whether it complained or reached for anything."""
    browser.get(file.as_uri())
    wait_until(browser, "document.documentElement.dataset.ready !== undefined")
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def wait_until(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(f"return {condition}"))


def click(page: Any, element: Any) -> None:
    """Click where smooth scrolling does not get in the way."""
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


def choose(page: Any, box: str, value: str) -> None:
    """Choose in a list, as a click does."""
    page.execute_script(
        "const box = document.getElementById(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change'))",
        box,
        value,
    )
    assert page.execute_script("return document.getElementById(arguments[0]).value", box) == value


def visible_ids(page: Any) -> list[str]:
    """Prompts that are shown, from the top."""
    heads = page.execute_script(
        "return [...document.querySelectorAll('.item')].filter((item) => !item.hidden)"
        ".map((item) => item.querySelector('summary small').textContent.split(' · ')[0])"
    )
    return [head.strip() for head in heads]


def search(page: Any, words: str) -> str:
    box = page.find_element("id", "search")
    box.clear()
    box.send_keys(words)
    return page.find_element("id", "found").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_seen(page: Any, scheme: str) -> None:
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    for css, count in PLOTS.items():
        boxes = page.execute_script(
            "return [...document.querySelectorAll(`figure.${arguments[0]} > svg`)].map((svg) => {"
            " const box = svg.getBoundingClientRect(), inner = svg.getBBox();"
            " return [box.width, box.height, inner.width, inner.height]; })",
            css,
        )
        assert len(boxes) == count, css
        assert all(width > 300 and height > 20 for width, height, *_ in boxes), css
        assert all(width > 300 and height > 15 for *_, width, height in boxes), css
    text, ground = page.execute_script(
        "const style = getComputedStyle(document.querySelector('figure.outcomes svg text'));"
        "return [style.fill, getComputedStyle(document.querySelector('section')).backgroundColor]"
    )
    assert contrast(text, ground) > 4.5


def contrast(one: str, other: str) -> float:
    """Ratio of luminances by WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_prompt_opens_with_the_judges_words(page: Any) -> None:
    item = page.find_elements("css selector", ".item")[3]
    assert item.get_attribute("open") is None
    click(page, item.find_element("css selector", "summary"))
    assert item.find_element("css selector", ".prompt p").text == "What does rank 3 do?"
    verdict = item.find_element("css selector", ".verdict-of")
    click(page, verdict.find_element("css selector", "summary"))
    assert verdict.find_element("css selector", ".said p").text.startswith("About q-3.")
    assert item.find_element("css selector", ".checks .broken").text.startswith("the last number is 137")


def test_two_answers_are_compared_word_by_word(page: Any) -> None:
    choose(page, "left", "base")
    choose(page, "right", "tuned")
    wait_until(page, "document.querySelector('.item .diff') !== null")
    diff = page.find_element("css selector", ".item[open] .diff")
    assert diff.text.splitlines()[0].lower() == "from base to tuned"
    assert [part.text for part in diff.find_elements("css selector", "del")] == ["base"]
    assert [part.text for part in diff.find_elements("css selector", "ins")] == ["tuned"]
    assert "says What does rank 0 do?" in diff.text
    choose(page, "right", "")
    assert page.find_elements("css selector", ".diff") == []


def test_a_diff_rebuilds_both_texts(page: Any) -> None:
    pairs = [["", ""], ["a b c", ""], ["", "x"], ["the cat sat", "the dog sat down"], ["日本 語", "日本、語"]]
    pairs += [["w " * 3000, "v " * 3000], ["l\n" * 50 + "w " * 3000, "l\n" * 49 + "v " * 3000]]
    for before, after in pairs:
        parts = page.execute_script("return compare(arguments[0], arguments[1])", before, after)
        assert "".join(text for kind, text in parts if kind in " -") == before
        assert "".join(text for kind, text in parts if kind in " +") == after
    kept = page.execute_script("return compare('a b c d e f', 'a x c d y f').filter(([k]) => k === ' ')")
    assert "".join(text for _, text in kept) == "a  c d  f"


def test_prompts_are_found_and_filtered(page: Any) -> None:
    assert search(page, "rank 17") == "1 of 24"
    assert visible_ids(page) == ["q-17"]
    assert search(page, "no prompt says this") == "0 of 24"
    search(page, " ")
    choose(page, "category", "writing")
    assert len(visible_ids(page)) == 12
    choose(page, "category", "")
    for value, ids in (
        ("outcome:not judged", ["q-1", "q-2"]),
        ("outcome:orders disagree", ["q-0"]),
        ("failed:yes", ["q-3"]),
        ("leaked:yes", ["q-4"]),
    ):
        choose(page, "trend", value)
        assert visible_ids(page) == ids
    choose(page, "trend", "")
    assert len(visible_ids(page)) == 24


def test_prompts_are_sorted(page: Any) -> None:
    lost = [f"q-{n}" for n in (3, 7, 11, 15, 19, 23)]
    choose(page, "sort", "share:up")
    assert visible_ids(page)[:7] == [*lost, "q-0"]
    assert visible_ids(page)[-2:] == ["q-1", "q-2"]  # not judged: last either way
    choose(page, "sort", "share:down")
    assert visible_ids(page)[:2] == ["q-4", "q-5"]
    assert visible_ids(page)[-2:] == ["q-1", "q-2"]
    choose(page, "sort", "length:down")
    assert visible_ids(page)[0] == "q-5"
    choose(page, "sort", "")
    assert visible_ids(page) == [f"q-{n}" for n in range(24)]


def test_hostile_text_is_shown_and_does_nothing(page: Any) -> None:
    click(page, page.find_element("id", "unfold"))
    choose(page, "left", "base")
    choose(page, "right", "tuned")
    scripts, pictures = (page.find_elements("css selector", f"body {tag}") for tag in ("script", "img"))
    assert (len(scripts), len(pictures)) == (1, 0)
    sixth = page.find_elements("css selector", ".item")[5]
    for css in (".answer[data-who=tuned] p", ".diff p"):
        assert '<script>alert("x")</script>' in sixth.find_element("css selector", css).text
    widths = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]  # a line of 3,000 letters breaks


def test_a_ranking_is_seen(browser: Any, compared: Path) -> None:
    for page in opened(browser, write_evaluation(compared)[0]):
        box = page.find_element("css selector", "figure.ranking > svg").rect
        assert box["width"] > 300
        assert box["height"] > 60
        assert page.find_elements("css selector", ".item") != []


def test_eight_hundred_prompts_open_and_are_searched(browser: Any, judged: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(judged, tmp_path / "many"))
    results = json.loads((folder / "results.json").read_text("utf-8"))
    for name in ("judgments", "leakage"):
        del results[name]
    longer = " ".join(f"word{n}" for n in range(200))
    few, results["items"] = results["items"], []
    for n in range(800):
        said = {name: {**one, "text": f"{longer} mark-{n}."} for name, one in few[n % 24]["answers"].items()}
        results["items"].append({**few[n % 24], "id": f"q-{n}", "answers": said})
    (folder / "results.json").write_text(json.dumps(results), "utf-8")
    for page in opened(browser, write_evaluation(folder)[0]):
        assert page.find_element("id", "found").text == "800 of 800"
        assert search(page, "WORD199 mark-777.") == "1 of 800"
        assert visible_ids(page) == ["q-777"]
