"""A whole ranking from arrays, and from QLoRA's published verdicts."""

import dataclasses
import json
from itertools import combinations

import numpy as np
import pytest

from lora_kit.catalogue import JUDGES
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.comparing.cautions import cautions
from lora_kit.harness.comparing.ranking import Ranking
from lora_kit.harness.comparing.tables import tables_of
from lora_kit.harness.judging.asking import Judgment
from lora_kit.harness.judging.kind import Prompt, Ruling, Showing
from lora_kit.harness.judging.sides import Side
from lora_kit.harness.published.case import Case

SCORES = {"a": (1.0, 0.0), "b": (0.0, 1.0), "tie": (0.5, 0.5)}


def read_answers(folder, name):
    rows = map(json.loads, (folder / "answers" / f"{name}.jsonl").read_text("utf-8").splitlines())
    return {row["id"]: row["answer"] for row in rows}


@pytest.fixture
def published(shared_data):
    """The four-player part of QLoRA's tournament: what the manifest expects, and our ranking."""
    manifest = shared_data / "evaluation" / "manifest.json"
    cases = {case["id"]: case for case in json.loads(manifest.read_text("utf-8"))["cases"]}
    case = Case(cases["qlora-pairwise-vicuna-sub4"], manifest.parent, cases, thorough=False)
    rows = case.rows()
    names = sorted({row["a"] for row in rows})
    folder = manifest.parent / "vicuna80"
    texts = {name: read_answers(folder, name) for name in names}
    questions = map(json.loads, (folder / "questions.jsonl").read_text("utf-8").splitlines())
    prompts = {q["id"]: Prompt(q["id"], q["category"], q["id"], q["prompt"]) for q in questions}
    judgments = []
    for row in rows:
        shown = tuple(texts[row[place]][row["item_id"]] for place in "ab")
        showing = Showing(prompts[row["item_id"]], (row["a"], row["b"]), shown)
        ruling = Ruling(SCORES[row["verdict"]], "last line") if row["verdict"] else None
        judgments.append(Judgment(showing, ruling, (ChatReply("", "gpt-4"),)))
    sides = [Side(name, texts[name], {}, "") for name in names]
    pairs = list(combinations(range(len(names)), 2))
    kind = JUDGES["pairwise"]
    return case.expected, Ranking(kind, judgments, sides, list(prompts.values()), pairs).to_json()


def test_published_verdicts_give_the_published_ranking(published):
    expected, found = published
    players = {one["name"]: one for one in found["players"]}
    assert list(players) == ["vicuna-13b", "gpt35", "13b-guanaco", "bard"]
    for name, value in expected["bradley_terry"].items():
        assert players[name]["bradley_terry"]["rating"] == pytest.approx(value["rating"], abs=0.3)
    for name, value in expected["elo_full_permutation"]["ratings"].items():
        assert players[name]["elo"]["mean"] == pytest.approx(value["mean"], abs=3.0)
        assert players[name]["elo"]["sd"] == pytest.approx(value["sd"], abs=3.0)
    for pair in found["pairs"]:
        record = dict(expected["win_tie_loss"][f"{pair['a']} vs {pair['b']}"])
        assert (pair["record"], pair["unjudged"]) == (
            {k: record[k] for k in pair["record"]},
            record["unparsed"],
        )
    bias, position = found["bias"], expected["position"]
    assert bias["consistent"] == pytest.approx(position["consistency"])
    assert bias["first_in_both"] == pytest.approx(position["first_bias_rate"])
    assert bias["kappa_between_orders"] == pytest.approx(position["kappa_between_orders"])
    assert bias["longer_wins"] == pytest.approx(expected["length_bias"]["rate"])
    assert bias["taste_for_length"]["low"] > 0.0  # GPT-4 likes length


def test_of_four_models_that_are_close_only_two_can_be_told_apart(published):
    _, found = published
    told = [(one["a"], one["b"]) for one in found["pairs"] if one["verdict"] != "can't tell"]
    assert told == [("vicuna-13b", "bard")]
    assert all(one["more_items_needed"] > 0 for one in found["pairs"] if one["verdict"] == "can't tell")
    assert [(one["best_rank"], one["worst_rank"]) for one in found["players"]] == [
        (1, 3),
        (1, 4),
        (1, 4),
        (2, 4),
    ]
    assert 13.0 < found["smallest_visible"] < 17.0


def test_the_same_judgments_give_the_same_numbers_whatever_their_order(simulation):
    lead = {(0, 1): 0.2, (0, 2): 0.3, (1, 2): 0.1}
    bouts = simulation(ties=0.2, first=0.1).bouts(np.random.default_rng(0), 20, lead)
    found = tables_of(bouts, list(lead))
    assert found == tables_of(bouts, list(lead))
    assert found.order == (0, 1, 2)
    assert found.ranks(0) == (1, 1)
    back = tables_of(bouts, [pair[::-1] for pair in lead])
    assert list(back.pairs) == list(found.pairs)
    both = [found.length.pairs[pair].value for pair in lead]
    mean = found.length.players[0].value
    assert mean == pytest.approx((both[0] + both[1]) / 2)


def test_a_clear_verdict_counts_as_often_as_its_kind_says(simulation):
    bouts = simulation(ties=0.0, first=0.0).bouts(np.random.default_rng(0), 10, {(0, 1): 0.0})
    triple = dataclasses.replace(bouts, weight=np.where(bouts.share == 1.0, 3.0, 1.0))
    assert len(triple.matches().points) == len(bouts.share) + 2 * int((bouts.share == 1.0).sum())
    wins = np.where(bouts.first == 0, bouts.share, 1.0 - bouts.share)
    weighted = 100.0 * np.average(wins, weights=triple.weight)
    assert tables_of(triple, [(0, 1)]).rates[0].value == pytest.approx(weighted)


def test_what_has_to_be_known_is_said(simulation):
    judge, generator = simulation(ties=0.0, first=0.0), np.random.default_rng(0)
    bouts = judge.bouts(generator, 5, {(0, 1): 0.5, (2, 3): 0.0})
    longer = np.where((bouts.first == 2)[:, None], [300.0, 100.0], [100.0, 300.0])
    lengths = np.where(((bouts.first > 1) & (bouts.second > 1))[:, None], longer, bouts.lengths)
    bouts = dataclasses.replace(bouts, lengths=lengths)
    prompts = [Prompt(f"q{n}", "", f"q{n}", "?") for n in range(5)]
    said = {"a": "{}", "b": "", "c": "always", "d": "{}"}
    sides = [Side(n, {p.id: t.format(p.id) for p in prompts}, {}, "") for n, t in said.items()]
    tables = tables_of(bouts, [(0, 1), (0, 2), (2, 3)])
    found = "\n".join(cautions(tables, bouts, sides, prompts))
    for words in (
        "5 independent prompts are too few for any verdict; 6 are the least",
        "nothing judged connects these groups, so their ratings don't compare: a, b; c, d",
        "a won every judgment",
        "b lost every judgment",
        "of c and d nearly always the same is longer",
        "b gave 5 empty answers of 5",
        "c gave the same answer to all 5 prompts",
        "a and d gave the same answers to all prompts",
    ):
        assert words in found
