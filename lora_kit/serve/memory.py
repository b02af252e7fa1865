"""Keys and values of a conversation, kept from turn to turn, so that only new text is computed.

What a position holds depends on the tokens up to it alone (causal attention), so the
longest common beginning of the old tokens and the new prompt can always be reused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lora_kit.model.kv_cache import KeyValueCache


@dataclass(slots=True)
class Memory:
    """A key-value cache and the tokens that are in it.

    Whoever takes the cache has it alone: after an exception or an interrupt in the
    middle of a layer nothing is put back, and the next turn starts from an empty one.

    Args:
        tokens: Ids of the cached positions.
        cache: Keys and values; None if nothing is kept.
    """

    tokens: list[int] = field(default_factory=list)
    cache: KeyValueCache | None = None

    def take(self, prompt: Sequence[int]) -> tuple[KeyValueCache, int]:
        """Hand out the cache for a prompt, and forget it.

        Args:
            prompt: Ids, at least one.

        Returns:
            The cache, and how many tokens of the prompt are in it: never all, since the last one has to be
            computed for its prediction. What else it holds is overwritten.
        """
        cache, tokens = self.cache, self.tokens
        self.forget()
        if cache is None:
            return KeyValueCache(slots=1), 0
        most = min(len(tokens), len(prompt) - 1)
        return cache, next((at for at in range(most) if tokens[at] != prompt[at]), most)

    def put(self, tokens: Sequence[int], cache: KeyValueCache) -> None:
        """Keep a cache that holds exactly these tokens."""
        self.tokens, self.cache = list(tokens), cache

    def forget(self) -> None:
        """Start the next turn from nothing."""
        self.tokens, self.cache = [], None
