"""What a chat server answered, checked field by field; nothing of it is trusted to have the right type."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ChatReply:
    """One answer.

    Args:
        text: What was said; empty if nothing was.
        model: Who says that it answered; empty if it does not say.
        finish: ``stop``, ``length`` (cut at the limit), ``content_filter``, or whatever the server calls it.
        refusal: Words of a refusal that the server keeps apart from the text.
        top_logprobs: Token to natural log-probability at the first position; None if there are none.
        prompt_tokens: As the server counts; None if it does not.
        completion_tokens: Likewise.
    """

    text: str
    model: str = ""
    finish: str = "stop"
    refusal: str = ""
    top_logprobs: Mapping[str, float] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class NotAReplyError(ValueError):
    """The body is not a chat completion."""


def read_chat_reply(body: bytes) -> ChatReply:
    """Read the body of a 200.

    A completion without choices, or with null for content, is a reply that says nothing; it is for the reader
    of the reply to say that it can't be read.

    Raises:
        NotAReplyError: Not JSON (a stream of events, a cut body, a page of a proxy), an error inside a 200,
            or no completion.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAReplyError(f"not JSON: {body[:60].decode('utf-8', 'replace')!r}") from None
    if not isinstance(answer, dict):
        raise NotAReplyError("not a chat completion")
    if answer.get("error"):
        raise NotAReplyError(f"an error inside a 200: {error_text(body)}")
    if not isinstance(answer.get("choices"), list):
        raise NotAReplyError("not a chat completion: no choices")
    choice = _mapping(next(iter(answer["choices"]), None))
    message, usage = _mapping(choice.get("message")), _mapping(answer.get("usage"))
    return ChatReply(
        text=_text(message.get("content")),
        model=_text(answer.get("model")),
        finish=_text(choice.get("finish_reason")),
        refusal=_text(message.get("refusal")),
        top_logprobs=_top_logprobs(choice),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def error_text(body: bytes, longest: int = 200) -> str:
    """What an error body says, in one short printable line."""
    text = body.decode("utf-8", "replace")
    try:
        found = _mapping(json.loads(text)).get("error")
        text = _text(_mapping(found).get("message")) or _text(found) or text
    except (ValueError, RecursionError):
        pass
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """Text, or a list of parts with text, as one string."""
    if isinstance(value, list):
        return "".join(_text(_mapping(part).get("text")) for part in value)
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _top_logprobs(choice: Mapping[str, Any]) -> dict[str, float] | None:
    tokens = _mapping(choice.get("logprobs")).get("content")
    if not isinstance(tokens, list) or not tokens:
        return None
    entries = _mapping(tokens[0]).get("top_logprobs")
    found = [_mapping(entry) for entry in entries] if isinstance(entries, list) else []
    return {
        _text(entry.get("token")): float(entry["logprob"])
        for entry in found
        if isinstance(entry.get("logprob"), int | float) and math.isfinite(entry["logprob"])
    }
