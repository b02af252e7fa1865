"""`lora-kit chat`: talk to a run's adapter or to a model."""

from contextlib import suppress
from typing import Annotated

import typer

from lora_kit.cli.console import messages
from lora_kit.cli.importing import importing


def chat_command(
    target: Annotated[
        str,
        typer.Argument(metavar="RUN|MODEL|GGUF", help="A run, an adapter folder, a model, or a GGUF file."),
    ],
    base: Annotated[
        str | None,
        typer.Option("--base", help="Where the adapter's base is now, if it moved; a GGUF file's base."),
    ] = None,
    *,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Sample from this share of likely tokens.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
) -> None:
    """Talk to a model, with the template that it was trained with."""
    with importing():
        from lora_kit.assemble import open_target
        from lora_kit.harness.open_engines import open_gguf_file
        from lora_kit.serve.chat import chat
        from lora_kit.serve.stream import Sampling

    with suppress(ImportError):
        import readline  # noqa: F401 - importing it gives input() a history and keys to edit the line with
    messages.print(f"· loading {target}", markup=False, highlight=False, soft_wrap=True)
    chat(
        open_gguf_file(target, base) if target.lower().endswith(".gguf") else open_target(target, base=base),
        read=lambda: input("you> "),
        write=lambda text: typer.echo(text, nl=False),
        options=Sampling(max_new_tokens, temperature, top_p, seed),
    )
