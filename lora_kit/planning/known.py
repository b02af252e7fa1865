"""What is here of a base: its weights, or only config.json. A plan never fetches weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.artifacts.manifest import read_object
from lora_kit.data.tokenizer import load_tokenizer
from lora_kit.errors import MachineError, ModelError
from lora_kit.export.gguf.architecture import can_become_gguf
from lora_kit.export.gguf.vocabulary import vocabulary_refusal
from lora_kit.hub import Repository
from lora_kit.model.base import HUB_ID, PACKAGE, BaseFiles, find_base
from lora_kit.model.family import Family, family_of
from lora_kit.recipe.schema import BaseSpec

CONFIG = "config.json"
STAND_IN = "connect to the network, or name a folder with the base's config.json as base.model for this plan"


@dataclass(frozen=True, slots=True)
class KnownBase:
    """A base as far as it is here.

    Args:
        folder: Where its files are.
        config: Content of config.json.
        family: The architecture's family.
        files: All of it; None without weights.
        has_tokenizer: Whether the rows' tokens can be counted.
    """

    folder: Path
    config: dict[str, Any]
    family: Family
    files: BaseFiles | None
    has_tokenizer: bool


def know_base(spec: BaseSpec) -> KnownBase:
    """Find what is here; of a hub model that is not, config.json alone is fetched.

    Raises:
        ModelError: There is no such model, or it is not supported.
        MachineError: The hub can't be reached and its cache has not even config.json.
    """
    folder = _folder(spec)
    if folder is None or any(folder.glob("*.safetensors")):
        files = find_base(spec)
        return KnownBase(files.folder, files.config, files.family, files, has_tokenizer=True)
    config = read_object(folder / CONFIG)
    family = family_of(config, where=str(folder / CONFIG))
    return KnownBase(folder, config, family, None, has_tokenizer=(folder / "tokenizer.json").is_file())


def _folder(spec: BaseSpec) -> Path | None:
    """Return the folder where it is or would be; None for a package's file, which is always whole."""
    place = Path.home() / spec.model[2:] if spec.model.startswith("~/") else Path(spec.model)
    if spec.model.startswith(PACKAGE):
        return None
    if place.is_absolute() or place.is_dir():
        return place if place.is_dir() else None
    if not HUB_ID.fullmatch(spec.model):
        return None  # find_base says what is wrong with it
    repository = Repository(spec.model)
    try:
        return repository.fetch(repository.pin(spec.revision), (CONFIG,))
    except MachineError as error:
        problem = error.problems[0]
        raise MachineError(problem.found, where=problem.where, key="base.model", cure=STAND_IN) from error


def gguf_refusal(base: KnownBase) -> str:
    """Say why a base can't become GGUF; empty if it can, as far as its files here tell."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[base.config["model_type"]].from_dict(base.config).to_dict()
    refusal = can_become_gguf(config)
    if refusal or not base.has_tokenizer:
        return refusal
    try:
        return vocabulary_refusal(load_tokenizer(base.folder))
    except ModelError as error:
        return error.problems[0].found
