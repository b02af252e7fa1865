"""Both pages, from what is on disk: complete, self-contained, harmless, and the same every time."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.run_dir import RunDir, open_run
from lora_kit.errors import DataError, MachineError
from lora_kit.report.write import escape_markdown, fenced, write_report

SCRIPT = '</script><script>alert("x")</script>'
HOSTILE = SCRIPT + " | <img src=x onerror=1> `code` [a](javascript:b) \x1b[31m\u202e\ud800"
VOID = {"meta", "input"}


class Page(HTMLParser):
    """Elements, attributes and visible text; fails on a page whose tags don't nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts += data
        elif "style" not in self.open:
            self.text += data

    def having(self, css: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if css in (attrs.get("class") or "").split()]


def report(run: RunDir) -> tuple[Page, str]:
    html, markdown = write_report(run)
    assert (html, markdown) == (run.report_html, run.report_md)
    return Page(html.read_text("utf-8")), markdown.read_text("utf-8")


def rewrite(run: RunDir, **changes: Any) -> None:
    path = run.evaluations / "quickstart" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_verdict_comes_first_in_plain_words(full_run: RunDir) -> None:
    page, markdown = report(full_run)
    sentence = "On suite quickstart (12 prompts) the tuned model is better than its base: bits per byte"
    assert sentence in page.text
    assert sentence in markdown
    assert page.text.index(sentence) < page.text.index("Results")
    assert markdown.index(sentence) < markdown.index("##")
    assert {"class": "badge good"} in page.having("badge")


def test_every_part_is_on_both_pages(full_run: RunDir) -> None:
    page, markdown = report(full_run)
    for text in (
        "What does rank 11 do?",  # every prompt
        "tuned says What does rank 11 do?",
        "It sets the size 11 of A and B.",
        "ROUGE-L",
        "answers that end by themselves",
        "step 20",  # kept
        "2.250 → 0.128",  # training loss, means of first and last two steps
        "0.250 nats per token",
        "50 tokens/s (median)",
        "600 tokens (25 %)",  # shared beginnings
        "1.0 GB",
        "48.0 s",
        "dropped: overlong",
        "6 examples in 2 clusters, each kept on one side; a random split would leak 2.2 of 4.5",
        "3 rows like an earlier one (similarity 0.8 or more); only the first 5 rows were looked up in",
        "1 exact of 12 items in training rows",
        "none of 80 items in training rows",
        "b.csv",
        "0.91",
        "rows.jsonl:3",
        "f" * 64,
        "torch 2.13.0",
        "AVX2",
        "rank: 16",
        "3.2e-06",
        "100.00 %",
        "lora-kit chat '",  # the path holds a space
        f"PeftModel.from_pretrained(base_model, '{full_run.adapter}')",
    ):
        assert text in page.text, text
        assert text in markdown.replace("\\", ""), text
    assert [tag for tag, _ in page.elements].count("svg") == 5
    assert len(page.having("item")) == 12


def test_same_files_same_bytes(full_run: RunDir) -> None:
    first = [path.read_bytes() for path in write_report(full_run)]
    assert [path.read_bytes() for path in write_report(full_run)] == first


