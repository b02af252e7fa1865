"""What results.json says of each judgment, and a hash of the words that it was asked with."""

import hashlib
from typing import Any

from lora_kit.harness.judging.asking import Judgment
from lora_kit.harness.judging.kind import JudgeKind, Prompt, Showing


def verdict_of(judgment: Judgment) -> dict[str, Any]:
    """One judgment as results.json lists it: the ruling, and where in the journal the words are."""
    ruling = judgment.ruling
    return {
        "item": judgment.showing.prompt.id,
        "shown": list(judgment.showing.players),
        "status": judgment.status,
        "scores": list(ruling.scores) if ruling else None,
        "weight": ruling.weight if ruling else None,
        "layer": ruling.layer if ruling else "",
        "why": judgment.why,
        "keys": list(judgment.keys),
    }


def prompt_hash(kind: JudgeKind) -> str:
    """Hash (16 hex) of how a kind words its questions and its reminder, whatever is judged."""
    prompt = Prompt("id", "", "id", "QUESTION", "GOLD")
    players, answers = ("A", "B")[: kind.shown], ("ANSWER 1", "ANSWER 2")[: kind.shown]
    text = f"{kind.ask(Showing(prompt, players, answers))}\0{kind.reminder}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
