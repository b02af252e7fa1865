"""`lora-kit verify`: is a run what it says it is?"""

from pathlib import Path
from typing import Annotated

import typer

from lora_kit.cli.console import console, emit_json
from lora_kit.cli.importing import importing
from lora_kit.errors import IncompleteError, ModelError


def verify_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    *,
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Train its last steps again and compare.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Hash everything again, then train the steps since an older checkpoint again, bit for bit."""
    with importing():
        from lora_kit.cli.progress import observing
        from lora_kit.verify import verify_run

    with observing() as observer:
        audit = verify_run(run, observer, replay=replay)
    if as_json:
        checks = [check.to_json() for check in audit.checks]
        emit_json({"run": str(run), "checks": checks, "not_replayed": audit.not_replayed or None})
    else:
        for check in audit.checks:
            mark = "differs" if check.problems else "holds"
            console.print(f"{mark:8} {check.name}: {check.found}", markup=False, soft_wrap=True)
    if audit.problems:
        raise ModelError.collect(audit.problems)
    if replay and audit.not_replayed:
        cure = "verify it where it was trained, or pass --no-replay"
        raise IncompleteError(f"no step was trained again: {audit.not_replayed}", cure=cure)
