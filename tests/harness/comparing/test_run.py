"""A comparison from files of answers to one ranking, with a judge who is a function."""

import json
from pathlib import Path

import pytest

from lora_kit.errors import DataError, RecipeError
from lora_kit.harness.comparing.contestants import read_field
from lora_kit.harness.comparing.run import CompareJob, answer_all, compare, pairs_of
from lora_kit.harness.judging.budget import Budget
from lora_kit.harness.judging.run import JudgeJob
from lora_kit.recipe.schema import EvaluateSpec

SPEC = EvaluateSpec()
WORTH = ("poor", "fair", "good")


def fair_judge(first: str, second: str) -> str:
    places = [
        next(at for at, word in enumerate(("Gold", *WORTH)) if word in text) for text in (first, second)
    ]
    scores = [9 if place == 0 else place for place in places]
    return "3" if scores[0] == scores[1] else "1" if scores[0] > scores[1] else "2"


@pytest.fixture
def sources(answers):
    return [answers(word, f"A {word} answer to {{}}") for word in WORTH]


@pytest.fixture
def run(sources, small_suite, tmp_path):
    def start(judge, *more: str, job: CompareJob | None = None):
        field = read_field([*sources, *more], small_suite, max_new_tokens=8)
        contest = answer_all(field, SPEC, tmp_path / "out")
        return compare(contest, judge, job or CompareJob(), tmp_path / "out")

    return start


def test_one_ranking_from_one_journal(run, scripted, tmp_path):
    section = run(scripted(fair_judge), "reference")
    assert [one["name"] for one in section["players"]] == ["reference", "good", "fair", "poor"]
    assert [(one["rank"], one["best_rank"], one["worst_rank"]) for one in section["players"]] == [
        (place, place, place) for place in (1, 2, 3, 4)
    ]
    ratings = [one["bradley_terry"]["rating"] for one in section["players"]]
    elos = [one["elo"]["mean"] for one in section["players"]]
    assert ratings == sorted(ratings, reverse=True)
    assert elos == sorted(elos, reverse=True)
    assert sum(ratings) == pytest.approx(4000)
    assert [one["win_rate"]["value"] for one in section["players"]] == pytest.approx(
        [100, 200 / 3, 100 / 3, 0]
    )
    assert [one["record"] for one in section["players"]][1] == {"win": 32, "tie": 0, "loss": 16}
    assert (section["planned"], section["judged"], section["asked"], section["tests"]) == (96, 96, 96, 6)
    assert all(pair["verdict"] == "better" and pair["a"] != "poor" for pair in section["pairs"])
    lines = (tmp_path / "out" / "judgments.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == 96
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["ranking"] == section
    assert stored["items"][3]["answers"]["good"] == {"text": "A good answer to 3"}
    assert section["answers"].keys() == {"poor", "fair", "good", "reference"}
    assert any("reference won every judgment" in caution for caution in section["cautions"])


def test_cut_and_resumed_asks_nothing_twice(run, scripted):
    cut = scripted(fair_judge, dies_after=17)
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    rest = scripted(fair_judge)
    section = run(rest)
    assert len(cut.asked) + len(rest.asked) == len({*cut.asked, *rest.asked}) == 48
    again = scripted(fair_judge)
    assert run(again)["asked"] == 0
    assert again.asked == []
    assert section["judged"] == 48


def test_who_joins_later_costs_only_the_new_pairs(run, scripted):
    run(scripted(fair_judge))
    later = scripted(fair_judge)
    assert run(later, "reference")["judged"] == 96
    assert len(later.asked) == 48


def test_all_against_a_baseline(run, scripted):
    section = run(scripted(fair_judge), job=CompareJob(baseline="fair"))
    assert (section["planned"], section["tests"], section["baseline"]) == (32, 2, "fair")
    assert {(pair["a"], pair["b"]) for pair in section["pairs"]} == {("good", "fair"), ("fair", "poor")}


def test_a_judge_of_place_alone_finds_nothing(run, scripted):
    section = run(scripted(lambda *_: "1"))
    assert {pair["verdict"] for pair in section["pairs"]} == {"can't tell"}
    assert {one["win_rate"]["value"] for one in section["players"]} == {50.0}
    assert section["bias"]["first_in_both"] == section["bias"]["first_wins"] == 1.0
    assert section["bias"]["kappa_between_orders"] == 0.0


def test_what_is_not_judged_is_counted_and_listed(run, scripted):
    def script(first, second):
        return "Well..." if "poor" in first + second else fair_judge(first, second)

    section = run(scripted(script))
    assert (section["judged"], section["planned"], len(section["unparsed"])) == (16, 48, 32)
    last = section["players"][-1]
    assert (last["name"], last["rank"], last["win_rate"], last["unjudged"]) == ("poor", None, None, 32)
    assert "nothing was judged of poor" in section["cautions"]
    assert [(pair["a"], pair["b"]) for pair in section["pairs"]] == [("good", "fair")]


def test_nothing_judged_is_no_ranking(run, scripted):
    section = run(scripted(lambda *_: "Well..."))
    assert section["pairs"] == []
    assert [one["rank"] for one in section["players"]] == [None] * 3
    assert section["smallest_visible"] is None
    json.dumps(section, allow_nan=False)


@pytest.mark.parametrize(
    ("kind", "reply"), [("pair_score", "8 6"), ("five_level", "[[A>>B]]"), ("pairwise", "3")]
)
def test_every_kind_that_shows_two_answers(run, scripted, kind, reply):
    section = run(scripted(lambda *_: reply), job=CompareJob(JudgeJob(kind=kind)))
    assert section["judged"] == 48
    assert {one["win_rate"]["value"] for one in section["players"]} == {50.0}


def test_kinds_that_grade_alone_and_unknown_baselines_are_refused():
    with pytest.raises(RecipeError, match="'single' grades one answer at a time"):
        pairs_of(["a", "b"], CompareJob(JudgeJob(kind="single")))
    with pytest.raises(RecipeError, match="nobody is called 'bose'") as caught:
        pairs_of(["base", "tuned"], CompareJob(baseline="bose"))
    assert "did you mean 'base'" in str(caught.value)


def test_too_expensive_asks_nothing(run, scripted, tmp_path):
    judge = scripted(fair_judge)
    with pytest.raises(RecipeError, match="could cost more than --max-cost"):
        run(judge, job=CompareJob(JudgeJob(budget=Budget(1000.0, 1000.0, 0.01))))
    assert judge.asked == []
    assert not (tmp_path / "out" / "results.json").exists()


def test_surplus_answers_are_refused(run, scripted, answers):
    path = answers("more", "{}")
    with Path(path).open("a", encoding="utf-8") as file:
        file.write('{"id": "q99", "answer": "x"}\n')
    with pytest.raises(DataError, match="answer 'q99' of more has no prompt"):
        run(scripted(fair_judge), path)
