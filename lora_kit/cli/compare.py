"""`lora-kit compare`: one ranking of many systems from one journal."""

from pathlib import Path
from typing import Annotated

import typer

from lora_kit.cli.console import emit_json


def compare_command(
    contestants: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]SOURCE[@MODEL]...",
            help="Answers, run, adapter, model, evaluation or `reference`; RUN@base is a run's base.",
        ),
    ],
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Name or file of the suite; default: prompts of the first answers."),
    ] = None,
    *,
    judge: Annotated[
        str | None, typer.Option("--judge", help="URL of a chat server, local:MODEL, person, or replay:FILE.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="The judge's name at that URL, or the person's.")
    ] = "",
    kind: Annotated[str, typer.Option("--kind", help="How to judge, as in `judge`.")] = "pairwise",
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Compare all with this one; default: everybody.")
    ] = None,
    key_env: Annotated[str, typer.Option("--key-env", help="Environment variable with the key.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for answers, judgments, results.")] = None,
    one_order: Annotated[bool, typer.Option("--one-order", help="Show each pair once, not swapped.")] = False,
    price_in: Annotated[float | None, typer.Option(help="Price of a million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(help="Price of a million generated tokens.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Ask nothing if it could cost more.")] = None,
    min_judged: Annotated[float, typer.Option(min=0, max=1, help="Exit 7 below this share.")] = 1.0,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of the judge.")] = 0.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The judge's longest reply.")] = None,
    request: Annotated[str, typer.Option(help="JSON of more fields of each request; null drops one.")] = "{}",
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Questions at once.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer that is made.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts that are answered at once.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Write the ranking as JSON.")] = False,
) -> None:
    """Rank systems: every pair before a judge, in both orders, and one ranking with intervals and verdicts.

    Who has no answers yet is asked; adapters of one base share one copy of it. What was answered or judged is
    never asked again, and whoever joins later costs only the new pairs.
    """
    from lora_kit.cli.comparing import compare_and_show
    from lora_kit.harness.comparing.run import CompareJob
    from lora_kit.harness.judging.asking import AskSettings, read_extra
    from lora_kit.harness.judging.budget import Budget
    from lora_kit.harness.judging.run import JudgeJob, require_judged
    from lora_kit.harness.judging.who import JudgeChoice, require_judge
    from lora_kit.recipe.schema import EvaluateSpec

    choice = JudgeChoice(require_judge(judge), model, key_env, concurrency)
    settings = AskSettings(temperature, max_tokens, read_extra(request))
    budget = Budget(price_in, price_out, max_cost)
    judging = JudgeJob(kind, "one" if one_order or judge == "person" else "both", settings, budget)
    spec = EvaluateSpec(max_new_tokens=max_new_tokens, batch_size=batch_size)
    job = CompareJob(judging, baseline)
    section = compare_and_show((contestants, suite), spec, choice, job, out, quiet=as_json)
    if as_json:
        emit_json(section)
    require_judged(section, min_judged)
