"""`lora-kit doctor`: what this machine has, what will be used, what is missing."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lora_kit.cli.console import console, emit_json
from lora_kit.errors import MachineError, Problem

STYLES = {"ok": "green", "note": "yellow", "broken": "red"}


def doctor_command(*, as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False) -> None:
    """Look at hardware, versions, disk and 4-bit support; says what is missing and what mends it."""
    from lora_kit.doctor import examine

    findings = examine()
    if as_json:
        emit_json([finding.to_json() for finding in findings])
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for one in findings:
            told = f"{one.found}\n→ {one.cure}" if one.cure else one.found
            table.add_row(Text(one.status, style=STYLES[one.status]), one.area, Text(told))
        console.print(table)
    broken = [Problem(one.found, one.area, cure=one.cure) for one in findings if one.status == "broken"]
    if broken:
        raise MachineError.collect(broken)
