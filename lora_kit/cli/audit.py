"""`lora-kit audit`: does an adapter differ from its base, load elsewhere as it was, and stop?"""

from pathlib import Path
from typing import Annotated

import typer

from lora_kit.cli.console import console, emit_json
from lora_kit.cli.importing import importing


def audit_command(
    target: Annotated[Path, typer.Argument(metavar="RUN", help="A run with an adapter, or its folder.")],
    *,
    base: Annotated[
        str | None, typer.Option("--base", help="Where its base is now, if it has moved.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Look at a finished adapter once more: what it adds to each layer, its loss, whether its answers end."""
    with importing():
        from lora_kit.audit.end import audit_end
        from lora_kit.cli.progress import observing

    with observing() as observer:
        audit = audit_end(target, observer, base=base)
    if as_json:
        emit_json({"target": str(target), **audit.to_json()})
    else:
        for finding in audit.findings:
            text = f"{finding.level:8} {finding.name}: {finding.found}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print(audit.sentence, markup=False, highlight=False)
    audit.raise_if_failed()
