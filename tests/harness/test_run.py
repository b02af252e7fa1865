"""The whole evaluation with engines that look their answers up."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from lora_kit.data.types import Message
from lora_kit.errors import DataError, IncompleteError
from lora_kit.harness.engine import Generation, Likelihood
from lora_kit.harness.run import evaluate
from lora_kit.harness.suite import Item, Suite
from lora_kit.harness.suite_checks import read_checks
from lora_kit.recipe.schema import EvaluateSpec

SPEC = EvaluateSpec(bootstrap_samples=500, max_new_tokens=16)
WORDS = ["rank", "alpha", "merge", "adapter", "token", "base", "model", "weight", "loss", "step"]


def make_suite(count: int = 12, *, reference: str = "the {} of a run", metrics=("rouge_l", "chrf")) -> Suite:
    items = tuple(
        Item(
            f"q{n}",
            "qa",
            (Message("user", f"question {n}"),),
            reference.format(WORDS[n % 10]) + f" {n}",
            f"q{n}",
            f"p:{n}",
        )
        for n in range(count)
    )
    return Suite("made", "made up", items, metrics)


@dataclass
class Lookup:
    """An engine whose answers are a function of the prompt; counts what it is asked."""

    name: str
    answer: str = "{}"
    nats: float = 20.0
    measures_likelihood: bool = True
    fingerprint: str = ""
    broken: set[str] = field(default_factory=set)
    dies_after: int = 10**9
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fingerprint = self.fingerprint or f"{self.answer} {self.nats}"

    def generate(self, prompts, **_) -> Iterator[tuple[int, Generation]]:
        for index in reversed(range(len(prompts))):
            if len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            question = prompts[index][-1].content
            self.asked.append(question)
            yield (
                index,
                Generation(self.answer.format(question), 3, stopped=int(question.split()[1]) % 2 == 0),
            )

    def likelihood(self, conversations) -> Iterator[tuple[int, Likelihood]]:
        for index, conversation in enumerate(conversations):
            question, reference = (conversation.messages[at].content for at in (-2, -1))
            self.asked.append(reference)
            number = int(question.split()[1])
            nats = math.nan if question in self.broken else self.nats + number
            yield index, Likelihood(nats, 5 + number, len(reference.encode()))


def by_metric(results, model: str) -> dict:
    return {c["metric"]: c for c in results.to_json()["comparisons"] if c["model"] == model}


def test_results_hold_what_a_report_needs():
    results = evaluate([Lookup("base"), Lookup("tuned", "the {} of a run", 15.0)], make_suite(), SPEC)
    found = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert found["suite"] == {
        "name": "made",
        "description": "made up",
        "fingerprint": make_suite().fingerprint,
        "items": 12,
        "clusters": 12,
    }
    names = ["bits_per_byte", "nats_per_token", "rouge_l", "chrf", "length_ratio", "stop_rate", "empty_rate"]
    assert list(found["models"][0]["metrics"]) == list(found["metrics"]) == names
    assert set(found["models"][0]["metrics"]["chrf"]) == {"value", "low", "high", "n"}
    assert [m["name"] for m in found["models"]] == ["base", "tuned"]
    assert found["metrics"]["chrf"]["signature"].startswith("chrF2|")
    assert " ".join(found["comparisons"][0]) == (
        "model baseline metric difference low high p verdict smallest_visible more_items_needed"
    )
    answer = found["items"][3]["answers"]["tuned"]
    assert answer["text"] == "the question 3 of a run"
    assert (answer["nats"], answer["reference_tokens"]) == (18.0, 8)
    assert set(answer["scores"]) == {"rouge_l", "chrf"}
    assert found["settings"]["max_new_tokens"] == 16
    assert {"torch", "lora-kit", "sacrebleu"} <= set(found["versions"])


def test_likelihoods_are_ratios_of_sums():
    suite = make_suite()
    results = evaluate([Lookup("base")], suite, SPEC)
    metrics = results.models[0].metrics
    nats = sum(20 + n for n in range(12))
    assert metrics["nats_per_token"].value == pytest.approx(nats / sum(5 + n for n in range(12)))
    utf8_bytes = sum(len(item.reference.encode()) for item in suite.items)
    assert metrics["bits_per_byte"].value == pytest.approx(nats / math.log(2) / utf8_bytes)
    assert metrics["stop_rate"].value == 0.5
    assert results.comparisons == ()


def test_verdicts_follow_each_metrics_better_side():
    outcome = by_metric(
        evaluate([Lookup("base"), Lookup("tuned", "the {} of a run", 15.0)], make_suite(), SPEC), "tuned"
    )
    assert outcome["bits_per_byte"]["verdict"] == "better"
    assert outcome["bits_per_byte"]["difference"] < 0 > outcome["bits_per_byte"]["high"]
    assert outcome["rouge_l"]["verdict"] == "better"
    assert outcome["length_ratio"]["verdict"] == "higher"
    assert outcome["stop_rate"]["verdict"] == "can't tell"


def test_a_model_against_itself_says_so():
    results = evaluate([Lookup("base"), Lookup("copy")], make_suite(), SPEC)
    for outcome in by_metric(results, "copy").values():
        assert (outcome["difference"], outcome["low"], outcome["high"]) == (0.0, 0.0, 0.0)
        assert outcome["verdict"] == "can't tell"
    assert "copy equals base in every answer and likelihood: its effect is nil" in results.notes


def test_a_model_that_only_answers_has_no_likelihood():
    results = evaluate([Lookup("base"), Lookup("remote", measures_likelihood=False)], make_suite(), SPEC)
    assert "bits_per_byte" not in results.models[1].metrics
    assert "bits_per_byte" not in by_metric(results, "remote")
    assert results.items[0].answers["remote"].nats is None


def test_progress_counts_answers_and_likelihoods():
    calls: list[tuple[int, int]] = []
    evaluate(
        [Lookup("base"), Lookup("b2", "no", measures_likelihood=False)],
        make_suite(),
        SPEC,
        on_progress=lambda *c: calls.append(c),
    )
    assert calls == [(n, 36) for n in range(1, 37)]


def test_a_cut_evaluation_asks_nothing_twice_and_ends_the_same(tmp_path):
    suite = make_suite()
    whole = evaluate([Lookup("base"), Lookup("tuned", "{}!", 15.0)], suite, SPEC).to_json()
    cut = Lookup("tuned", "{}!", 15.0, dies_after=5)
    with pytest.raises(KeyboardInterrupt):
        evaluate([Lookup("base"), cut], suite, SPEC, folder=tmp_path)
    engines = [Lookup("base"), Lookup("tuned", "{}!", 15.0)]
    resumed = evaluate(engines, suite, SPEC, folder=tmp_path).to_json()
    assert engines[0].asked == []
    assert len(engines[1].asked) == 24 - 5
    assert resumed | {"seconds": 0} == whole | {"seconds": 0}
    again = [Lookup("base"), Lookup("tuned", "{}!", 15.0)]
    calls: list[tuple[int, int]] = []
    evaluate(again, suite, SPEC, folder=tmp_path, on_progress=lambda *c: calls.append(c))
    assert [engine.asked for engine in again] == [[], []]
    assert calls[-1] == (48, 48)


def test_another_model_prompt_reference_or_limit_is_asked_anew(tmp_path):
    suite = make_suite()
    evaluate([Lookup("base")], suite, SPEC, folder=tmp_path)
    edited = replace(suite, items=(replace(suite.items[0], reference="another"), *suite.items[1:]))
    for engine, asked, spec, expected in (
        (Lookup("base"), edited, SPEC, 2),
        (Lookup("base", fingerprint="other weights"), suite, SPEC, 24),
        (Lookup("base"), suite, SPEC.model_copy(update={"max_new_tokens": 17}), 12),
        (Lookup("renamed"), suite, SPEC.model_copy(update={"batch_size": 3, "seed": 9}), 0),
    ):
        evaluate([engine], asked, spec, folder=tmp_path)
        assert len(engine.asked) == expected


def test_a_likelihood_that_is_not_finite_is_no_score(tmp_path):
    engine = Lookup("base", broken={"question 3", "question 7"})
    with pytest.raises(IncompleteError) as caught:
        evaluate([engine], make_suite(), SPEC, folder=tmp_path)
    assert caught.value.exit_code == 7
    assert [problem.key for problem in caught.value.problems] == ["q3", "q7"]
    mended = Lookup("base")
    evaluate([mended], make_suite(), SPEC, folder=tmp_path)
    assert len(mended.asked) == 2


def test_empty_and_constant_answers_are_said(tmp_path):
    results = evaluate([Lookup("mute", ""), Lookup("parrot", "yes")], make_suite(), SPEC)
    assert "mute gave 12 empty answers of 12" in results.notes
    assert "parrot gave the same answer to all 12 prompts" in results.notes
    assert results.models[0].metrics["empty_rate"].value == 1.0
    assert results.models[0].metrics["chrf"].value == 0.0


def test_a_script_that_a_metric_deletes_is_said():
    results = evaluate([Lookup("base")], make_suite(reference="低秩适配很有用"), SPEC)
    assert (
        "ROUGE-L deletes the script of 12 of 12 references: its scores there say nothing; read chrF instead"
        in results.notes
    )


def test_too_few_prompts_decide_nothing():
    results = evaluate([Lookup("base"), Lookup("tuned", "the {} of a run", 5.0)], make_suite(5), SPEC)
    assert {outcome["verdict"] for outcome in by_metric(results, "tuned").values()} == {"can't tell"}
    assert "5 independent prompts are too few for any verdict; 6 are the least" in results.notes


def test_nothing_to_do_is_refused():
    with pytest.raises(DataError, match="has no prompts"):
        evaluate([Lookup("base")], make_suite(0), SPEC)
    with pytest.raises(DataError, match="names that differ, got base, base"):
        evaluate([Lookup("base"), Lookup("base")], make_suite(), SPEC)
    with pytest.raises(DataError, match="got none"):
        evaluate([], make_suite(), SPEC)


def with_first(suite: Suite, **changes) -> Suite:
    return replace(suite, items=(replace(suite.items[0], **changes), *suite.items[1:]))


def test_rules_are_a_metric_over_the_items_that_have_them():
    rules = [{"type": "number", "value": 0}, {"type": "contains", "value": "zebra"}]
    suite = with_first(make_suite(), checks=read_checks(rules, where="p:1"))
    results = evaluate([Lookup("base"), Lookup("tuned", "zebra 0 {}")], suite, SPEC)
    found = json.loads(json.dumps(results.to_json(), allow_nan=False))
    share = found["models"][0]["metrics"]["checks"]
    assert (share["value"], share["n"]) == (0.5, 1)
    assert found["models"][1]["metrics"]["checks"]["value"] == 1.0
    assert found["models"][0]["metrics"]["chrf"]["n"] == 12
    assert found["items"][0]["answers"]["base"]["checks"] == [
        {"type": "number", "wanted": "the last number is 0", "passed": True, "reason": ""},
        {"type": "contains", "wanted": "contains 'zebra'", "passed": False, "reason": "it does not"},
    ]
    assert found["items"][1]["answers"]["base"]["checks"] == []
    assert "checks" not in evaluate([Lookup("base")], make_suite(), SPEC).models[0].metrics


def test_an_item_of_weight_3_counts_as_three():
    light = evaluate([Lookup("base")], make_suite(), SPEC).models[0].metrics["stop_rate"].value
    heavy = evaluate([Lookup("base")], with_first(make_suite(), weight=3.0), SPEC)
    assert light == pytest.approx(6 / 12)
    assert heavy.models[0].metrics["stop_rate"].value == pytest.approx(8 / 14)
    assert heavy.items[0].weight == 3.0


def test_the_best_of_several_references_counts_for_texts():
    suite = with_first(make_suite(), more_references=("question 0",))
    results = evaluate([Lookup("base")], suite, SPEC)
    assert results.items[0].answers["base"].scores["chrf"] == pytest.approx(100.0)
    assert results.items[1].answers["base"].scores["chrf"] < 90.0


def test_chrf_comes_by_itself_where_rouge_is_blind():
    results = evaluate([Lookup("base")], make_suite(reference="低秩适配很有用", metrics=("rouge_l",)), SPEC)
    assert {"rouge_l", "chrf"} <= set(results.models[0].metrics)
    assert "chrf" not in evaluate([Lookup("base")], make_suite(metrics=("rouge_l",)), SPEC).metrics


def test_what_was_seen_in_training_is_left_out_and_said():
    overlap = {
        "status": "known",
        "reason": "",
        "counts": {"exact": 1, "probable": 0, "possible": 0, "none": 11},
        "items": [{"id": "q0", "level": "exact", "found": []}],
    }
    results = evaluate([Lookup("base"), Lookup("tuned", "{}!")], make_suite(), SPEC, overlap=overlap)
    found = json.loads(json.dumps(results.to_json(), allow_nan=False))
    (subset,) = found["leakage"]["subsets"]
    assert (subset["items"], subset["models"][1]["name"]) == (11, "tuned")
    assert subset["models"][0]["metrics"]["stop_rate"]["value"] == pytest.approx(5 / 11)
    assert {one["metric"] for one in subset["comparisons"]} == set(found["metrics"])
    assert "seen in training: 1 exact of 12 items; read the scores without them" in found["notes"]
    assert "leakage" not in evaluate([Lookup("base")], make_suite(), SPEC).to_json()
