"""Vicuna's 80 questions and the answers to them, as FastChat and QLoRA keep them.

Questions are ``{question_id, text, category}``, answers ``{question_id, text, model_id}``; copies with the
plain names ``id``, ``prompt`` and ``answer`` are read too.
"""

from lora_kit.data.types import Row
from lora_kit.harness.importer import Importer, Question, Said, first_text, id_field, optional


def ask(row: Row, _: int) -> list[Question]:
    """One question a row."""
    name = id_field(row, "question_id", "id")
    category = optional(row, "category") or "all"
    return [Question(name, category, name, (first_text(row, "text", "prompt"),), row.origin)]


def answer(row: Row) -> list[Said]:
    """One answer a row; an empty one is an answer too, and is left for a reader to see."""
    text = optional(row, "answer") if "answer" in row.fields else optional(row, "text")
    return [Said(optional(row, "model_id"), id_field(row, "question_id", "id"), text)]


IMPORTER = Importer("vicuna", "Vicuna-80: questions and answers", ("question_id", "text"), ask, answer)
