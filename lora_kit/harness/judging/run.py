"""Two systems' answers -> a judge -> judgments.jsonl and a section of results.json.

The journal is written as replies come, so that a run which is cut, refused or killed goes
on where it was. What was not judged is counted and listed, and makes the command fail.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_kit import __version__
from lora_kit.artifacts.commit import write_json
from lora_kit.artifacts.folder_lock import folder_lock
from lora_kit.catalogue import JUDGES
from lora_kit.errors import IncompleteError
from lora_kit.harness.engine import Progress
from lora_kit.harness.journal import open_journal
from lora_kit.harness.judging.asking import Asking, AskSettings, Judgment
from lora_kit.harness.judging.backend import JudgeBackend
from lora_kit.harness.judging.budget import Budget, CostEstimate, Spending, estimate_cost, require_affordable
from lora_kit.harness.judging.flags import answered_by, family_flags, injection_flags, injections, model_flags
from lora_kit.harness.judging.kind import JudgeKind, Prompt, Showing
from lora_kit.harness.judging.plan import Orders, plan_showings
from lora_kit.harness.judging.record import JOURNAL
from lora_kit.harness.judging.sides import REFERENCE, Pairing, Side
from lora_kit.harness.judging.summary import summarise
from lora_kit.harness.judging.verdicts import prompt_hash, verdict_of
from lora_kit.harness.results_file import JUDGMENTS as SECTION
from lora_kit.harness.results_file import RESULTS, answer_hashes, read_results, with_answers


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


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking.

    Args:
        judgments: One for each showing, judged or not.
        asked: Replies that were got now, not from the journal.
        spent: Tokens and cost of these.
        estimate: What was expected before.
    """

    judgments: list[Judgment]
    asked: int
    spent: dict[str, Any]
    estimate: dict[str, Any]


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
        DataError: The kind needs references and there are none, or the folder holds other answers.
        RunLockedError: Another process works in the folder.
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
    with folder_lock(folder):
        before = read_results(folder / RESULTS, pairing.suite)
        results = with_answers(before, asked_items(pairing.prompts, (system, against)))
        asked = ask_all(showings, backend, job, folder, on_estimate=on_estimate, on_progress=on_progress)
        ids = [prompt.id for prompt in pairing.prompts]
        section = {
            **_about(pairing, backend, kind, job),
            "items": ids,
            "answers": answer_hashes(results["items"], (system.name, against.name), ids),
            **account(asked, backend.model),
            **summarise(kind, asked.judgments, system.name, against.name),
        }
        write_json(folder / RESULTS, add_section(results, section))
    return section


def ask_all(
    showings: Sequence[Showing],
    backend: JudgeBackend,
    job: JudgeJob,
    folder: Path,
    *,
    on_estimate: Callable[[CostEstimate], None] = lambda _: None,
    on_progress: Progress | None = None,
) -> Asked:
    """Ask what the folder's journal does not know; nothing is asked if it could cost too much.

    Raises:
        RecipeError: More expensive than allowed.
        MachineError: The journal can't be written.
    """
    spending = Spending(job.budget)
    with open_journal(folder / JOURNAL) as journal:
        asking = Asking(JUDGES[job.kind], backend, journal, job.settings, on_reply=spending.note)
        estimate = estimate_cost(asking.missing(showings), job.budget)
        require_affordable(estimate, job.budget)
        on_estimate(estimate)
        judgments = asking.ask(showings, on_progress=on_progress, may_ask=spending.leaves_room)
    return Asked(judgments, asking.asked, spending.to_json(), estimate.to_json())


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


def add_section(results: Mapping[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """Results with a section, in the place of an older one of the same judge, kind and systems."""
    others = [old for old in results.get(SECTION, []) if _identity(old) != _identity(section)]
    return {**results, SECTION: [*others, section]}


def asked_items(prompts: Iterable[Prompt], sides: Iterable[Side]) -> list[dict[str, Any]]:
    """What is judged, as items of results.json; the suite's own references are no system's answers."""
    systems = [side for side in sides if side.name != REFERENCE]
    return [
        {
            "id": prompt.id,
            "category": prompt.category,
            "prompt": prompt.question,
            "reference": prompt.gold,
            "answers": {side.name: {"text": side.answers[prompt.id]} for side in systems},
        }
        for prompt in prompts
    ]


def _identity(section: dict[str, Any]) -> tuple[Any, ...]:
    judge_of = section["judge"]
    return (section["kind"], judge_of["model"], judge_of["host"], section["system"], section["against"])


def _about(pairing: Pairing, backend: JudgeBackend, kind: JudgeKind, job: JudgeJob) -> dict[str, Any]:
    return {
        "system": pairing.system.name,
        "against": pairing.against.name,
        "suite": pairing.suite,
        "prompts": len(pairing.prompts),
        "orders": job.orders if kind.shown == 2 else None,
        **about_judge(backend, kind, job),
    }


def about_judge(backend: JudgeBackend, kind: JudgeKind, job: JudgeJob) -> dict[str, Any]:
    """Who judges, how and when: what every section and ranking says of itself."""
    return {
        "kind": kind.name,
        "title": kind.title,
        "judge": {"model": backend.model, "host": backend.host},
        "prompt_hash": prompt_hash(kind),
        "settings": {**asdict(job.settings), "extra": dict(job.settings.extra)},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "lora_kit": __version__,
    }


def account(asked: Asked, asked_model: str) -> dict[str, Any]:
    """How many were judged, each one that was not with its reason, and what it took."""
    judgments = asked.judgments
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
        "verdicts": [verdict_of(judgment) for judgment in judgments],
        "injections": [asdict(one) for one in orders_to_judge],
        "flags": [
            *model_flags(asked_model, models),
            *family_flags(asked_model, sorted({name for j in judgments for name in j.showing.players})),
            *injection_flags(orders_to_judge),
        ],
        "asked": asked.asked,
        "spent": asked.spent,
        "estimate": asked.estimate,
    }


def _entry(judgment: Judgment, reason: str, **more: str) -> dict[str, Any]:
    showing = judgment.showing
    return {"item": showing.prompt.id, "shown": list(showing.players), "reason": reason, **more}
