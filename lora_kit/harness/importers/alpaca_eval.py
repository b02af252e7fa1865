"""AlpacaEval: a model's outputs, or annotations with the outputs of two; rows are known by their instruction.

In annotations the first output is the baseline's, and becomes the reference.
"""

from lora_kit.data.types import Row
from lora_kit.harness.importer import Importer, Question, Said, first_text, optional


def ask(row: Row, number: int) -> list[Question]:
    """One question a row, numbered."""
    instruction = first_text(row, "instruction")
    said = {one.model or f"output {at}": one.text for at, one in enumerate(answer(row), 1)}
    name, category = f"ae-{number:03d}", optional(row, "dataset") or "all"
    return [Question(name, category, instruction, (instruction,), row.origin, said=said)]


def answer(row: Row) -> list[Said]:
    """One output, or two."""
    key = first_text(row, "instruction")
    suffixes = ("_1", "_2") if "output_1" in row.fields else ("",)
    return [
        Said(optional(row, f"generator{end}"), key, optional(row, f"output{end}"))
        for end in suffixes
        if f"output{end}" in row.fields
    ]


IMPORTER = Importer(
    "alpaca_eval", "AlpacaEval: outputs or annotations", ("instruction", "generator"), ask, answer
)
