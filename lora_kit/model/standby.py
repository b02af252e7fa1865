"""bitsandbytes on standby: imported by whoever uses something of it, not by whoever might.

peft imports it with itself, which takes a second (torch's compiler wraps its functions), for nothing where
no weight is quantized. ``importlib.util.LazyLoader`` doesn't do: it imports as soon as a library asks whether
the module is there, which peft, transformers and accelerate do by its ``__spec__``.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

NAME = "bitsandbytes"
_lock = RLock()


class _Standby(ModuleType):
    """A module that is executed when a name is asked for that only its code can give it."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        spec = self.__spec__
        if spec is None or spec.loader is None:
            raise AttributeError(name)
        with _lock:
            if type(self) is _Standby:
                self.__class__ = ModuleType  # type: ignore[assignment]
                self.__dict__["__path__"] = spec.submodule_search_locations
                try:
                    spec.loader.exec_module(self)
                except BaseException:  # as for any import that fails: the next one tries again
                    sys.modules.pop(spec.name, None)
                    raise
        return getattr(self, name)


def stand_by() -> bool:
    """Let the next ``import bitsandbytes`` be quick; anything that is taken from it then imports it.

    Returns:
        Whether it stands by: not if it isn't installed, or was imported before.
    """
    if NAME in sys.modules:
        return False
    spec = find_spec(NAME)
    if spec is None:
        return False
    module = module_from_spec(spec)
    del module.__path__  # asked for by an import of a part, before which the whole has to be there
    module.__class__ = _Standby
    sys.modules[NAME] = module
    return True


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