def test_page_reaches_nothing_and_allows_only_its_own_script_and_style(full_run: RunDir) -> None:
    page, _ = report(full_run)
    content = full_run.report_html.read_text("utf-8")
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        [inline] = re.findall(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy
    for _, attrs in page.elements:
        assert not {"style", "src", "action", "srcset"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
        assert (attrs.get("href") or "#").startswith("#")
    assert "http" not in re.sub(r"http-equiv", "", content)


def test_hostile_text_stays_text(full_run: RunDir, better_results: dict[str, Any]) -> None:
    results = json.loads(json.dumps(better_results))
    results["suite"]["description"] = HOSTILE
    results["notes"] = [HOSTILE]
    item = results["items"][0]
    item |= {"id": HOSTILE, "category": HOSTILE, "prompt": HOSTILE, "reference": HOSTILE}
    item["answers"]["tuned"]["text"] = HOSTILE
    rewrite(full_run, **results)
    full_run.recipe.write_text("```\n" + "<b>\n", "utf-8")
    full_run.update_state(name=HOSTILE.replace("\ud800", ""))
    tame, tame_markdown = report(full_run)
    assert tame.text.count(SCRIPT) >= 6
    assert "alert" not in tame.scripts
    assert "img" not in {tag for tag, _ in tame.elements}
    assert "\x1b" not in tame.text
    assert "\u202e" not in tame.text
    assert "\x1b" not in tame_markdown
    outside = re.sub(r"^(`{3,}).*?^\1$", "", tame_markdown, flags=re.DOTALL | re.MULTILINE)
    unescaped = re.sub(r"\\.", "", outside).replace("<br>", "")
    assert not re.search(r"[<>`\[]", unescaped)
    tables = [re.sub(r"\\.", "", line) for line in outside.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in tables} <= {3, 4, 5, 6, 8}


def test_only_metrics_are_required(bare_run: RunDir) -> None:
    page, markdown = report(bare_run)
    assert "training loss went from 2.250 to 0.128" in page.text
    assert {"class": "badge unclear"} in page.having("badge")
    for part in ("recipe.yaml", "data_report.json", "adapter/lora_kit.json", "merged/certificate.json"):
        assert f"{part} is missing" in page.text
        assert part in markdown.replace("\\", "")
    assert "It has not been evaluated yet." in page.text


def test_no_training_log_is_an_error_with_the_command(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    with pytest.raises(DataError, match="lora-kit train"):
        write_report(run)
    assert not run.report_html.exists()


def test_empty_log_and_numbers_that_are_none(bare_run: RunDir) -> None:
    bare_run.metrics.write_text("")
    page, markdown = report(bare_run)
    assert "No step has been made yet." in page.text
    assert "No step has been made yet." in markdown
    lines = [{"step": n, "loss": float("nan"), "grad_norm": float("inf"), "seconds": None} for n in (1, 2)]
    bare_run.metrics.write_text(
        "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 3, "loss": 2.0}])
    )
    page, markdown = report(bare_run)
    assert "nan" not in page.text.lower()
    assert "inf" not in re.findall(r"points?=\S+|d=\"[^\"]*\"", bare_run.report_html.read_text("utf-8"))
    assert "2.000" in markdown


@pytest.mark.parametrize("content", ["{}", "[1]", "{", '{"suite": {"name": "x", "items": 1}, "metrics": 3}'])
def test_damaged_results_are_named_and_the_rest_is_reported(full_run: RunDir, content: str) -> None:
    folder = full_run.evaluations / "another"
    folder.mkdir()
    (folder / "results.json").write_text(content)
    page, _ = report(full_run)
    assert "better than its base" in page.text
    assert "another" in page.text or content == "{}"


def test_disk_error_leaves_the_old_report(full_run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(full_run)
    before = full_run.report_html.read_bytes()
    full_run.update_state(name="another name")
    monkeypatch.setenv("LORA_KIT_FAILPOINT", "file.after_write=enospc")
    with pytest.raises(MachineError):
        write_report(full_run)
    assert full_run.report_html.read_bytes() == before


def test_page_files_are_shipped_with_the_package() -> None:
    import lora_kit.report.write as module

    folder = Path(module.__file__).parent / "page"
    assert {path.name for path in folder.iterdir()} >= {
        "report.html.j2",
        "report.md.j2",
        "report.css",
        "report.js",
    }


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain 0.91, \N{MINUS SIGN}0.4 (a_b)", "plain 0.91, \N{MINUS SIGN}0.4 (a\\_b)"),
        ("# no", r"\# no"),
        ("1. no", r"1\. no"),
        ("---", r"\---"),
        ("a\nb\tc", "a<br>b c"),
        ("https://x www.y", r"https\://x www\.y"),
        ("a|b", r"a\|b"),
        ("\\", "\\\\"),
    ],
)
def test_escape_markdown(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


def test_a_fence_is_longer_than_any_in_the_code() -> None:
    assert fenced("a\n````\nb", "sh") == "`````sh\na\n````\nb\n`````"
