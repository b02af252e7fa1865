"""The page of one evaluation, from what evaluate, judge and compare left on disk."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.cli.app import run as lora_kit
from lora_kit.errors import DataError, ModelError
from lora_kit.report.evaluation import suite_view
from lora_kit.report.evaluation_files import read_evaluation
from lora_kit.report.evaluation_page import report_on, run_of, write_evaluation


@pytest.fixture
def copy(tmp_path: Path, judged: Path) -> Path:
    """A folder of one's own."""
    return Path(shutil.copytree(judged, tmp_path / "evaluation"))


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def pages(folder: Path) -> tuple[str, str]:
    html, markdown = write_evaluation(folder)
    assert (html, markdown) == (folder / "report.html", folder / "report.md")
    return html.read_text("utf-8"), markdown.read_text("utf-8")


def svgs(html: str, css: str) -> list[ET.Element]:
    """Pictures of figures of a class."""
    found = re.findall(rf'<figure class="{css}">(<svg.*?</svg>)', html, re.DOTALL)
    return [ET.fromstring(re.sub(r"&(?!amp;|lt;|gt;|#)", "&amp;", picture)) for picture in found]


def test_what_the_judges_found_is_on_both_pages(judged: Path) -> None:
    html, markdown = pages(judged)
    for text in (
        "tuned against base: the better of two answers, or a tie",
        "By gpt-stand-in&#39;s verdicts on 24 prompts",
        "Kappa between the orders",
        "First shown wins in both",
        "The longer answer wins",
        "44 of 48 judged, 2 unparsed, 2 without a reply",
        "503 busy",
        "Prompt hash",
        "judges.example",
        "mean grade",
        "the last number is 137: it is 147",
        "rows.jsonl:12",
        "1 word for word",
        "orders disagree",
    ):
        assert text in html, text
        plain = markdown.replace("\\", "")
        if text != "orders disagree":
            assert text.replace("&#39;", "'") in plain, text


def test_every_plot_shows_its_numbers(judged: Path) -> None:
    html, _ = pages(judged)
    metrics, judges = svgs(html, "forest")
    assert len(judges.findall("circle")) == 2
    assert len(metrics.findall("circle")) == 6
    pairwise, grades = svgs(html, "outcomes")
    titles = [title.text for title in pairwise.iter("title")]
    assert "tuned shown first: 16 of 24 won" in titles
    assert "tuned vs base, both orders: 1 of 24 tied" in titles
    assert [title.text for title in grades.iter("title")] == ["tuned vs base: 24 of 24 won"]
    lengths, _ = svgs(html, "lengths")
    assert len(lengths.findall("circle")) == 22
    [cells] = svgs(html, "categories")
    assert len(cells.findall("rect")) == 2 * 5
    hints = [title.text or "" for title in cells.iter("title")]
    assert any(hint.startswith("writing: tuned: wins by gpt-stand-in") for hint in hints)


def test_drill_down_has_prompt_answers_verdicts_of_both_orders_and_rules(judged: Path) -> None:
    items = suite_view(read_evaluation(judged)).items
    first = items[0]
    assert (first.outcome, first.share) == ("orders disagree", "0.5000")
    titles = [verdict.title.removeprefix("gpt-stand-in saw ") for verdict in first.verdicts]
    assert titles == ["base, then tuned", "tuned, then base", "tuned", "base"]
    assert all("The first is fine." in verdict.replies[0] for verdict in first.verdicts[:2])
    assert first.verdicts[0].scores == "base 1, tuned 0"
    assert [items[n].outcome for n in (1, 2, 3, 4)] == ["not judged", "not judged", "lost", "won"]
    assert items[1].verdicts[0].replies == ("Well...", "Well...")
    assert items[3].failed
    assert items[3].answers[1].checks[1] == ("contains 'years'", True)
    assert items[4].leak == "prompt word for word: rows.jsonl:12"


def test_hostile_text_stays_text_and_the_page_reaches_nothing(judged: Path) -> None:
    html, markdown = pages(judged)
    assert html.count("<script>") == 1
    assert "<img" not in html
    assert "\x1b" not in html + markdown
    assert "\u202e" not in html + markdown
    assert "default-src &#39;none&#39;" in html
    assert "unsafe" not in html
    assert not re.search(r'(?:src|href)="(?!#)', html)
    assert not re.search(r" on\w+=", re.sub(r">[^<]*<", "><", html))
    assert "<script" not in re.sub(r"\\.", "", markdown)


def test_words_are_kept_out_when_their_journal_is_gone_or_torn(copy: Path) -> None:
    journal = copy / "judgments.jsonl"
    lines = journal.read_text("utf-8").split("\n")
    journal.write_text("\n".join([*lines[:2], '{"key": "torn', "[]"]), "utf-8")
    items = suite_view(read_evaluation(copy)).items
    assert sum(bool(verdict.replies) for item in items for verdict in item.verdicts) == 2
    journal.unlink()
    html, _ = pages(copy)
    assert "What it said is not in judgments.jsonl." in html


def test_a_folder_that_only_a_judge_knows(only_judged: Path) -> None:
    html, markdown = pages(only_judged)
    assert "tuned against other" in html
    assert html.count('class="item"') == 8
    assert "Question 7?" in markdown
    assert suite_view(read_evaluation(only_judged)).badge == ("can't tell", "unclear")


def test_a_ranking_of_three(compared: Path) -> None:
    html, markdown = pages(compared)
    view = suite_view(read_evaluation(compared))
    assert view.ranking is not None
    assert view.ranking.sentence == "a is better than each of the others."
    assert view.ranking.players[0][1] == "a"
    assert view.badge == ("a leads", "good")
    [plot] = svgs(html, "ranking")
    assert len(plot.findall("circle")) == 3
    [bars] = svgs(html, "outcomes")
    assert "a vs b: 24 of 24 won" in [title.text for title in bars.iter("title")]
    verdicts = {row.cells[0]: row.verdict for row in view.ranking.pairs}
    assert (verdicts["a vs b"], verdicts["a vs c"]) == ("better", "better")
    assert {v for k, v in verdicts.items() if "a" not in k.split(" vs ")} == {"can't tell"}
    assert "## Results on suite made" in markdown
    assert "| a vs b |" in markdown
    assert len(view.items[0].verdicts) == 6
    assert view.items[0].verdicts[0].replies


def test_an_evaluation_of_a_run_is_a_part_of_its_report(full_run: RunDir, judged: Path) -> None:
    folder = full_run.evaluations / "judged"
    shutil.copytree(judged, folder)
    assert report_on(folder) == [full_run.report_html, full_run.report_md]
    html = full_run.report_html.read_text("utf-8")
    assert not (folder / "report.html").exists() or (judged / "report.html").exists()
    assert "tuned against base: the better of two answers, or a tie" in html
    assert html.count('class="item"') == 24 + 12
    assert run_of(judged) is None


def test_the_command_writes_the_pages_of_a_folder(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lora_kit(["report", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["html"] == str(copy / "report.html")


@pytest.mark.parametrize("sections", [[1], [{"kind": "pairwise"}], 5])
def test_what_is_no_section_is_an_error_with_its_file(copy: Path, sections: object) -> None:
    rewrite(copy, judgments=sections)
    with pytest.raises(DataError, match=r"results\.json: not what an evaluation writes"):
        write_evaluation(copy)


def test_no_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is missing"):
        write_evaluation(tmp_path)


def test_pages_are_the_same_each_time(judged: Path) -> None:
    assert pages(judged) == pages(judged)
