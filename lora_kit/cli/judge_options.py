"""Options of the commands that ask a judge, and the job that they describe."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lora_kit.harness.judging.run import JudgeJob

Suite = Annotated[
    str | None,
    typer.Option("--suite", help="Name or file of the suite; default: prompts of the (first) answers."),
]
JUDGES = "URL of a chat server, local:MODEL, person, or replay:FILE."
Model = Annotated[str, typer.Option("--model", help="The judge's name at that URL, or the person's.")]
KeyEnv = Annotated[str, typer.Option("--key-env", help="Environment variable with the key.")]
OneOrder = Annotated[bool, typer.Option("--one-order", help="Show each pair once, not swapped.")]
PriceIn = Annotated[float | None, typer.Option(help="Price of a million prompt tokens.")]
PriceOut = Annotated[float | None, typer.Option(help="Price of a million generated tokens.")]
MaxCost = Annotated[float | None, typer.Option(help="Ask nothing if it could cost more.")]
MinJudged = Annotated[float, typer.Option(min=0, max=1, help="Exit 7 below this share.")]
Temperature = Annotated[float, typer.Option(min=0, max=2, help="Of the judge.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="The judge's longest reply; default: the kind's.")]
Request = Annotated[str, typer.Option(help="JSON of more fields of each request; null drops one.")]
Concurrency = Annotated[int, typer.Option(min=1, max=64, help="Questions at once.")]


def judge_job(
    kind: str,
    *,
    one_order: bool,
    temperature: float,
    max_tokens: int | None,
    request: str,
    prices: tuple[float | None, float | None, float | None],
) -> "JudgeJob":
    """Make the job.

    Args:
        kind: How to judge.
        one_order: Whether each pair is shown once.
        temperature: Of the judge.
        max_tokens: Of a reply; None for the kind's own.
        request: JSON of more fields.
        prices: Of a million prompt tokens, of a million generated ones, and what it may cost in all.

    Raises:
        RecipeError: The fields are no JSON object.
    """
    from lora_kit.harness.judging.asking import AskSettings, read_extra
    from lora_kit.harness.judging.budget import Budget
    from lora_kit.harness.judging.run import JudgeJob

    settings = AskSettings(temperature, max_tokens, read_extra(request))
    return JudgeJob(kind, "one" if one_order else "both", settings, Budget(*prices))
