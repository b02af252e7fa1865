"""From what the user typed to who takes part: ``[NAME=]SOURCE[@MODEL]``.

A source is a file of answers, ``reference``, an evaluation, a run, an adapter folder or a model. The first
three come with answers, and so does a run that was evaluated on this very suite; the others have to be asked.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_kit.data.sources import SUFFIXES
from lora_kit.data.types import Message
from lora_kit.errors import DataError, RecipeError
from lora_kit.harness.judging.kind import Prompt
from lora_kit.harness.judging.sides import REFERENCE, RESULTS, Side, read_models, read_prompts
from lora_kit.harness.suite import Item, Suite, load_suite
from lora_kit.registry import did_you_mean

BASE = "base"  # SOURCE@base: a run's or adapter's base, spoken to as the adapter is


@dataclass(frozen=True, slots=True)
class Contestant:
    """One who takes part.

    Args:
        name: In the ranking.
        source: Path or name, without name and model.
        model: Which model of the source; empty for the one that it is about.
        side: Its answers, if it comes with them.
    """

    name: str
    source: str
    model: str
    side: Side | None


@dataclass(frozen=True)
class Field:
    """All who take part, and what they are asked.

    Args:
        suite: The prompts as models are asked them; its items may have no reference.
        prompts: The same as a judge sees them.
        contestants: At least two, names differ.
    """

    suite: Suite
    prompts: tuple[Prompt, ...]
    contestants: tuple[Contestant, ...]


def read_field(sources: Sequence[str], suite_name: str | None, *, max_new_tokens: int) -> Field:
    """Read everything that can be read without a model.

    Args:
        sources: What the user typed, at least two.
        suite_name: A suite, a file of prompts, or None for the prompts in the first source's own rows.
        max_new_tokens: Answers that a run has already count if they could be as long.

    Raises:
        RecipeError: Fewer than two sources, or two of one name.
        DataError: Suite, answers or evaluation can't be read.
    """
    if len(sources) < 2:
        raise RecipeError("nothing to compare", cure="give two or more: lora-kit compare A B C --judge ...")
    known = None if suite_name is None else _suite(suite_name)
    found = [_contestant(source, known, max_new_tokens) for source in sources]
    first = next((one.side for one in found if one.side is not None), Side("", {}, {}, ""))
    prompts = read_prompts(suite_name, first)
    suite = known or _suite_of(Path(first.where).stem, prompts)
    return Field(suite, tuple(prompts.values()), _named_apart([_referred(one, prompts) for one in found]))


def _suite(name: str) -> Suite:
    if name.lower().endswith(SUFFIXES):
        return _suite_of(Path(name).stem, read_prompts(name, Side("", {}, {}, "")))
    return load_suite(name)


def _suite_of(name: str, prompts: Mapping[str, Prompt]) -> Suite:
    """Plain prompts as a suite without metrics."""
    items = [
        Item(prompt.id, prompt.category, (Message("user", prompt.question),), prompt.gold, prompt.cluster, "")
        for prompt in prompts.values()
    ]
    return Suite(name, "", tuple(items), ())


def _contestant(text: str, suite: Suite | None, max_new_tokens: int) -> Contestant:
    name, source, model = _parts(text)
    path = Path(source)
    if source == REFERENCE:
        return Contestant(name or REFERENCE, source, model, Side(REFERENCE, {}, {}, ""))
    if path.is_file() or (path / RESULTS).is_file():
        side = _of_models(read_models(source, None), model, source)
        return Contestant(name or _name_of(side), source, model, side)
    plain = name or (model if model == BASE else path.resolve().name if path.exists() else path.name)
    return Contestant(plain, source, model, _evaluated(path, model, suite, max_new_tokens))


def _parts(text: str) -> tuple[str, str, str]:
    """Name, source and model; a path that is there may hold ``=`` and ``@``."""
    if Path(text).exists():
        return "", text, ""
    name, equals, rest = text.partition("=")
    name, rest = (name, rest) if equals else ("", text)
    if Path(rest).exists():
        return name, rest, ""
    source, _, model = rest.partition("@")
    return name, source, model


def _of_models(models: Sequence[Side], model: str, source: str) -> Side:
    if not model:
        return models[-1]
    known = {side.name: side for side in models}
    if model not in known:
        hint = did_you_mean(model, list(known))
        cure = f"{hint} known: {', '.join(known)}".strip()
        raise RecipeError(f"no answers of a model '{model}'", where=source, cure=cure)
    return known[model]


def _name_of(side: Side) -> str:
    """A run's evaluation calls its adapter ``tuned`` whatever the run is called."""
    places = Path(side.where).resolve().parents
    is_tuned = len(places) > 2 and (places[2] / "run.json").is_file() and side.name != BASE
    return places[2].name if is_tuned else side.name


def _evaluated(path: Path, model: str, suite: Suite | None, max_new_tokens: int) -> Side | None:
    """What a run's evaluation left, if it was of these prompts and answers might be as long."""
    if suite is None or not (path / "run.json").is_file():
        return None
    results = path / "evaluations" / suite.name / RESULTS
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
        same = found["suite"]["fingerprint"] == suite.fingerprint
        same = same and found["settings"]["max_new_tokens"] == max_new_tokens
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _of_models(read_models(str(results), None), model, str(path)) if same else None


def _referred(one: Contestant, prompts: Mapping[str, Prompt]) -> Contestant:
    if one.source != REFERENCE:
        return one
    texts = {name: prompt.gold for name, prompt in prompts.items()}
    missing = [name for name, text in texts.items() if not text.strip()]
    if missing:
        raise DataError(f"{len(missing)} prompts have no reference, such as '{missing[0]}'", key=REFERENCE)
    return replace(one, side=Side(one.name, texts, {}, ""))


def _named_apart(found: Sequence[Contestant]) -> tuple[Contestant, ...]:
    """Two of one name are told apart by their folders, or by the user."""
    names = Counter(one.name for one in found)
    apart = [
        replace(one, name=f"{Path(one.source).resolve().parent.name}/{one.name}")
        if names[one.name] > 1
        else one
        for one in found
    ]
    twice = [name for name, count in Counter(one.name for one in apart).items() if count > 1]
    if twice:
        raise RecipeError(
            f"{len(twice)} names are used twice: {', '.join(twice)}", cure="name them: NAME=SOURCE"
        )
    return tuple(
        one if one.side is None else replace(one, side=replace(one.side, name=one.name)) for one in apart
    )
