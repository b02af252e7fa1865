"""Messages -> token ids and targets; the one function that training, evaluation and chat share.

Rendered text is cut at control tokens of the template and at the edges of answer spans, and nowhere
else; each piece is encoded as plain text. So (1) ids of a prompt are an exact prefix of the ids of the
conversation that it begins, (2) targets follow from the cuts, never from searching text, and (3)
nothing that is said can become a control token, not even across two adjacent fields.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lora_kit.data.pieces import Ids, Piece, cut, encode_text
from lora_kit.data.template_types import Template
from lora_kit.data.tokenizer import Tokenizer
from lora_kit.data.tokenizer_variants import Place
from lora_kit.data.types import Conversation, Example, Message, Segment
from lora_kit.errors import DataError, ModelError, Problem

# Part of every fingerprint: raise it when the same inputs come to encode otherwise.
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Encoder:
    """Encodes conversations for one tokenizer, template and default system prompt.

    Args:
        tokenizer: Ids of text.
        template: Text of messages.
        system: System prompt for conversations that have none of their own.
    """

    tokenizer: Tokenizer
    template: Template
    system: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides about ids: tokenizer, template, system prompt, this code's version."""
        identity = [_VERSION, self.tokenizer.fingerprint, self.template.fingerprint, self.system]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer: EOS and the template's end mark."""
        return self.tokenizer.stop_ids | self.template.stop_ids

    def encode(self, conversation: Conversation) -> Example:
        """Encode one conversation; see ``encode_many``."""
        return self.encode_many([conversation])[0]

    def encode_many(self, conversations: Sequence[Conversation]) -> list[Example]:
        """Encode conversations that end with an answer, many at once.

        Returns:
            One example for each, in order; an answer turn with ``train=False`` has no targets.

        Raises:
            DataError: Turns are out of order, or the template can't write a conversation; every
                such conversation is named by its origin.
        """
        results = self.try_encode_many(conversations)
        problems = [result for result in results if isinstance(result, Problem)]
        if problems:
            raise DataError.collect(problems)
        return [result for result in results if isinstance(result, Example)]

    def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
        """Encode conversations; those that can't be encoded become problems in their place."""
        everything = [(conversation.messages, conversation.origin) for conversation in conversations]
        found = self._pieces(everything, answered=True)
        ids = encode_text((pieces for pieces in found if not isinstance(pieces, Problem)), self.tokenizer)
        return [
            pieces if isinstance(pieces, Problem) else _example(conversation, pieces, ids)
            for conversation, pieces in zip(conversations, found, strict=True)
        ]

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Encode messages up to the point where the assistant speaks.

        Args:
            messages: The last one is the user's.

        Returns:
            An exact prefix of the ids of every conversation that goes on from these messages.

        Raises:
            DataError: Turns are out of order, or the template can't write them.
        """
        return self.encode_prompts([messages])[0]

    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Encode many prompts at once; see ``encode_prompt``."""
        found = self._pieces([(messages, "") for messages in prompts], answered=False)
        problems = [pieces for pieces in found if isinstance(pieces, Problem)]
        if problems:
            raise DataError.collect(problems)
        usable = [pieces for pieces in found if not isinstance(pieces, Problem)]
        ids = encode_text(usable, self.tokenizer)
        return [[token for piece in pieces for token in piece.tokens(ids)] for pieces in usable]

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Text of generated ids up to the first stop token, without what the template puts around it."""
        end = next((n for n, token in enumerate(ids) if token in self.stop_ids), len(ids))
        text = self.tokenizer.decode(ids[:end], self._answer_place)
        return text.removeprefix(self.template.answer_lead).removesuffix(self.template.answer_tail)

    @cached_property
    def _answer_place(self) -> Place:
        """Where the answer's first piece stands: behind a control token or in the middle of text."""
        [pieces] = self._pieces([((Message("user", "?"),), "")], answered=False)
        after_text = not isinstance(pieces, Problem) and pieces[-1].token < 0
        return Place.MIDDLE if after_text else Place.AFTER_CONTROL

    def _pieces(
        self, everything: Sequence[tuple[Sequence[Message], str]], *, answered: bool
    ) -> list[list[Piece] | Problem]:
        """Check, render and cut each (messages, origin)."""
        checked = [self._checked(messages, origin, answered=answered) for messages, origin in everything]
        usable = [messages for messages in checked if not isinstance(messages, Problem)]
        rendered = iter(self.template.render_many(usable, generation_prompt=not answered))
        return [
            messages if isinstance(messages, Problem) else self._cut(next(rendered), origin)
            for messages, (_, origin) in zip(checked, everything, strict=True)
        ]

    def _cut(self, segments: list[Segment] | ModelError, origin: str) -> list[Piece] | Problem:
        try:
            if isinstance(segments, ModelError):
                raise segments
            return cut(segments, self.tokenizer)
        except ModelError as error:
            problem = error.problems[0]
            return replace(problem, where=origin or problem.where)

    def _checked(
        self, messages: Sequence[Message], origin: str, *, answered: bool
    ) -> list[Message] | Problem:
        """Put the system prompt in front, and see that user and assistant take turns."""
        turns = list(messages)
        has_own = bool(turns) and turns[0].role == "system"
        system = [turns.pop(0)] if has_own else []
        if self.system is not None and not has_own:
            system = [Message("system", self.system)]
        for n, message in enumerate(turns):
            expected = "assistant" if n % 2 else "user"
            if message.role != expected:
                key = f"messages[{n + has_own}].role"
                return Problem(f"expected '{expected}', found '{message.role}'", origin, key)
        for n, message in enumerate(messages):
            if not _is_unicode(message.content + message.context):
                return Problem("holds a lone surrogate, half a character", origin, f"messages[{n}].content")
        if not turns or (len(turns) % 2 == 0) != answered:
            wanted = "an assistant" if answered else "a user"
            return Problem(
                f"the last of {len(messages)} messages is not {wanted} message", origin, "messages"
            )
        return system + turns


def content_hash(conversation: Conversation) -> str:
    """Hash what is said and what is trained, 64 hex digits; blind to origin and group."""
    turns = [[m.role, m.content, m.context, m.train] for m in conversation.messages]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _example(conversation: Conversation, pieces: Sequence[Piece], ids: Ids) -> Example:
    train = [message.train for message in conversation.messages if message.role == "assistant"]
    input_ids: list[int] = []
    trained: list[bool] = []
    last = -1
    for place, text, token, answer in pieces:
        tokens = ids[place][text] if token < 0 else (token,)
        input_ids += tokens
        trained += [answer >= 0 and train[answer]] * len(tokens)
        last = max(last, answer)
    assert last == len(train) - 1
    return Example(tuple(input_ids), tuple(trained), conversation.origin, content_hash(conversation))
