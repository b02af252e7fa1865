"""`lora-kit reproduce`: does a run come out the same here, and if not, what moved?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_kit.cli.console import console, emit_json
from lora_kit.cli.importing import importing
from lora_kit.errors import IncompleteError, ModelError

if TYPE_CHECKING:
    from lora_kit.reproduce import Reproduction


def reproduce_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, of this or another machine.")],
    *,
    steps: Annotated[int, typer.Option("--steps", min=1, help="How many of its first steps to repeat.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Make a run's first steps again, and say which layer moved if they come out otherwise."""
    with importing():
        from lora_kit.cli.progress import observing
        from lora_kit.reproduce import reproduce_run

    with observing() as observer:
        found = reproduce_run(run, observer, steps=steps)
    if as_json:
        layers = [layer.to_json() for layer in found.layers]
        repeated = found.repeated.to_json() if found.repeated else None
        emit_json(
            {
                "run": str(run),
                "layers": layers,
                "moved": found.moved,
                "repeated": repeated,
                "not_repeated": found.not_repeated or None,
            }
        )
    else:
        _show(found)
    moved = ", ".join(found.moved) or "nothing that was compared"
    if found.repeated is None:
        raise IncompleteError(f"no step was made again: {found.not_repeated}", where=str(run))
    if not found.repeated.equal:
        raise ModelError(f"it comes out otherwise; what moved: {moved}", where=str(run))


def _show(found: "Reproduction") -> None:
    for layer in found.layers:
        text = "; ".join(layer.problems) or layer.found
        console.print(
            f"{'moved' if layer.problems else 'same':6} {layer.name}: {text}", markup=False, soft_wrap=True
        )
    repeated = found.repeated
    if repeated is None:
        return
    text = f"all {repeated.steps} equal to the bit"
    if repeated.first_different:
        what = ", ".join((*repeated.fields, *repeated.rows[:3]))
        text = f"otherwise from step {repeated.first_different} of {repeated.steps} on ({what}); "
        text += f"losses differ by at most {repeated.largest:.3g}"
    console.print(f"steps: {text}", markup=False, soft_wrap=True)
    if repeated.checkpoint:
        console.print(f"checkpoint: {repeated.checkpoint}", markup=False, soft_wrap=True)
