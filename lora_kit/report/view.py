"""A run's facts as words, tables and pictures; both pages are written from this one value."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.report.audit import AuditView, audit_view
from lora_kit.report.evaluation import SuiteView, suite_view
from lora_kit.report.evaluation_files import EvaluationFiles
from lora_kit.report.gather import RunFacts
from lora_kit.report.ledger_view import LedgerView, ledger_view
from lora_kit.report.plots import loss_plot, small_plot
from lora_kit.report.points import mean_at_ends, series
from lora_kit.report.rows import DataView, data_view
from lora_kit.report.training import (
    certificate_facts,
    loss_table,
    run_facts,
    training_facts,
)
from lora_kit.report.wording import Facts, finite, nats, number, plain


@dataclass(frozen=True, slots=True)
class Badge:
    """The verdict at a glance; ``css`` is good, bad or unclear."""

    word: str
    css: str


@dataclass(frozen=True, slots=True)
class TrainingView:
    """How the training went."""

    facts: Facts
    loss: Markup
    small: tuple[Markup, ...]
    table: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class ReportView:
    """Everything on the page, in its order."""

    title: str
    badge: Badge
    sentences: tuple[str, ...]
    absent: tuple[str, ...]
    suites: tuple[SuiteView, ...]
    training: TrainingView
    audit: AuditView
    ledger: LedgerView
    data: DataView
    run: Facts
    recipe: str
    certificate: Facts
    commands: tuple[tuple[str, str], ...]


def build_view(facts: RunFacts) -> ReportView:
    """Lay out a report. Never fails on what a file says; damaged results are listed under ``absent``."""
    suites, damaged = _suites(facts.evaluations)
    audit = audit_view(facts.audit)
    sentences = [sentence for suite in suites for sentence in suite.sentences]
    return ReportView(
        title=plain(facts.state.get("name") or facts.path.name),
        badge=Badge(*suites[0].badge) if suites else Badge("not evaluated", "unclear"),
        sentences=tuple(sentences or [_unproven(facts)]),
        absent=tuple(plain(line) for line in (*audit.alarms, *facts.absent, *damaged)),
        suites=suites,
        training=_training(facts),
        audit=audit,
        ledger=ledger_view(facts.ledger, RunDir(facts.path).ledger.name),
        data=data_view(facts.data),
        run=run_facts(facts.adapter),
        recipe=plain(facts.recipe),
        certificate=certificate_facts(facts.certificate),
        commands=_commands(facts),
    )


def _suites(evaluations: Mapping[str, EvaluationFiles]) -> tuple[tuple[SuiteView, ...], list[str]]:
    suites, damaged = [], []
    for name, results in evaluations.items():
        try:
            suites.append(suite_view(results))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            damaged.append(
                f"Without suite {name}: its results.json is not what an evaluation writes ({error})."
            )
    return tuple(suites), damaged


def _unproven(facts: RunFacts) -> str:
    ends = mean_at_ends(series(facts.steps, "loss"))
    if ends is None:
        return "No step has been made yet."
    fall = f"training loss went from {number(ends[0], 3)} to {nats(ends[1])}"
    return f"In {len(facts.steps):,} steps the {fall}; what that does to the answers is not evaluated yet."


def _training(facts: RunFacts) -> TrainingView:
    losses, validation = series(facts.steps, "loss"), series(facts.steps, "validation_loss")
    small = [("learning_rate", "learning rate"), ("grad_norm", "gradient norm before clipping")]
    return TrainingView(
        facts=training_facts(facts),
        loss=loss_plot(losses, validation, finite(facts.state.get("kept_step"))),
        small=tuple(small_plot(series(facts.steps, key), title) for key, title in small),
        table=tuple(loss_table(facts)),
    )


def _commands(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    """What to do next, ready to paste."""
    run, adapter = shlex.quote(str(facts.path)), str(facts.path / "adapter")
    commands = [] if facts.adapter else [("Finish the training", f"lora-kit train {run}")]
    commands += [
        ("Talk to it", f"lora-kit chat {run}"),
        ("Judge it on another suite", f"lora-kit evaluate {run} --suite NAME"),
    ]
    if not facts.certificate:
        commands.append(("Merge it into its base", f"lora-kit merge {run}"))
    commands.append(("Load it with PEFT alone", f"PeftModel.from_pretrained(base_model, {adapter!r})"))
    return tuple((plain(what), plain(command)) for what, command in commands)
