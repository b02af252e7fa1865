"""Contestants -> answers -> every pair before a judge -> one journal -> ``ranking`` in results.json.

Answers and judgments are kept as they come, so that a comparison that is cut goes on where it was, and one
with a contestant more asks only what is new.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from lora_kit.artifacts.commit import write_json
from lora_kit.artifacts.folder_lock import folder_lock
from lora_kit.catalogue import JUDGES
from lora_kit.errors import RecipeError
from lora_kit.harness.ask import Asking, Counter
from lora_kit.harness.comparing.contestants import Field
from lora_kit.harness.comparing.ranking import Ranking
from lora_kit.harness.engine import Engine, Progress
from lora_kit.harness.journal import open_journal
from lora_kit.harness.judging.backend import JudgeBackend
from lora_kit.harness.judging.budget import CostEstimate
from lora_kit.harness.judging.kind import JudgeKind, Prompt, Showing
from lora_kit.harness.judging.plan import Orders, plan_showings
from lora_kit.harness.judging.run import JudgeJob, about_judge, account, ask_all, asked_items
from lora_kit.harness.judging.sides import Side, require_answers
from lora_kit.harness.results_file import RANKING, RESULTS, answer_hashes, read_results, with_answers
from lora_kit.harness.run import ANSWERS
from lora_kit.recipe.schema import EvaluateSpec
from lora_kit.registry import did_you_mean


@dataclass(frozen=True, slots=True)
class CompareJob:
    """What to compare, and how.

    Args:
        judging: How each pair is judged.
        baseline: Name of the contestant whom all others meet; None lets everybody meet everybody.
    """

    judging: JudgeJob = field(default_factory=JudgeJob)
    baseline: str | None = None


@dataclass(frozen=True)
class Contest:
    """Everybody's answers.

    Args:
        suite: Its name.
        prompts: In order.
        sides: Those who take part.
    """

    suite: str
    prompts: tuple[Prompt, ...]
    sides: tuple[Side, ...]


def pairs_of(names: Sequence[str], job: CompareJob) -> list[tuple[int, int]]:
    """Who meets whom, as indices.

    Raises:
        RecipeError: No contestant is called like the baseline, or the kind shows one answer at a time.
    """
    kind: JudgeKind = JUDGES[job.judging.kind]
    if kind.shown != 2:
        able = [name for name in JUDGES if JUDGES[name].shown == 2]
        cure = f"take one of: {', '.join(able)}; or grade each by itself: lora-kit judge --kind {kind.name}"
        raise RecipeError(f"'{kind.name}' grades one answer at a time", key="--kind", cure=cure)
    if job.baseline is None:
        return list(combinations(range(len(names)), 2))
    if job.baseline not in names:
        hint = did_you_mean(job.baseline, list(names))
        cure = f"{hint} one of: {', '.join(names)}".strip()
        raise RecipeError(f"nobody is called '{job.baseline}'", key="--baseline", cure=cure)
    base = names.index(job.baseline)
    return [(at, base) for at in range(len(names)) if at != base]


def answer_all(
    asked: Field,
    spec: EvaluateSpec,
    folder: Path,
    *,
    on_phase: Callable[[str], None] = lambda _: None,
    on_progress: Progress | None = None,
) -> Contest:
    """Everybody's answers, read or made.

    Args:
        asked: Who takes part, and the prompts.
        spec: Longest answer, and prompts that are answered at once.
        folder: Where ``answers.jsonl`` is.
        on_phase: Told before models are asked.
        on_progress: Told (done, total).

    Raises:
        DataError: Answers are missing or surplus, or a prompt does not fit a model.
        ModelError: A model is not there, or its adapter belongs to another base.
        RunLockedError: Another process works in the folder.
    """
    made: dict[str, Side] = {}
    known = [one.side for one in asked.contestants if one.side is not None]
    require_answers({prompt.id: prompt for prompt in asked.prompts}, known)
    if len(known) < len(asked.contestants):
        from lora_kit.harness.comparing.answering import waiting_engines

        engines = waiting_engines(asked.contestants)
        on_phase(f"asking {', '.join(engine.name for engine in engines)}: {len(asked.prompts)} prompts")
        made = _make(engines, asked, spec, folder, on_progress)
    sides = tuple(one.side or made[one.name] for one in asked.contestants)
    return Contest(asked.suite.name, asked.prompts, sides)


def _make(
    engines: Sequence[Engine], asked: Field, spec: EvaluateSpec, folder: Path, on_progress: Progress | None
) -> dict[str, Side]:
    counter = Counter(len(engines) * len(asked.prompts), on_progress)
    sources = {one.name: one.source for one in asked.contestants}
    made = {}
    with folder_lock(folder), open_journal(folder / ANSWERS) as journal:
        asking = Asking(asked.suite, spec, journal, counter)
        for engine in engines:
            said = asking.generations(engine)
            items = zip(asked.suite.items, said, strict=True)
            texts = {item.id: answer.text for item, answer in items}
            made[engine.name] = Side(engine.name, texts, {}, sources[engine.name])
    return made


def compare(
    contest: Contest,
    backend: JudgeBackend,
    job: CompareJob,
    folder: Path,
    *,
    on_estimate: Callable[[CostEstimate], None] = lambda _: None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge all pairs, and write ``judgments.jsonl`` and the ranking in ``results.json``.

    Args:
        contest: Everybody's answers.
        backend: Who judges.
        job: How.
        folder: Where both files are; what the journal holds already is not asked again.
        on_estimate: Told what it will take, before the first request.
        on_progress: Told (done, total).

    Returns:
        The ranking (``ranking.py`` says what is in it), also when some of it was not judged.

    Raises:
        RecipeError: More expensive than allowed, or a kind that can't compare; nothing was asked.
        DataError: The kind needs references and there are none, or the folder holds other answers.
        RunLockedError: Another process works in the folder.
        MachineError: A file can't be written.
    """
    kind: JudgeKind = JUDGES[job.judging.kind]
    names = [side.name for side in contest.sides]
    pairs = pairs_of(names, job)
    showings = _showings(kind, contest, pairs, job.judging.orders)
    with folder_lock(folder):
        before = read_results(folder / RESULTS, contest.suite)
        results = with_answers(before, asked_items(contest.prompts, contest.sides))
        asked = ask_all(
            showings, backend, job.judging, folder, on_estimate=on_estimate, on_progress=on_progress
        )
        ids = [prompt.id for prompt in contest.prompts]
        section = {
            **_about(contest, backend, kind, job),
            "items": ids,
            "answers": answer_hashes(results["items"], names, ids),
            **account(asked, backend.model),
            **Ranking(kind, asked.judgments, contest.sides, contest.prompts, pairs).to_json(),
        }
        write_json(folder / RESULTS, {**results, RANKING: section})
    return section


def _showings(
    kind: JudgeKind, contest: Contest, pairs: Sequence[tuple[int, int]], orders: Orders
) -> list[Showing]:
    found = []
    for one, other in ((contest.sides[a], contest.sides[b]) for a, b in pairs):
        names, answers = (one.name, other.name), (one.answers, other.answers)
        found += plan_showings(kind, contest.prompts, names, answers, orders=orders)
    return found


def _about(contest: Contest, backend: JudgeBackend, kind: JudgeKind, job: CompareJob) -> dict[str, Any]:
    return {
        "suite": contest.suite,
        "prompts": len(contest.prompts),
        "clusters": len({prompt.cluster for prompt in contest.prompts}),
        "orders": job.judging.orders,
        "baseline": job.baseline,
        **about_judge(backend, kind, job.judging),
    }
