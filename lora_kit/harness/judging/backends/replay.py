"""A record of earlier judgments as the judge: nobody is asked, so a table can be made again offline.

Reads our own ``judgments.jsonl`` (by request), and published records with the judge's words
by prompt and names: ``{"item_id", "a", "b", "raw"}``, ``a`` shown first.
"""

from collections.abc import Sequence
from pathlib import Path

from lora_kit.data.sources import read_rows
from lora_kit.data.types import Row
from lora_kit.errors import DataError
from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.client import ChatFailureError
from lora_kit.harness.judging.backend import Answers, Question
from lora_kit.harness.judging.record import reply_of


class ReplayJudge:
    """Earlier replies.

    Args:
        path: The record.
        model: Whose replies they are.

    Raises:
        DataError: It can't be read, or a row is of neither form.
    """

    host = "replay"
    costs = False

    def __init__(self, path: Path, model: str) -> None:
        self.model = model
        self._replies: dict[object, ChatReply] = {}
        for row in read_rows(path):
            self._replies.update(_entries(row))

    def answer(self, questions: Sequence[Question]) -> Answers:
        """Look each question up; what is not there is a failure."""
        for index, question in enumerate(questions):
            place = (question.showing.prompt.id, *question.showing.players, question.attempt)
            reply = self._replies.get((question.kind.name, *place)) or self._replies.get(("", *place))
            missing = ChatFailureError("not in the record", is_final=True, is_about_one=True)
            yield index, reply if reply is not None else missing

    def close(self) -> None:
        """Nothing to let go of."""


def _entries(row: Row) -> dict[object, ChatReply]:
    fields = row.fields
    if {"item_id", "a", "b", "raw"} <= set(fields):
        return {("", str(fields["item_id"]), fields["a"], fields["b"], 1): ChatReply(str(fields["raw"]))}
    try:
        place = (fields["kind"], fields["item"], *fields["shown"], fields["attempt"])
        return {place: reply_of(fields)}
    except (KeyError, TypeError, AttributeError):
        found = "neither a judgment of ours nor {item_id, a, b, raw}"
        raise DataError(found, where=row.origin) from None
