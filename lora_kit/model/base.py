"""Find the base model that a recipe names, wherever it is, and say exactly which one it is.

Three kinds of name: a folder, a hub id, ``package:NAME/FILE.gguf``. All end as a checked folder of
safetensors with a fingerprint; nobody after this asks where it came from.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_kit.cache_place import cache_dir
from lora_kit.errors import ModelError
from lora_kit.model import hub
from lora_kit.model.family import Family
from lora_kit.model.fingerprint import fingerprint
from lora_kit.model.folder import ModelFolder, check_folder
from lora_kit.model.gguf_convert import converted_folder, find_in_package
from lora_kit.recipe.schema import BaseSpec

PACKAGE = "package:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
RECIPE_KEY = "base.model"
GIVEN_NAME = "the model's name"  # of one that the command line names


@dataclass(frozen=True, slots=True)
class BaseFiles:
    """A base model on disk, checked.

    Args:
        source: The name in the recipe.
        revision: Commit of a hub model.
        folder: Where config.json, the weights and the tokenizer are.
        config: Content of config.json.
        family: The architecture's family.
        fingerprint: 64 hex digits over architecture and weights.
    """

    source: str
    revision: str | None
    folder: Path
    config: dict[str, Any]
    family: Family
    fingerprint: str

    @property
    def vocab_size(self) -> int:
        """Number of rows of the embedding."""
        return int(self.config["vocab_size"])


def find_base(spec: BaseSpec, *, cache: Path | None = None, key: str = RECIPE_KEY) -> BaseFiles:
    """Find, fetch or convert, and check a base model.

    Args:
        spec: The recipe's ``base`` section.
        cache: Folder for converted models and hashes; ``$LORA_KIT_CACHE`` or ``~/.cache/lora_kit`` if absent.
        key: What named the model, for messages.

    Raises:
        ModelError: There is no such model, or it is not safe, complete or supported.
        MachineError: Network, disk or memory are missing.
    """
    cache = cache_dir() if cache is None else cache
    folder, revision = _locate(spec, cache, key)
    model: ModelFolder = check_folder(folder, key=key)
    return BaseFiles(
        source=spec.model,
        revision=revision,
        folder=folder,
        config=model.config,
        family=model.family,
        fingerprint=fingerprint(model, cache=cache),
    )


def _locate(spec: BaseSpec, cache: Path, key: str) -> tuple[Path, str | None]:
    place = Path.home() / spec.model[2:] if spec.model.startswith("~/") else Path(spec.model)
    is_package, is_folder = spec.model.startswith(PACKAGE), place.is_absolute() or place.is_dir()
    if (is_package or is_folder) and spec.revision is not None:
        raise ModelError("only a model of the hub has a revision", key="base.revision", cure="remove the key")
    if is_package:
        package, _, file = spec.model.removeprefix(PACKAGE).partition("/")
        return converted_folder(find_in_package(package, file, key=key), cache=cache), None
    if place.is_file():
        cure = "name the model's folder; a GGUF file is read out of an installed package only"
        raise ModelError("a file, not a model's folder", where=str(place), key=key, cure=cure)
    if is_folder:
        return place, None
    if not HUB_ID.fullmatch(spec.model) or place.suffix == ".gguf":
        cure = "name an existing folder, a hub id such as EleutherAI/pythia-160m, or package:NAME/FILE.gguf"
        raise ModelError(f"no such model '{spec.model}'", key=key, cure=cure)
    return hub.fetch(spec.model, spec.revision, key=key)
