"""`lora-kit compare`: one ranking of many systems from one journal."""

from pathlib import Path
from typing import Annotated

import typer

from lora_kit.cli.console import emit_json
from lora_kit.cli.judge_options import (
    JUDGES,
    Concurrency,
    KeyEnv,
    MaxCost,
    MaxTokens,
    MinJudged,
    Model,
    OneOrder,
    PriceIn,
    PriceOut,
    Request,
    Suite,
    Temperature,
    judge_job,
)


def compare_command(
    contestants: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]SOURCE[@MODEL]...",
            help="Answers, run, adapter, model, evaluation or `reference`; RUN@base is a run's base.",
        ),
    ],
    suite: Suite = None,
    *,
    judge: Annotated[str | None, typer.Option("--judge", help=JUDGES)] = None,
    model: Model = "",
    kind: Annotated[str, typer.Option("--kind", help="How to judge, as in `judge`.")] = "pairwise",
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Compare all with this one; default: everybody.")
    ] = None,
    key_env: KeyEnv = "",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for answers, judgments, results.")] = None,
    one_order: OneOrder = False,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_cost: MaxCost = None,
    min_judged: MinJudged = 1.0,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = None,
    request: Request = "{}",
    concurrency: Concurrency = 8,
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
    from lora_kit.harness.judging.run import require_judged
    from lora_kit.harness.judging.who import PERSON, JudgeChoice, require_judge
    from lora_kit.recipe.schema import EvaluateSpec

    choice = JudgeChoice(require_judge(judge), model, key_env, concurrency)
    judging = judge_job(
        kind,
        one_order=one_order or judge == PERSON,
        temperature=temperature,
        max_tokens=max_tokens,
        request=request,
        prices=(price_in, price_out, max_cost),
    )
    spec = EvaluateSpec(max_new_tokens=max_new_tokens, batch_size=batch_size)
    job = CompareJob(judging, baseline)
    section = compare_and_show((contestants, suite), spec, choice, job, out, quiet=as_json)
    if as_json:
        emit_json(section)
    require_judged(section, min_judged)
