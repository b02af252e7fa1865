"""`lora-kit judge`: let somebody compare two systems' answers."""

from pathlib import Path
from typing import Annotated

import typer

from lora_kit.cli.console import emit_json


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
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Name or file of the suite; default: prompts of the answers."),
    ] = None,
    *,
    judge: Annotated[
        str, typer.Option("--judge", help="URL of a chat server, local:MODEL, person, or replay:FILE.")
    ],
    model: Annotated[
        str, typer.Option("--model", help="The judge's name at that URL, or the person's.")
    ] = "",
    kind: Annotated[str, typer.Option("--kind", help="How to judge.")] = "pairwise",
    key_env: Annotated[str, typer.Option("--key-env", help="Environment variable with the key.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for judgments.jsonl, results.json.")
    ] = None,
    one_order: Annotated[bool, typer.Option("--one-order", help="Show each pair once, not swapped.")] = False,
    price_in: Annotated[float | None, typer.Option(help="Price of a million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(help="Price of a million generated tokens.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Ask nothing if it could cost more.")] = None,
    min_judged: Annotated[float, typer.Option(min=0, max=1, help="Exit 7 below this share.")] = 1.0,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of the judge.")] = 0.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest reply; default: the kind's.")] = None,
    request: Annotated[str, typer.Option(help="JSON of more fields of each request; null drops one.")] = "{}",
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Questions at once.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Compare two systems' answers: a judge model, a model of your own, or yourself, in both orders.

    Kinds: pairwise, pair_score (% of the other's points), single, five_level, logprob_pair, reference_guided,
    checklist. What was judged is never asked again; what can't be read is never a score.
    """
    from lora_kit.cli.judging import judge_and_show
    from lora_kit.harness.judging.asking import AskSettings, read_extra
    from lora_kit.harness.judging.budget import Budget
    from lora_kit.harness.judging.run import JudgeJob, require_judged
    from lora_kit.harness.judging.sides import default_folder, read_pairing
    from lora_kit.harness.judging.who import JudgeChoice

    settings = AskSettings(temperature, max_tokens, read_extra(request))
    budget = Budget(price_in, price_out, max_cost)
    job = JudgeJob(kind, "one" if one_order or judge == "person" else "both", settings, budget)
    pairing = read_pairing(answers, against, suite)
    choice = JudgeChoice(judge, model, key_env, concurrency)
    section = judge_and_show(pairing, choice, job, out or default_folder(pairing), quiet=as_json)
    if as_json:
        emit_json(section)
    require_judged(section, min_judged)
