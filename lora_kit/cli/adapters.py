"""`lora-kit adapters`: which there are, what they change, and new ones computed from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_kit.cli.console import emit_json
from lora_kit.cli.importing import importing
from lora_kit.errors import RecipeError

if TYPE_CHECKING:
    from lora_kit.export.adapter_alike import Part
    from lora_kit.export.adapter_sum import NewAdapter

app = typer.Typer(help="Adapters on disk: list, inspect, add, subtract, rescale.", no_args_is_help=True)
Adapter = Annotated[Path, typer.Argument(metavar="ADAPTER", help="A run, or an adapter folder.")]
Out = Annotated[Path, typer.Option("--out", help="Adapter folder to create.")]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


@app.command("list")
def list_command(
    folder: Annotated[Path, typer.Option("--dir", help="Folder of runs and adapter folders.")] = Path("runs"),
    *,
    as_json: Json = False,
) -> None:
    """List the adapters of a folder: rank, alpha, layers, base, template, size; damaged ones too."""
    with importing():
        from lora_kit.cli.show_adapters import show_adapters
        from lora_kit.export.adapter_facts import adapters_in

    found = adapters_in(folder)
    if as_json:
        emit_json([facts.to_json() for facts in found])
    else:
        show_adapters(found, folder)


@app.command("inspect")
def inspect_command(target: Adapter, *, as_json: Json = False) -> None:
    """Show what an adapter adds to each layer: length, largest stretch, effective rank."""
    with importing():
        from lora_kit.assemble import saved_adapter
        from lora_kit.audit.weights import layer_norms, layers_json
        from lora_kit.cli.show_adapters import show_layers
        from lora_kit.export.adapter_facts import facts_of

    saved = saved_adapter(target)
    facts, layers = facts_of(target.resolve().name, saved), layer_norms(saved)
    if as_json:
        emit_json(facts.to_json() | {"layers": layers_json(layers)})
    else:
        show_layers(facts, layers)


@app.command("sum")
def sum_command(
    parts: Annotated[list[str], typer.Argument(metavar="ADAPTER[=WEIGHT]...", help="Such as runs/a=0.5.")],
    out: Out,
    *,
    as_json: Json = False,
) -> None:
    """Add adapters of one base, each with its weight (1 if none is given), without cutting any rank."""
    with importing():
        from lora_kit.export.adapter_sum import sum_adapters

    _show(sum_adapters([_part(text) for text in parts], out), as_json=as_json)


@app.command("subtract")
def subtract_command(
    minuend: Adapter,
    others: Annotated[list[str], typer.Argument(metavar="OTHER[=WEIGHT]...", help="What to take away.")],
    out: Out,
    *,
    as_json: Json = False,
) -> None:
    """Take adapters away from another of the same base."""
    from dataclasses import replace

    with importing():
        from lora_kit.export.adapter_sum import sum_adapters

    taken = [replace(part, weight=-part.weight) for part in map(_part, others)]
    _show(sum_adapters([_opened(minuend, 1.0), *taken], out), as_json=as_json)


@app.command("rescale")
def rescale_command(
    target: Adapter,
    out: Out,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="The new alpha; default: the one that makes the scaling 1."),
    ] = None,
    *,
    rank_stabilized: Annotated[
        bool, typer.Option("--rank-stabilized", help="Scale by alpha / sqrt(rank) instead of alpha / rank.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write an adapter with another alpha that adds the same: for tools that read alpha in their own way."""
    with importing():
        from lora_kit.assemble import saved_adapter
        from lora_kit.export.adapter_sum import rescale_adapter

    made = rescale_adapter(saved_adapter(target), out, alpha=alpha, rank_stabilized=rank_stabilized)
    _show(made, as_json=as_json)


def _part(text: str) -> "Part":
    """Read ``ADAPTER`` or ``ADAPTER=WEIGHT``; a folder may have an equals sign in its name."""
    folder, sign, number = text.rpartition("=")
    if not sign or Path(text).exists():
        return _opened(Path(text), 1.0)
    try:
        return _opened(Path(folder), float(number))
    except ValueError:
        raise RecipeError(f"'{number}' is no number", where=text, cure="write ADAPTER=0.5") from None


def _opened(target: Path, weight: float) -> "Part":
    from lora_kit.assemble import saved_adapter
    from lora_kit.export.adapter_alike import Part

    return Part(target.resolve().name, saved_adapter(target), weight)


def _show(made: "NewAdapter", *, as_json: bool) -> None:
    from lora_kit.cli.show_adapters import show_new

    if as_json:
        emit_json(made.to_json())
    else:
        show_new(made)
