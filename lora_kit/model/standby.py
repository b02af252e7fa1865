"""Modules on standby: imported by whoever uses something of them, not by whoever might.

peft imports bitsandbytes with itself, which takes a second (torch's compiler wraps its functions), for
nothing where no weight is quantized. ``transformers.models`` looks through its 450 folders to learn what each
defines, half a second that nobody needs who imports a folder by its name. ``importlib.util.LazyLoader``
doesn't do: it imports as soon as a library asks whether the module is there, which peft, transformers and
accelerate do by its ``__spec__``.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

NAME = "bitsandbytes"
FAMILIES = "transformers.models"
_lock = RLock()


class _Standby(ModuleType):
    """A module that is executed when a name is asked for that only its code can give it."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        spec = self.__spec__
        if spec is None or spec.loader is None:
            raise AttributeError(name)
        with _lock:
            if type(self) is _Standby:
                self.__class__ = _Executed  # type: ignore[assignment]
                self.__dict__["__path__"] = spec.submodule_search_locations
                try:
                    spec.loader.exec_module(self)
                except BaseException:  # as for any import that fails: the next one tries again
                    sys.modules.pop(spec.name, None)
                    raise
        return getattr(self, name)


class _Executed(ModuleType):
    """A module that stood by; its code may have put another one into its place, as transformers' does."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        now = sys.modules.get(self.__name__, self)
        if now is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(now, name)


def stand_by() -> bool:
    """Let the next ``import bitsandbytes`` be quick; anything that is taken from it then imports it.

    Returns:
        Whether it stands by: not if it isn't installed, or was imported before.
    """
    spec = None if NAME in sys.modules else find_spec(NAME)
    if spec is None:
        return False
    # A path is asked for by an import of a part, before which the whole has to be there.
    del _put(spec).__path__
    return True


def families_stand_by() -> bool:
    """Let ``import transformers.models.llama`` and the like be quick; whatever else is taken imports all.

    Returns:
        Whether they stand by: not if transformers isn't installed, or they were imported before.
    """
    parent = None if FAMILIES in sys.modules else find_spec(FAMILIES.partition(".")[0])
    spec = parent and PathFinder.find_spec(FAMILIES, parent.submodule_search_locations)
    if spec is None or spec.loader is None:
        return False
    _put(spec)
    return True


def _put(spec: ModuleSpec) -> ModuleType:
    module = module_from_spec(spec)
    module.__class__ = _Standby
    sys.modules[spec.name] = module
    return module


@contextmanager
def without_quantized_layers() -> Iterator[None]:
    """Keep peft from looking for layers of bitsandbytes in a model that has none, for which it imports it."""
    if type(sys.modules.get(NAME)) is not _Standby:
        yield
        return
    from peft.tuners.lora import model as dispatching

    asked = {name: getattr(dispatching, name) for name in ("is_bnb_available", "is_bnb_4bit_available")}
    for name in asked:
        setattr(dispatching, name, lambda: False)
    try:
        yield
    finally:
        for name, true in asked.items():
            setattr(dispatching, name, true)
