"""Runs every case of a manifest; a case that can't be run here is named, never counted as passed."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_kit.errors import DataError
from lora_kit.harness.published.alpaca_eval import check_alpaca_eval
from lora_kit.harness.published.case import Case, Check, MissingInputError
from lora_kit.harness.published.relative import check_both_orders, check_one_order
from lora_kit.harness.published.replay import check_replay
from lora_kit.harness.published.replies import check_logprobs, check_mt_bench, check_parsing
from lora_kit.harness.published.text import check_text_scores
from lora_kit.harness.published.tournament import check_tournament

KINDS: Mapping[str, Callable[[Case], list[Check]]] = {
    "relative_score": check_both_orders,
    "relative_score_one_order": check_one_order,
    "pairwise_tournament": check_tournament,
    "mtbench_single": check_mt_bench,
    "judge_parse": check_parsing,
    "alpaca_eval": check_alpaca_eval,
    "logprob_preference": check_logprobs,
    "text_metrics": check_text_scores,
    "end_to_end_replay": check_replay,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case.

    Args:
        id: Its id.
        checks: What was compared; empty if it was not run.
        skipped: Why it was not run; empty if it was.
    """

    id: str
    checks: tuple[Check, ...]
    skipped: str = ""

    @property
    def missed(self) -> tuple[Check, ...]:
        """The checks that don't hold."""
        return tuple(check for check in self.checks if not check.holds)


def run_manifest(path: Path, *, thorough: bool = True) -> Iterator[Outcome]:
    """Recompute each case in turn.

    Args:
        path: The manifest.
        thorough: False computes slow scores of a sample only, and replays one system only.

    Raises:
        DataError: The file is no manifest.
    """
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a manifest of published evaluations: {error!r}", where=str(path)) from error
    others = {fields["id"]: fields for fields in cases}
    for fields in cases:
        yield _run(Case(fields, path.parent, others, thorough))


def _run(case: Case) -> Outcome:
    kind = case.fields["kind"]
    if kind not in KINDS:
        return Outcome(case.fields["id"], (), f"no way to run cases of kind '{kind}'")
    try:
        return Outcome(case.fields["id"], tuple(KINDS[kind](case)))
    except MissingInputError as error:
        return Outcome(case.fields["id"], (), str(error))
