"""What was trained, on what, with what, and how long it took: facts as pairs of label and text."""

from collections.abc import Mapping
from typing import Any

from lora_kit.report.gather import RunFacts
from lora_kit.report.points import mean_at_ends, series
from lora_kit.report.token_budget import budget_rows
from lora_kit.report.wording import Facts, duration, finite, mapping, median, nats, number, size, stated


def training_facts(facts: RunFacts) -> Facts:
    """How the training went."""
    losses, state = series(facts.steps, "loss"), facts.state
    ends = mean_at_ends(losses)
    peaks = [value for _, value in series(facts.steps, "peak_memory_bytes")]
    speeds = [value for _, value in series(facts.steps, "tokens_per_second")]
    kept = state.get("kept_step")
    rows = (
        ("Status", state.get("status")),
        ("Steps", f"{len(facts.steps):,}"),
        ("Kept", None if kept is None else f"step {number(kept)}"),
        (
            "Training loss",
            ends and f"{number(ends[0], 3)} → {nats(ends[1])} (means of the first and last tenth)",
        ),
        ("Validation loss", _loss(state.get("validation_loss"))),
        ("Trained tokens", _total(facts, "trained_tokens")),
        ("All tokens", _total(facts, "total_tokens")),
        ("Computed with another row's beginning", _shared(facts)),
        ("Time in steps", _seconds(facts)),
        ("Speed", f"{number(median(speeds))} tokens/s (median)" if speeds else None),
        ("Peak memory", size(max(peaks)) if peaks else None),
        *budget_rows(facts.budget),
        ("Deadline", _deadline(mapping(state.get("deadline")))),
        ("Spikes of the loss", _spikes(facts)),
        ("Started", state.get("started")),
        ("Finished", state.get("finished")),
        ("Inexact resume", "; ".join(map(str, state.get("inexact") or ()))),
    )
    return stated(rows)


def run_facts(adapter: Mapping[str, Any]) -> Facts:
    """Base, fingerprints, versions, hardware."""
    base, runtime = mapping(adapter.get("base")), mapping(adapter.get("runtime"))
    template, quantization = mapping(adapter.get("template")), mapping(adapter.get("quantization"))
    rows = (
        ("Base model", base.get("source")),
        ("Base revision", base.get("revision")),
        ("Base fingerprint", base.get("fingerprint")),
        ("Base precision", base.get("dtype")),
        ("Quantization", quantization.get("method")),
        ("Template", template.get("name")),
        ("System prompt", adapter.get("system")),
        ("Recipe fingerprint", adapter.get("recipe_fingerprint")),
        ("Training fingerprint", adapter.get("training_fingerprint")),
        ("Data fingerprint", adapter.get("data_fingerprint")),
        ("Encoder fingerprint", adapter.get("encoder_fingerprint")),
        ("Versions", runtime.get("versions") or adapter.get("versions")),
        ("Hardware", runtime.get("hardware")),
        ("Threads", runtime.get("threads")),
    )
    return stated(rows)


def certificate_facts(certificate: Mapping[str, Any]) -> Facts:
    """What the merge proved."""
    difference, limit = (finite(certificate.get(name)) for name in ("max_logit_difference", "tolerance"))
    agreement = finite(certificate.get("greedy_agreement"))
    base = {"original": "the original base", "dequantized": "the dequantised base, which was trained on"}
    rows = (
        ("Folder", certificate.get("folder")),
        ("Number type", certificate.get("dtype")),
        ("Added to", base.get(str(certificate.get("base")))),
        ("Layers changed", certificate.get("modules")),
        (
            "Largest logit difference",
            difference is not None and f"{difference:.2g} (allowed {limit or 0:.2g})",
        ),
        ("Largest logit", finite(certificate.get("max_logit")) and number(certificate["max_logit"])),
        (
            "Same likeliest token",
            agreement is not None
            and f"{agreement:.2%}".replace("%", " %") + f" of {number(certificate.get('tokens'))} positions",
        ),
    )
    return stated(rows)


def loss_table(facts: RunFacts, most: int = 12) -> list[tuple[str, str, str]]:
    """(step, loss, validation loss) of about a dozen steps, the last among them."""
    losses = series(facts.steps, "loss")
    validation = dict(series(facts.steps, "validation_loss"))
    every = max(1, -(-len(losses) // most))
    shown = {
        step: loss for index, (step, loss) in enumerate(losses) if (len(losses) - 1 - index) % every == 0
    }
    return [
        (number(step), number(loss, 3), number(validation[step], 3) if step in validation else "")
        for step, loss in shown.items()
    ]


def _loss(value: object) -> str | None:
    return None if finite(value) is None else nats(value)


def _total(facts: RunFacts, key: str) -> str | None:
    points = series(facts.steps, key)
    return number(sum(value for _, value in points)) if points else None


def _shared(facts: RunFacts) -> str | None:
    """What rows of a micro-batch had in common at their beginning, and was computed once."""
    shared = sum(value for _, value in series(facts.steps, "shared_tokens"))
    total = sum(value for _, value in series(facts.steps, "total_tokens"))
    return f"{number(shared)} tokens ({shared / total:.0%})".replace("%", " %") if shared and total else None


def _deadline(deadline: Mapping[str, Any]) -> str | None:
    """What was asked for, what was used, and how often the plan changed."""
    if not deadline:
        return None
    asked, until = deadline.get("asked"), deadline.get("until")
    allotted, used = finite(deadline.get("allotted_seconds")) or 0.0, finite(deadline.get("used_seconds"))
    over = f", {duration(used - allotted)} too late" if used is not None and used > allotted else ""
    return (
        f"asked for {until or asked}, used {duration(used or 0.0)} of {duration(allotted)}{over}; "
        f"{number(deadline.get('steps'))} steps, planned anew {number(deadline.get('replans'))} times"
    )


def _spikes(facts: RunFacts) -> str | None:
    """Steps whose loss stood out, and how far."""
    points = series(facts.steps, "spike")
    told = [f"step {number(step)}: {number(times, 1)} times the median before" for step, times in points]
    more = f" ... and {len(told) - 5} more" if len(told) > 5 else ""
    return "; ".join(told[:5]) + more if told else None


def _seconds(facts: RunFacts) -> str | None:
    points = series(facts.steps, "seconds")
    return duration(sum(value for _, value in points)) if points else None
