"""Prompts that stand in training rows, the scores without them, and what lm-eval found."""

from lora_kit.report.leakage import leakage_view, lm_eval_rows

SUBSET = {
    "title": "without exact and probable",
    "items": 46,
    "models": [{"name": "tuned", "metrics": {"chrf": {"value": 1.04, "low": 0.5, "high": 1.5, "n": 46}}}],
    "comparisons": [
        {
            "model": "tuned",
            "baseline": "base",
            "metric": "chrf",
            "difference": 1.0,
            "low": 0.1,
            "high": 2.0,
            "p": 0.03,
            "verdict": "better",
        }
    ],
}


def test_scores_without_what_was_seen():
    counts = {"exact": 1, "probable": 1, "possible": 0, "none": 46}
    leakage = {"status": "known", "counts": counts, "items": [], "subsets": [SUBSET]}
    view = leakage_view({"leakage": leakage, "metrics": {"chrf": {"title": "chrF"}}})
    assert view is not None
    assert view.sentence == "Of 48 prompts, training rows hold: 1 word for word, 1 probably."
    [row] = view.rows
    assert row.cells == (
        *("without exact and probable (46)", "tuned", "chrF", "1.0", "+1.0", "+0.1 to +2.0", "0.03"),
    )
    assert (row.verdict, row.css) == ("better", "good")


def test_nothing_seen_unknown_and_never_looked():
    clean = leakage_view({"leakage": {"status": "known", "counts": {"none": 5}}})
    assert clean is not None
    assert clean.clean
    assert clean.sentence == "No prompt or reference of the 5 stands in the training rows."
    unknown = leakage_view({"leakage": {"status": "unknown", "reason": "the rows are gone"}})
    assert unknown is not None
    assert unknown.sentence.endswith("is not known: the rows are gone.")
    assert leakage_view({}) is None


def test_lm_eval():
    task = {"task": "arc_easy", "model": "tuned", "metric": "acc", "value": 0.55, "stderr": 0.01, "n": 2376}
    assert lm_eval_rows({"lm_eval": {"tasks": [task]}}) == (
        ("arc_easy", "tuned", "acc", "0.55 ± 0.01", "2,376"),
    )
    assert lm_eval_rows({}) == ()
