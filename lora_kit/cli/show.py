"""Evaluation results on a terminal: the verdict, the numbers behind it, and some answers to read."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lora_kit.cli.console import console

EXAMPLES = 3
STYLES = {"better": "bold green", "worse": "bold red", "can't tell": "yellow"}


def show_results(results: Mapping[str, Any]) -> None:
    """Print one suite's results."""
    names = [model["name"] for model in results["models"]]
    console.print()
    console.print(_answers(results, names))
    console.print(_metrics(results, names))
    for note in results["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    for comparison in results["comparisons"]:
        if comparison["metric"] == "bits_per_byte":
            console.print(
                _verdict(comparison), style=STYLES[comparison["verdict"]], markup=False, highlight=False
            )
    console.print()


def _metrics(results: Mapping[str, Any], names: list[str]) -> Table:
    table = Table(
        title=f"suite {results['suite']['name']}, {results['suite']['items']} prompts", title_justify="left"
    )
    table.add_column("metric")
    for name in names:
        table.add_column(name, justify="right")
    if len(names) > 1:
        table.add_column("difference (95 % interval)", justify="right")
        table.add_column("verdict")
    compared = {comparison["metric"]: comparison for comparison in results["comparisons"]}
    for metric, info in results["metrics"].items():
        values = [f"{model['metrics'][metric]['value']:.3f}" for model in results["models"]]
        row = [info["title"], *values]
        if metric in compared:
            c = compared[metric]
            row += [f"{c['difference']:+.3f} ({c['low']:+.3f} .. {c['high']:+.3f})", c["verdict"]]
        table.add_row(*row, style=None)
    return table


def _answers(results: Mapping[str, Any], names: list[str]) -> Table:
    """The first prompts with the reference and each model's answer, side by side."""
    table = Table(
        title="answers side by side (all of them in the report)", title_justify="left", show_lines=True
    )
    for heading in ("prompt", "reference", *names):
        table.add_column(heading, overflow="fold", ratio=1)
    for item in results["items"][:EXAMPLES]:
        texts = [item["prompt"], item["reference"], *(item["answers"][name]["text"] for name in names)]
        table.add_row(*(_plain(text) for text in texts))
    return table


def _plain(text: str) -> str:
    """Text of a model or a user: no markup, no control characters."""
    from rich.markup import escape

    return escape("".join(char if char.isprintable() or char == "\n" else "�" for char in text))


def _verdict(comparison: Mapping[str, Any]) -> str:
    model, baseline, verdict = comparison["model"], comparison["baseline"], comparison["verdict"]
    interval = f"95 % interval {comparison['low']:+.3f} .. {comparison['high']:+.3f}"
    head = "Verdict on bits per byte of the references: "
    if verdict != "can't tell":
        return (
            f"{head}{model} is {verdict} than {baseline} by {abs(comparison['difference']):.3f} ({interval})"
        )
    more = comparison["more_items_needed"]
    tail = "" if more is None else f"; about {more} more prompts would decide it"
    return f"{head}can't tell {model} from {baseline} ({interval}){tail}"
