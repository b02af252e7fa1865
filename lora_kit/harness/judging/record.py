"""One line of judgments.jsonl: who was asked what about whom, and every word of the reply.

The ruling is in it for readers of the file; we read the reply again each time, so that a
better reader mends old judgments without asking anybody.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judging.backend import JudgeBackend, Question

JOURNAL = "judgments.jsonl"


def record_of(question: Question, reply: ChatReply, judge: JudgeBackend) -> dict[str, Any]:
    """A reply as JSON data."""
    ruling = question.kind.ruling(reply)
    return {
        "kind": question.kind.name,
        "judge": {"host": judge.host, "model": judge.model, "answered_by": reply.model},
        "item": question.showing.prompt.id,
        "shown": list(question.showing.players),
        "attempt": question.attempt,
        "scores": list(ruling.scores) if ruling else None,
        "layer": ruling.layer if ruling else "",
        "reply": reply.text,
        "finish": reply.finish,
        "refusal": reply.refusal,
        "top_logprobs": dict(reply.top_logprobs) if reply.top_logprobs is not None else None,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def reply_of(record: Mapping[str, Any]) -> ChatReply:
    """The reply of a record."""
    logprobs = record.get("top_logprobs")
    return ChatReply(
        text=str(record["reply"]),
        model=str(record["judge"]["answered_by"]),
        finish=str(record["finish"]),
        refusal=str(record["refusal"]),
        top_logprobs={k: v for k, v in logprobs.items() if math.isfinite(v)}
        if logprobs is not None
        else None,
        prompt_tokens=record["prompt_tokens"],
        completion_tokens=record["completion_tokens"],
    )
