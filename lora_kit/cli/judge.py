"""`lora-kit judge`: let somebody compare two systems' answers."""

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


def judge_command(
    answers: Annotated[
        str,
        typer.Argument(
            metavar="ANSWERS|RUN", help='A JSONL of {"id", "answer"}, or a run that was evaluated.'
        ),
    ],
    against: Annotated[
        str, typer.Option("--against", help="A file, another model of the run, or the suite's `reference`.")
    ] = "reference",
    suite: Suite = None,
    *,
    judge: Annotated[str, typer.Option("--judge", help=JUDGES)],
    model: Model = "",
    kind: Annotated[str, typer.Option("--kind", help="How to judge.")] = "pairwise",
    key_env: KeyEnv = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for judgments.jsonl, results.json.")
    ] = None,
    one_order: OneOrder = False,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_cost: MaxCost = None,
    min_judged: MinJudged = 1.0,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = None,
    request: Request = "{}",
    concurrency: Concurrency = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Compare two systems' answers: a judge model, a model of your own, or yourself, in both orders.

    Kinds: pairwise, pair_score (% of the other's points), single, five_level, logprob_pair, reference_guided,
    checklist. What was judged is never asked again; what can't be read is never a score.
    """
    from lora_kit.cli.judging import judge_and_show
    from lora_kit.harness.judging.run import require_judged
    from lora_kit.harness.judging.sides import default_folder, read_pairing
    from lora_kit.harness.judging.who import PERSON, JudgeChoice

    job = judge_job(
        kind,
        one_order=one_order or judge == PERSON,
        temperature=temperature,
        max_tokens=max_tokens,
        request=request,
        prices=(price_in, price_out, max_cost),
    )
    pairing = read_pairing(answers, against, suite)
    choice = JudgeChoice(judge, model, key_env, concurrency)
    section = judge_and_show(pairing, choice, job, out or default_folder(pairing), quiet=as_json)
    if as_json:
        emit_json(section)
    require_judged(section, min_judged)
