"""A table of names, loaded only when one is asked for.

Plug-ins are plain values in modules; a registry holds ``name -> "module:object"``
strings, so that listing names imports nothing and a typo gets an answer.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from lora_kit.errors import LoraKitError


def did_you_mean(name: str, known: list[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the closest known name, or ``""``."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


class Registry(Mapping[str, Any]):
    """Lazy mapping from a name to a plug-in.

    Args:
        kind: What the names are, in the singular: ``"data format"``.
        entries: Name to ``"package.module:object"``.
        error: The class that an unknown name raises.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], error: type[LoraKitError]) -> None:
        self.kind = kind
        self.entries = dict(entries)
        self.error = error

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - each table documents its own value type
        """Import and return the plug-in.

        Raises:
            LoraKitError: The registry's own error class, for an unknown name.
        """
        if name not in self.entries:
            known = ", ".join(self.entries)
            hint = did_you_mean(name, list(self.entries))
            raise self.error(f"no {self.kind} '{name}'", cure=f"{hint} known: {known}".strip())
        module, _, attribute = self.entries[name].partition(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
