"""What can be said of rows before training, with a tokenizer or without one.

A survey is the very preparation that a run does. Where there is no tokenizer, an
``Outline`` takes the encoder's place, so that rows are read, converted, checked and
counted by the same code, and only the figures in tokens are missing.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from lora_kit.data.encode import content_hash
from lora_kit.data.encode_rows import ConversationEncoder, Progress
from lora_kit.data.overlap import SuiteText
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.data.sources import SUFFIXES
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import Problem, RecipeError
from lora_kit.recipe.schema import LARGEST, DataSpec
from lora_kit.registry import did_you_mean

RECIPE_SUFFIXES = (".yaml", ".yml")
_IN_TOKENS: dict[str, Any] = {
    "encoder_fingerprint": None,
    "tokens": None,
    "trained_tokens": None,
    "longest": [],
    "histogram": [],
}


class Outline:
    """An encoder that knows conversations by their hash only; each counts one token."""

    fingerprint = hashlib.sha256(b"lora_kit outline 1").hexdigest()

    def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
        """One example for each, never a problem."""
        return [_outline(conversation) for conversation in conversations]


def survey(
    spec: DataSpec,
    encoder: ConversationEncoder | None,
    *,
    suites: Sequence[SuiteText] = (),
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Account for every row as a run would.

    Args:
        spec: What to read, its paths absolute.
        encoder: The run's; None to leave out everything that is counted in tokens.
        suites: Items that training rows are compared with.
        on_progress: Called with (conversations encoded, conversations in all).

    Returns:
        The data report as JSON values, what the format counts (``trees``) beside the rest. Without
        an encoder, figures in tokens are null and lists of them empty.

    Raises:
        DataError: Rows are wrong, each named, or none is left.
        MachineError: A file can't be read.
    """
    prepared = prepare_data(spec, encoder or Outline(), on_progress=on_progress, suites=suites)
    report = prepared.report.to_json()
    return report["counts"] | report | ({} if encoder else _IN_TOKENS)


def truncated_hashes(data: PreparedData, spec: DataSpec) -> frozenset[str]:
    """Content hashes of the examples whose prompt was cut to fit.

    They are those that no row has as it stands in its file; the report's list of them ends after a hundred.
    """
    if not data.report.to_json()["truncated"]["count"]:
        return frozenset()
    outlines = prepare_data(spec, Outline())
    whole = {example.content_hash for side in (outlines.train, outlines.validation) for example in side}
    hashes = (example.content_hash for side in (data.train, data.validation) for example in side)
    return frozenset(found for found in hashes if found not in whole)


def file_spec(path: Path, format_name: str | None) -> DataSpec:
    """Describe a file of rows that no recipe names: all of its rows, of any length.

    Args:
        path: The file.
        format_name: A data format; None to tell it from the rows, where that is possible.

    Raises:
        RecipeError: No such format, or none was given and it has to be.
    """
    known = get_args(DataSpec.model_fields["format"].annotation)
    chosen = format_name or ("auto" if "auto" in known else None)
    if chosen is None:
        raise RecipeError(
            "a file of rows does not say its format", where=str(path), cure=f"pass --format {'|'.join(known)}"
        )
    if chosen not in known:
        cure = f"{did_you_mean(chosen, list(known))} known: {', '.join(known)}".strip()
        raise RecipeError(f"no data format '{chosen}'", key="--format", cure=cure)
    keys = {
        "train": str(path.absolute()),
        "format": chosen,
        "validation_fraction": 0.0,
        "max_tokens": LARGEST,
    }
    return DataSpec.model_validate(keys)


def names_rows(target: str) -> bool:
    """Say whether a name on the command line is that of a file of rows, not of a recipe or run."""
    path = Path(target)
    suffix = path.suffix.lower()
    try:
        is_run, is_there = (path / "recipe.yaml").is_file(), path.exists()
    except OSError:  # longer than a file name can be
        return False
    return not is_run and suffix not in RECIPE_SUFFIXES and (is_there or suffix in SUFFIXES)


def _outline(conversation: Conversation) -> Example:
    learned = any(message.role == "assistant" and message.train for message in conversation.messages)
    return Example((0,), (learned,), conversation.origin, content_hash(conversation))
