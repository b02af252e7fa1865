"""Adapters as tables in the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from lora_kit.audit.weights import LayerNorm
from lora_kit.cli.console import console, messages
from lora_kit.export.adapter_facts import AdapterFacts
from lora_kit.export.adapter_sum import NewAdapter
from lora_kit.report.wording import size


def show_adapters(found: Sequence[AdapterFacts], folder: Path) -> None:
    """List adapters."""
    if not found:
        messages.print(f"no adapters in {folder}; train one with: lora-kit train RECIPE", markup=False)
        return
    columns = [Column(title, overflow="fold") for title in ("on", "base", "template")]
    numbers = [Column(title, justify="right") for title in ("rank", "alpha")]
    name = Column("adapter", overflow="fold")
    table = Table(name, *numbers, *columns, Column("size", justify="right"), box=None, pad_edge=False)
    for facts in found:
        if facts.problem:
            table.add_row(Text(facts.name, style="red"), "", "", Text(facts.problem, style="red"), "", "", "")
            continue
        on = " ".join(filter(None, (_targets(facts), facts.variant)))
        cells = (str(facts.rank), f"{facts.alpha:g}", on, facts.base or "?", facts.template or "?")
        table.add_row(Text(facts.name), *map(Text, cells), size(facts.bytes))
    console.print(table)


def show_layers(facts: AdapterFacts, layers: Sequence[LayerNorm]) -> None:
    """Show what is added to each layer."""
    console.print(
        f"{facts.name}: rank {facts.rank}, alpha {facts.alpha:g}, {len(layers)} layers, {size(facts.bytes)}, "
        f"base {facts.base or '?'}, template {facts.template or '?'}",
        markup=False,
        soft_wrap=True,
    )
    titles = ("length", "largest", "effective rank")
    table = Table("layer", *(Column(title, justify="right") for title in titles), box=None, pad_edge=False)
    for layer in layers:
        numbers = (f"{layer.norm:.4g}", f"{layer.largest:.4g}", f"{layer.effective_rank:.1f}")
        table.add_row(Text(layer.module, overflow="fold"), *numbers)
    console.print(table)
    messages.print(
        "length: Frobenius norm of scaling B A; largest: its largest singular value; "
        "effective rank: exponential of the entropy of all (Roy and Vetterli 2007)",
        markup=False,
        style="dim",
    )


def show_new(made: NewAdapter) -> None:
    """Say what was written, and how exact it is."""
    for note in made.notes:
        messages.print(f"note: {note}", markup=False, style="yellow", soft_wrap=True)
    console.print(
        f"{made.folder}: rank {made.rank}, alpha {made.alpha:g}, {made.modules} layers; for random inputs at "
        f"most {made.largest_difference:.1g} of its length from its parts in float64",
        markup=False,
        soft_wrap=True,
    )


def _targets(facts: AdapterFacts) -> str:
    if len(facts.targets) > 8:  # named one by one
        return f"{len(facts.targets)} layers"
    return ",".join(facts.targets)
