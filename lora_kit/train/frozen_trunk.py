"""``engine.trunk_cache``: the frozen layers' output on disk; how much that is, is told before it begins."""

from collections.abc import Mapping, Sequence

from peft import PeftModel

from lora_kit.artifacts.disk import free_bytes, readable_bytes
from lora_kit.errors import MachineError
from lora_kit.model.engine import keep_trunk
from lora_kit.model.trunk import KEY, find_trunk
from lora_kit.model.trunk_cache import CURE, HEAD_BYTES, TrunkCache, sweep, trunk_cache
from lora_kit.train.observe import Observer


def use_trunk_cache(
    model: PeftModel,
    lengths: Sequence[int],
    observer: Observer,
    *,
    flattened: bool,
    identity: Mapping[str, object],
) -> TrunkCache:
    """Let a model start from what its frozen layers gave before, and say what that takes on disk.

    Args:
        model: The model with its adapter.
        lengths: Tokens of each row that will be computed, held-out ones too.
        observer: Whom to tell.
        flattened: The family's flag.
        identity: What the states depend on besides this code: base, quantization, runtime.

    Raises:
        ModelError: There is no frozen trunk, or it is random.
        MachineError: The disk has too little room.
    """
    trunk = find_trunk(model, flattened=flattened)
    cache = trunk_cache(trunk, identity)
    cache.hold()
    sweep(cache.folder)
    there = cache.stored_bytes()
    needed = sum(lengths) * cache.token_bytes + len(lengths) * HEAD_BYTES
    free = free_bytes(cache.folder)
    if needed - there > free:
        wanted = readable_bytes(needed - there)
        raise MachineError(
            f"the frozen trunk takes {wanted} more on disk, and {readable_bytes(free)} are free",
            where=str(cache.folder),
            key=KEY,
            cure=CURE,
        )
    observer.phase(
        f"the lowest {trunk.depth} layers are computed once a row and kept: up to {readable_bytes(needed)} "
        f"on disk, {readable_bytes(min(there, needed))} of it there already ({cache.folder})"
    )
    keep_trunk(model, cache)
    return cache
