"""The page over real rows in a real browser: it opens at once, and search, sort and tokens work."""

from pathlib import Path
from typing import Any

import pytest

from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.prepare import prepare_data
from lora_kit.recipe.schema import DataSpec
from lora_kit.report.microscope import Microscope, Specimen
from lora_kit.report.microscope_page import write_microscope


@pytest.fixture(scope="module")
def microscope(shared_data: Path, tiny_tokenizer: Path) -> Microscope:
    """The 999 Alpaca rows, several tokens to a word; every fiftieth is said to have been cut."""
    spec = DataSpec(
        train=str(shared_data / "train" / "alpaca_en_demo.json"), format="alpaca", max_tokens=100_000
    )
    encoder = open_encoder(tiny_tokenizer, "alpaca", None)
    data = prepare_data(spec, encoder)
    return Microscope(data, encoder.tokenizer, {one.content_hash for one in data.train[::50]})


@pytest.fixture(scope="module")
def specimens(microscope: Microscope) -> list[Specimen]:
    return list(microscope.view())


@pytest.fixture(scope="module")
def file(microscope: Microscope, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "page.html"
    write_microscope(file, "alpaca", microscope)
    return file


@pytest.fixture
def page(browser: Any, file: Path) -> Any:
    browser.get(file.as_uri())
    wait_until(browser, "document.documentElement.dataset.ready !== undefined")
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def wait_until(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(f"return {condition}"))


def listed(browser: Any) -> list[str]:
    """Origins of the lines in sight, from the top."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#strip .origin')].map((line) => line.textContent)"
    )


def click(browser: Any, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def text_of(browser: Any, selector: str) -> str:
    return browser.execute_script(f"return document.querySelector('{selector}').textContent")


def search(browser: Any, words: str) -> str:
    box = browser.find_element("id", "search")
    box.clear()
    box.send_keys(words)
    return text_of(browser, "#found")


def test_a_thousand_rows_are_ready_within_two_seconds(page: Any, specimens: list[Specimen]) -> None:
    ready = page.execute_script("return Number(document.documentElement.dataset.ready)")
    assert ready < 2000
    assert len(specimens) == 999
    assert text_of(page, "#found") == "999 rows"
    assert page.execute_script("return document.querySelectorAll('*').length") < 1000


def test_rows_are_sorted(page: Any, specimens: list[Specimen]) -> None:
    file_order = [one.origin for one in specimens]
    assert listed(page)[:10] == file_order[:10]
    by_key = {
        "tokens": lambda one: one.tokens,
        "trained": lambda one: one.trained_tokens,
        "cut": lambda one: one.truncated,
    }
    for name, key in by_key.items():
        for descending in (True, False):
            click(page, f"[data-sort={name}]")
            ordered = sorted(specimens, key=lambda one: -key(one) if descending else key(one))
            assert listed(page)[:10] == [one.origin for one in ordered][:10]
            assert text_of(page, "#origin") == ordered[0].origin
    click(page, "[data-sort=file]")
    assert listed(page)[:10] == file_order[:10]
    click(page, "[data-sort=file]")
    assert listed(page)[:10] == file_order[::-1][:10]


def test_rows_are_found_by_their_text(page: Any, specimens: list[Specimen]) -> None:
    def holding(words: str) -> list[str]:
        texts = ("".join(span.text for span in one.spans) for one in specimens)
        return [
            one.origin for one, text in zip(specimens, texts, strict=True) if words.lower() in text.lower()
        ]

    for words in ("Paris", "### input:", "crepes"):
        expected = holding(words)
        assert 0 < len(expected) < len(specimens)
        assert search(page, words) == f"{len(expected)} of {len(specimens)} rows"
        assert listed(page)[:10] == expected[:10]
        assert text_of(page, "#strip mark").lower() == words.lower()
    assert search(page, "no row says this").startswith("0 of")
    assert text_of(page, "#origin") == "no row fits"


def test_only_validation_rows_or_only_cut_ones(page: Any, specimens: list[Specimen]) -> None:
    choices = {
        "1": [one.origin for one in specimens if one.held_out],
        "0": [one.origin for one in specimens if not one.held_out],
        "cut": [one.origin for one in specimens if one.truncated],
    }
    for value, expected in choices.items():
        assert 0 < len(expected) < len(specimens)
        click(page, f"#side option[value='{value}']")
        assert text_of(page, "#found") == f"{len(expected)} of {len(specimens)} rows"
        assert listed(page)[:10] == expected[:10]


def test_a_row_shows_its_mask_and_its_tokens(page: Any, specimens: list[Specimen]) -> None:
    click(page, "#strip .line:nth-child(3)")
    third = specimens[2]
    assert text_of(page, "#origin") == third.origin
    assert text_of(page, "#figures").startswith(third.side)
    assert text_of(page, "#reader") == "".join(span.text for span in third.spans)
    shown = page.execute_script(
        "return [...document.querySelectorAll('#reader > .trained')].map((span) => span.textContent)"
    )
    assert shown == [span.text for span in third.spans if span.trained]
    click(page, "[data-mode=tokens]")
    ids = page.execute_script(
        "return [...document.querySelectorAll('#reader .token')]"
        ".map((token) => [token.classList.contains('trained'), token.querySelector('small').textContent])"
    )
    glyphs = [(span.trained, glyph) for span in third.spans for glyph in span.glyphs]
    assert ids == [[trained, " ".join(map(str, glyph.ids))] for trained, glyph in glyphs]


def test_the_list_scrolls_and_follows_the_keys(page: Any, specimens: list[Specimen]) -> None:
    page.execute_script("document.getElementById('list').scrollTop = 1e9")
    wait_until(page, f"document.getElementById('row-{len(specimens) - 1}') !== null")
    box = page.find_element("id", "list")
    box.send_keys("\ue010")  # End
    assert text_of(page, "#origin") == specimens[-1].origin
    box.send_keys("\ue013")  # up
    assert text_of(page, "#origin") == specimens[-2].origin
    assert page.execute_script("return document.querySelectorAll('#strip .line').length") < 80
