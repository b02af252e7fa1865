"""What an adapter folder says of itself, for a list of many."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_kit.artifacts.adapter import WEIGHTS, SavedAdapter
from lora_kit.artifacts.run_dir import RunDir
from lora_kit.assemble import base_facts, saved_adapter
from lora_kit.errors import LoraKitError
from lora_kit.model.adapter_settings import spec_of


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """An adapter in a list.

    Args:
        name: Of its run or folder.
        folder: Where it is.
        problem: Why it can't be used; empty if it can.
        rank: Of its matrices.
        alpha: Its scaling is alpha / rank, or alpha / sqrt(rank) if rank-stabilized.
        variant: ``rank-stabilized``, ``DoRA``, ``loftq`` ... or nothing.
        targets: Layers it is on, as peft names them.
        base: Where its base came from.
        template: Of its prompts.
        bytes: Size of its weights.
    """

    name: str
    folder: str
    problem: str = ""
    rank: int | None = None
    alpha: float | None = None
    variant: str = ""
    targets: tuple[str, ...] = ()
    base: str | None = None
    template: str | None = None
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def facts_of(name: str, saved: SavedAdapter) -> AdapterFacts:
    """Collect what an open adapter says.

    Raises:
        ModelError: Its configuration is not one that lora_kit knows.
    """
    spec = spec_of(saved.config)
    variants = [name for name, on in (("rank-stabilized", spec.rank_stabilized), ("DoRA", spec.dora)) if on]
    return AdapterFacts(
        name=name,
        folder=str(saved.folder),
        rank=spec.rank,
        alpha=spec.alpha,
        variant=", ".join([*variants, *([saved.init] if saved.init != "default" else [])]),
        targets=tuple(spec.targets),
        base=base_facts(saved).get("source") or saved.config.get("base_model_name_or_path"),
        template=saved.provenance.get("template", {}).get("name"),
        bytes=(saved.folder / WEIGHTS).stat().st_size,
    )


def adapters_in(folder: Path) -> list[AdapterFacts]:
    """Find the adapters of the runs, and the adapter folders, right below a folder; it may be one itself."""
    places = [folder, *sorted(folder.iterdir())] if folder.is_dir() else []
    found = []
    for place in places:
        own = RunDir(place).adapter if (place / "run.json").is_file() else place
        if not (own / "adapter_config.json").is_file():
            continue
        name = place.resolve().name
        try:
            found.append(facts_of(name, saved_adapter(place)))
        except LoraKitError as error:
            found.append(AdapterFacts(name=name, folder=str(own), problem=error.problems[0].found))
    return found
