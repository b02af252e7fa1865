"""What a run's training works with before a model is in memory; nothing here needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.data.encode import Encoder
from lora_kit.data.encode_rows import Progress
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.overlap import SuiteText
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Inputs:
    """The base's files, what encodes rows for it, and the encoded rows."""

    files: BaseFiles
    encoder: Encoder
    data: PreparedData


def run_base(recipe: Recipe, run: RunDir) -> BaseFiles:
    """Find a run's base at the commit that the run began with: a branch moves, a run does not."""
    pinned = run.read_state().get("base_revision") or recipe.base.revision
    return find_base(recipe.base.model_copy(update={"revision": pinned}))


def open_inputs(
    recipe: Recipe, files: BaseFiles, *, suites: Sequence[SuiteText] = (), on_progress: Progress | None = None
) -> Inputs:
    """Open a recipe's tokenizer and template, and prepare its rows.

    Args:
        recipe: The recipe, its paths absolute.
        files: Its base.
        suites: Items that training rows are compared with.
        on_progress: Told (done, total) conversations.

    Raises:
        DataError: Rows are wrong, each named.
        ModelError: The tokenizer or the template can't be used.
    """
    encoder = open_encoder(files.folder, recipe.data.template, recipe.data.system)
    data = prepare_data(recipe.data, encoder, suites=suites, on_progress=on_progress)
    return Inputs(files, encoder, data)
