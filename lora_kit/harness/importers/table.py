"""A plain table, CSV or JSONL: a column of questions, and mostly one of answers.

Read are ``id``, ``category``, ``prompt`` (or question, instruction), ``answer`` (or reference, output),
``context``, ``cluster``, and from JSON also ``weight`` and ``checks``; other columns are left alone.
"""

from lora_kit.data.types import Row
from lora_kit.harness.importer import Importer, Question, Said, first_text, id_field, optional

ANSWERS = ("answer", "reference", "output")


def ask(row: Row, number: int) -> list[Question]:
    """One question a row; a row without an id is called by its number."""
    name = id_field(row, "id") if row.fields.get("id") not in (None, "") else f"{number:03d}"
    has_answer = any(row.fields.get(field) not in (None, "") for field in ANSWERS)
    return [
        Question(
            name,
            optional(row, "category") or "all",
            name,
            (first_text(row, "prompt", "question", "instruction"),),
            row.origin,
            cluster=optional(row, "cluster"),
            fields={
                field: row.fields[field]
                for field in ("context", "weight", "checks")
                if row.fields.get(field) not in (None, "")
            },
            said={"reference": first_text(row, *ANSWERS)} if has_answer else {},
        )
    ]


def answer(row: Row) -> list[Said]:
    """One answer a row, by id."""
    return [Said(optional(row, "model"), id_field(row, "id"), first_text(row, *ANSWERS))]


CSV = Importer("csv", "a table with columns prompt and answer", (), ask, answer)
JSONL = Importer("jsonl", "rows with prompt and answer", (), ask, answer)
