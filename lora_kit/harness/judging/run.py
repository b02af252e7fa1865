"""Two systems' answers -> a judge -> judgments.jsonl and a section of results.json.

The journal is written as replies come, so that a run which is cut, refused or killed goes
on where it was. What was not judged is counted and listed, and makes the command fail.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_kit import __version__
from lora_kit.artifacts.commit import write_json
from lora_kit.artifacts.disk import disk_errors
from lora_kit.catalogue import JUDGES
from lora_kit.errors import DataError, IncompleteError
from lora_kit.harness.engine import Progress
from lora_kit.harness.journal import open_journal
from lora_kit.harness.judging.asking import Asking, AskSettings, Judgment
from lora_kit.harness.judging.backend import JudgeBackend
from lora_kit.harness.judging.budget import Budget, CostEstimate, Spending, estimate_cost, require_affordable
from lora_kit.harness.judging.flags import answered_by, family_flags, injection_flags, injections, model_flags
from lora_kit.harness.judging.kind import JudgeKind
from lora_kit.harness.judging.plan import Orders, plan_showings
from lora_kit.harness.judging.record import JOURNAL
from lora_kit.harness.judging.sides import RESULTS, Pairing
from lora_kit.harness.judging.summary import summarise
from lora_kit.harness.results import RESULTS_VERSION

SECTION = "judgments"


@dataclass(frozen=True, slots=True)
class JudgeJob:
    """What to judge, and how.

    Args:
        kind: Name in the catalogue's JUDGES.
        orders: ``both``, or ``one`` that a hash decides.
        settings: Of the requests.
        budget: Prices and limit.
    """

    kind: str = "pairwise"
    orders: Orders = "both"
    settings: AskSettings = field(default_factory=AskSettings)
    budget: Budget = field(default_factory=Budget)


def judge(
    pairing: Pairing,
    backend: JudgeBackend,
    job: JudgeJob,
    folder: Path,
    *,
    on_estimate: Callable[[CostEstimate], None] = lambda _: None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge, and write ``judgments.jsonl`` and the section of ``results.json``.

    Args:
        pairing: Prompts and both sides' answers.
        backend: Who judges.
        job: How.
        folder: Where both files are; what the journal holds already is not asked again.
        on_estimate: Told what it will take, before the first request.
        on_progress: Told (done, total).

    Returns:
        The section, also when some of it was not judged.

    Raises:
        RecipeError: An unknown kind, or more expensive than allowed; nothing was asked.
        DataError: The kind needs references and there are none.
        MachineError: A file can't be written.
    """
    kind: JudgeKind = JUDGES[job.kind]
    system, against = pairing.system, pairing.against
    showings = plan_showings(
        kind,
        pairing.prompts,
        (system.name, against.name),
        (system.answers, against.answers),
        orders=job.orders,
    )
    spending = Spending(job.budget)
    with open_journal(folder / JOURNAL) as journal:
        asking = Asking(kind, backend, journal, job.settings, on_reply=spending.note)
        estimate = estimate_cost(asking.missing(showings), job.budget)
        require_affordable(estimate, job.budget)
        on_estimate(estimate)
        judgments = asking.ask(showings, on_progress=on_progress, may_ask=spending.leaves_room)
    section = {
        **_about(pairing, backend, kind, job),
        **_account(judgments, backend.model),
        **summarise(kind, judgments, system.name, against.name),
        "asked": asking.asked,
        "spent": spending.to_json(),
        "estimate": estimate.to_json(),
    }
    add_section(folder / RESULTS, pairing, section)
    return section


def require_judged(section: dict[str, Any], least: float) -> None:
    """Fail if too little was judged.

    Args:
        section: What ``judge`` returned.
        least: Share of the planned judgments, 0..1.

    Raises:
        IncompleteError: Less has a ruling.
    """
    judged, planned = section["judged"], section["planned"]
    if planned and judged / planned < least:
        counts = f"{len(section['unparsed'])} unparsed, {len(section['errors'])} without a reply"
        reasons = Counter(entry["reason"] for entry in [*section["errors"], *section["unparsed"]])
        most = reasons.most_common(1)[0][0]
        raise IncompleteError(
            f"{judged} of {planned} judged ({counts}; most often: {most})",
            cure="run the same command again: only these are asked for; or lower --min-judged",
        )


def add_section(path: Path, pairing: Pairing, section: dict[str, Any]) -> None:
    """Put a section into results.json, in the place of an older one of the same judge, kind and systems.

    Raises:
        DataError: The file is there and is no results.json.
        MachineError: It can't be written.
    """
    results: dict[str, Any] = {"results_version": RESULTS_VERSION, "suite": {"name": pairing.suite}}
    if path.exists():
        try:
            with disk_errors(path):
                results = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise DataError("not a results.json", where=str(path), cure="pass another --out") from None
    others = [old for old in results.get(SECTION, []) if _identity(old) != _identity(section)]
    write_json(path, {**results, SECTION: [*others, section]})


def _identity(section: dict[str, Any]) -> tuple[Any, ...]:
    judge_of = section["judge"]
    return (section["kind"], judge_of["model"], judge_of["host"], section["system"], section["against"])


def _about(pairing: Pairing, backend: JudgeBackend, kind: JudgeKind, job: JudgeJob) -> dict[str, Any]:
    return {
        "kind": kind.name,
        "title": kind.title,
        "system": pairing.system.name,
        "against": pairing.against.name,
        "suite": pairing.suite,
        "prompts": len(pairing.prompts),
        "orders": job.orders if kind.shown == 2 else None,
        "judge": {"model": backend.model, "host": backend.host},
        "settings": {**asdict(job.settings), "extra": dict(job.settings.extra)},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "lora_kit": __version__,
    }


def _account(judgments: Sequence[Judgment], asked_model: str) -> dict[str, Any]:
    """How many were judged, and each one that was not, with its reason."""
    by_status: dict[str, list[Judgment]] = {"parsed": [], "unparsed": [], "error": []}
    for judgment in judgments:
        by_status[judgment.status].append(judgment)
    judged = by_status["parsed"]
    models, orders_to_judge = answered_by(judgments), injections(judgments)
    return {
        "planned": len(judgments),
        "judged": len(judged),
        "share_judged": len(judged) / len(judgments) if judgments else 1.0,
        "unparsed": [_entry(j, j.why, reply=j.replies[-1].text) for j in by_status["unparsed"]],
        "errors": [_entry(j, j.why) for j in by_status["error"]],
        "asked_again": [
            _entry(j, "unreadable at first", reply=j.replies[0].text) for j in judged if len(j.replies) > 1
        ],
        "layers": dict(Counter(j.ruling.layer for j in judged if j.ruling)),
        "answered_by": models,
        "injections": [asdict(one) for one in orders_to_judge],
        "flags": [
            *model_flags(asked_model, models),
            *family_flags(asked_model, sorted({name for j in judgments for name in j.showing.players})),
            *injection_flags(orders_to_judge),
        ],
    }


def _entry(judgment: Judgment, reason: str, **more: str) -> dict[str, Any]:
    showing = judgment.showing
    return {"item": showing.prompt.id, "shown": list(showing.players), "reason": reason, **more}
