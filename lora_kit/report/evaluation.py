"""One evaluation as a reader needs it: models by metrics, judges, a ranking, and every answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lora_kit.report.answers import ItemView, item_views, judged
from lora_kit.report.ballots import Ballot, read_poll
from lora_kit.report.categories import CategoryView, category_view
from lora_kit.report.contests import Contest, contests_of
from lora_kit.report.evaluation_files import EvaluationFiles
from lora_kit.report.judging import JudgeView, forest_row, judge_view
from lora_kit.report.leakage import LeakageView, leakage_view, lm_eval_rows
from lora_kit.report.plots import forest_plot
from lora_kit.report.ranking import RankingView, ranking_view
from lora_kit.report.wording import mapping, plain


@dataclass(frozen=True, slots=True)
class SuiteView:
    """A whole suite.

    Args:
        name: Of the suite.
        description: Of the suite.
        contests: Each model against the baseline, by metrics.
        judges: Each judge's section.
        judge_forest: Their differences in one picture; empty without judges.
        ranking: Many systems in one order.
        categories: The map of categories.
        leakage: What of the suite stands in training rows.
        lm_eval: Results of lm-eval.
        notes: What a reader has to know before believing a number.
        items: Every prompt.
        systems: Names of all who answered, to choose from.
        signatures: Libraries and settings behind metrics.
        settings: Of the evaluation.
    """

    name: str
    description: str
    contests: tuple[Contest, ...]
    judges: tuple[JudgeView, ...]
    judge_forest: Markup
    ranking: RankingView | None
    categories: CategoryView | None
    leakage: LeakageView | None
    lm_eval: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    items: tuple[ItemView, ...]
    systems: tuple[str, ...]
    signatures: tuple[str, ...]
    settings: str

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdicts in words, metrics first."""
        metrics = [contest.sentence for contest in self.contests]
        judges = [judge.sentence for judge in self.judges]
        return (*metrics, *judges, *([self.ranking.sentence] if self.ranking else []))

    @property
    def badge(self) -> tuple[str, str]:
        """The first verdict in a word, and its class."""
        if self.contests and self.contests[0].baseline:
            return self.contests[0].verdict, self.contests[0].css
        if self.judges:
            return self.judges[0].badge
        if self.ranking:
            return self.ranking.badge
        return ("not compared", "unclear")

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Which outcomes there are to choose from."""
        return tuple(dict.fromkeys(item.outcome for item in self.items if item.outcome))


def suite_view(files: EvaluationFiles | Mapping[str, Any]) -> SuiteView:
    """Read results.json, and what judges said.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It is not what the harness writes.
    """
    if not isinstance(files, EvaluationFiles):
        files = EvaluationFiles(files, {})
    results, suite = files.results, mapping(files.results.get("suite"))
    items = list(results.get("items", ()))
    by_id = {str(item["id"]): item for item in items}
    judges = tuple(judge_view(section, files.replies, by_id) for section in results.get("judgments", ()))
    rows = [forest_row(view, s) for view, s in zip(judges, results.get("judgments", ()), strict=True)]
    known = [row for row in rows if row]
    ranking = results.get("ranking")
    said = judged(judges, _ranking_ballots(mapping(ranking), files.replies))
    systems, leakage = _systems(results, items), leakage_view(results)
    return SuiteView(
        name=plain(suite.get("name") or "without a name"),
        description=plain(suite.get("description") or ""),
        contests=contests_of(results),
        judges=judges,
        judge_forest=forest_plot(known) if known else Markup(""),
        ranking=ranking_view(ranking) if ranking else None,
        categories=category_view(results, judges),
        leakage=leakage,
        lm_eval=lm_eval_rows(results),
        notes=tuple(plain(note) for note in results.get("notes", ())),
        items=item_views(items, systems, said, leakage.items if leakage else {}),
        systems=tuple(plain(name) for name in systems),
        signatures=tuple(
            f"{plain(info['title'])}: {plain(info['signature'])}"
            for info in mapping(results.get("metrics")).values()
            if info.get("signature")
        ),
        settings=", ".join(
            f"{key} {plain(value)}" for key, value in mapping(results.get("settings")).items()
        ),
    )


def _systems(results: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> list[str]:
    models = [str(model["name"]) for model in results.get("models", ())]
    return list(dict.fromkeys([*models, *(str(name) for item in items for name in item["answers"])]))


def _ranking_ballots(ranking: Mapping[str, Any], replies: Mapping[str, str]) -> list[tuple[str, Ballot]]:
    """Every judgment behind a ranking, with the judge's name."""
    judge = plain(mapping(ranking.get("judge")).get("model"))
    found = read_poll({**ranking, "system": "", "against": ""}, replies).ballots
    return [(judge, ballot) for ballot in found]
