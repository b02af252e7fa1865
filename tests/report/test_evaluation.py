"""Verdicts in words: better, worse, can't tell with the prompts that would decide, one model alone."""

import json
import re
from typing import Any

from lora_kit.harness.run import evaluate
from lora_kit.recipe.schema import EvaluateSpec
from lora_kit.report.evaluation import suite_view


def test_better(better_results: dict[str, Any]) -> None:
    [contest] = suite_view(better_results).contests
    assert (contest.verdict, contest.css, contest.level) == ("better", "good", "95 %")
    row = contest.rows[0]
    assert row.direction == "lower is better"
    assert row.difference.startswith("\N{MINUS SIGN}")
    assert f"{row.model} instead of {row.baseline}, difference {row.difference}" in contest.sentence
    assert float(row.model) < float(row.baseline)


def test_worse(make: Any) -> None:
    [contest] = suite_view(make.results_json(lambda n: 45.0 + n % 4)).contests
    assert contest.css == "bad"
    assert "the tuned model is worse than its base" in contest.sentence
    assert contest.rows[0].difference.startswith("+")


def test_cannot_tell_says_how_many_more_prompts_would_decide(make: Any) -> None:
    results = make.results_json(lambda n: 30.0 + n % 3 + (6.0 if n % 2 else -5.0))
    [entry] = [e for e in results["comparisons"] if e["metric"] == "bits_per_byte"]
    assert entry["verdict"] == "can't tell"
    [contest] = suite_view(results).contests
    assert "one can't tell whether the tuned model is better or worse than its base" in contest.sentence
    assert f"about {entry['more_items_needed']:,} more prompts" in contest.sentence
    assert contest.css == "unclear"


def test_no_difference_at_all(make: Any) -> None:
    view = suite_view(make.results_json(lambda n: 30.0 + n % 3, answer="base says"))
    assert "more prompts would not decide it" in view.contests[0].sentence
    assert any("effect is nil" in note for note in view.notes)
    assert {item.trend for item in view.items} == {""}


def test_one_model_alone_has_values_and_no_verdict(make: Any) -> None:
    [contest] = suite_view(make.results_json(None)).contests
    assert contest.baseline == ""
    assert contest.forest == ""
    assert "only base was evaluated" in contest.sentence
    assert "95 % interval" in contest.rows[0].model


def test_each_of_several_models_has_its_own_contest(make: Any) -> None:
    engines = [make.StandIn(name, name, lambda n, at=at: 30.0 - at + n % 5) for at, name in enumerate("abc")]
    results = evaluate(engines, make.make_suite(), EvaluateSpec(bootstrap_samples=100)).to_json()
    view = suite_view(results)
    assert [(contest.model, contest.baseline) for contest in view.contests] == [("b", "a"), ("c", "a")]
    assert "b is better than a" in view.contests[0].sentence
    assert [answer.model for answer in view.items[0].answers] == ["a", "b", "c"]


def test_forest_points_to_the_right_for_better(better_results: dict[str, Any]) -> None:
    [contest] = suite_view(better_results).contests
    first_dot = re.search(r'<circle cx="([\d.]+)"', contest.forest)
    assert first_dot is not None
    assert float(first_dot[1]) > 400  # the zero line
    assert "length in characters" not in contest.forest  # has no better side


def test_items_carry_the_change_of_their_reference(better_results: dict[str, Any]) -> None:
    item = suite_view(better_results).items[0]
    assert item.trend == "better"
    assert item.change.startswith("\N{MINUS SIGN}")
    assert "ended by itself" in item.answers[0].figures


def test_items_without_a_likelihood(better_results: dict[str, Any]) -> None:
    results = json.loads(json.dumps(better_results))
    for item in results["items"]:
        for answer in item["answers"].values():
            answer["nats"] = None
    assert {item.trend for item in suite_view(results).items} == {""}
