"""MT-bench: 80 questions of two turns, with answers in ``choices[0].turns``.

Each turn becomes a prompt of its own, both of one cluster. Before the second turn stands the first answer of
the *reference*, so that all models continue one conversation; in MT-bench each continues its own. Scores of
second turns are therefore not comparable with published ones.
"""

from lora_kit.data.format import list_field
from lora_kit.data.types import Row
from lora_kit.errors import DataError
from lora_kit.harness.importer import Importer, Question, Said, id_field, optional


def ask(row: Row, _: int) -> list[Question]:
    """One prompt a turn."""
    name, turns = id_field(row, "question_id", "id"), _texts(row, "turns")
    references = _texts(row, "reference") if row.fields.get("reference") else ()
    ids = [f"{name}-{at + 1}" for at in range(len(turns))]
    return [
        Question(
            ids[at],
            optional(row, "category") or "all",
            ids[at],
            turns[: at + 1],
            row.origin,
            earlier=tuple(ids[:at]),
            cluster=name,
            said={"reference": references[at]} if at < len(references) else {},
        )
        for at in range(len(turns))
    ]


def answer(row: Row) -> list[Said]:
    """The turns of the first choice, as FastChat's judge reads them."""
    name, model = id_field(row, "question_id", "id"), optional(row, "model_id")
    choice = list_field(row, "choices")[0]
    if not isinstance(choice, dict):
        raise DataError("must be an object with turns", where=row.origin, key="choices[0]")
    turns = _texts(Row(choice, row.origin), "turns")
    return [Said(model, f"{name}-{at + 1}", text) for at, text in enumerate(turns)]


def _texts(row: Row, name: str) -> tuple[str, ...]:
    values = list_field(row, name)
    for at, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError("must be text", where=row.origin, key=f"{name}[{at}]")
    return tuple(str(value) for value in values)


IMPORTER = Importer("mt_bench", "MT-bench: questions of two turns", ("question_id", "turns"), ask, answer)
