"""`lora-kit plan`: what a run will take, before it is begun."""

from pathlib import Path
from typing import Annotated

import typer

from lora_kit.cli.console import emit_json
from lora_kit.cli.importing import importing

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as lora.rank=8.")]


def plan_command(  # noqa: PLR0917 - a command's options
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, a shipped recipe's name, or a run.")
    ],
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Where the run would be; its disk is looked at.")
    ] = None,
    allow_outside: Annotated[
        list[Path] | None,
        typer.Option("--allow-outside", help="Directory that the recipe's paths may lead into."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Other hardware: rtx-3090, rtx-4090, a100-40, t4, laptop-cpu."),
    ] = None,
    tariff: Annotated[
        str | None, typer.Option("--tariff", help="Price of a kWh: 0.30/kWh, 0.30EUR/kWh.")
    ] = None,
    watts: Annotated[float | None, typer.Option("--watts", help="What the machine draws under load.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Say in a minute what a run will take: time, memory, disk, money, and the change that helps most."""
    import psutil

    from lora_kit.cli.train import load_run
    from lora_kit.planning.devices import find_device
    from lora_kit.planning.energy import check_watts, parse_tariff

    price, power = parse_tariff(tariff) if tariff else None, check_watts(watts)
    other = find_device(device) if device else None
    loaded, path = load_run(recipe, overrides, run_dir, allow_outside)
    with importing():
        from lora_kit.cli.progress import observing
        from lora_kit.cli.show_plan import show_plan
        from lora_kit.planning.plan import Asked, plan_recipe

    asked = Asked(path, other, price, power, begun=psutil.Process().create_time())
    with observing() as observer:
        outlook = plan_recipe(loaded, asked, observer)
    if as_json:
        emit_json(outlook.to_json())
    else:
        show_plan(outlook)
