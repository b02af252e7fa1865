"""Making overlong examples fit without touching what they teach.

Characters are cut from the start of the first user turn: first of its context,
then of its question, of which at least one character stays. Every other turn,
all control tokens, the answers and their end marks stay whole, because the
shortened conversation is encoded anew. A bisection finds how little has to go,
for all conversations of a batch side by side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lora_kit.data.types import Conversation, Example
from lora_kit.errors import Problem

EncodeMany = Callable[[Sequence[Conversation]], Sequence[Example | Problem]]


@dataclass(slots=True)
class _Search:
    """How many characters to cut: more than `too_few`, at most `enough`, for which `best` is known."""

    conversation: Conversation
    place: int
    too_few: int
    enough: int
    best: Example | None = None

    @property
    def trial(self) -> int:
        """Characters to cut next; the most possible at first, then the middle."""
        return self.enough if self.best is None else (self.too_few + self.enough) // 2

    def shortened(self) -> Conversation:
        """Return the conversation to try next."""
        prompt = self.conversation.messages[self.place]
        content = prompt.content[max(self.trial - len(prompt.context), 0) :]
        shorter = replace(prompt, context=prompt.context[self.trial :], content=content)
        before, after = self.conversation.messages[: self.place], self.conversation.messages[self.place + 1 :]
        return replace(self.conversation, messages=(*before, shorter, *after))

    def learn(self, result: Example | Problem, max_tokens: int) -> bool:
        """Take the trial's result; return whether to go on."""
        if isinstance(result, Example) and len(result.input_ids) <= max_tokens:
            self.enough, self.best = self.trial, result
        elif self.best is None:
            return False
        else:
            self.too_few = self.trial
        return self.enough - self.too_few > 1


def cut_prompts(
    conversations: Sequence[Conversation], encode_many: EncodeMany, max_tokens: int
) -> list[Example | None]:
    """Encode conversations with as much of their first prompts as fits.

    Args:
        conversations: Each too long as it is.
        encode_many: The run's encoder, one result for each conversation.
        max_tokens: Longest example allowed, in tokens.

    Returns:
        An example for each, in order; None where even one character of the prompt is too much.
    """
    searches = [_search(conversation) for conversation in conversations]
    active = [search for search in searches if search is not None]
    while active:
        results = encode_many([search.shortened() for search in active])
        active = [
            search for search, result in zip(active, results, strict=True) if search.learn(result, max_tokens)
        ]
    return [None if search is None else search.best for search in searches]


def _search(conversation: Conversation) -> _Search | None:
    for place, message in enumerate(conversation.messages):
        if message.role == "user":
            most = max(len(message.context) + len(message.content) - 1, 0)
            return _Search(conversation, place, 0, most)
    return None
