"""One answer beside a correct one, one score from 1 to 10 (MT-bench's reference-guided grading).

For questions with a right answer: a judge that sees it is not fooled by a confident wrong one.
"""

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judge_replies import read_reply
from lora_kit.harness.judging.kind import JudgeKind, Ruling, Showing
from lora_kit.harness.judging.wording import worded

TASK = (
    "You grade an answer to a question, knowing a correct answer. First name what the answer gets wrong or "
    "leaves out compared with the correct one; other words for the same thing are no mistake.\n"
)
FORM = "Then end with the grade from 1 (wrong) to 10 (as right as the correct answer) like this: [[5]]"
REMINDER = "Your reply must end with exactly one grade from 1 to 10 in double brackets, such as [[5]]."


def ask(showing: Showing) -> str:
    """Word the question."""
    return worded(showing, TASK, FORM, gold=True)


def read(reply: ChatReply) -> Ruling | None:
    """Find the grade."""
    found = read_reply("single-1-10", reply.text)
    return Ruling((found.value,), found.layer) if isinstance(found.value, float) else None


JUDGE = JudgeKind(
    name="reference_guided",
    title="grade 1-10 of one answer beside a correct one",
    shown=1,
    summary="scores",
    highest=10.0,
    ask=ask,
    reminder=REMINDER,
    read=read,
    max_tokens=512,
    votes={str(grade): f"[[{grade}]]" for grade in range(1, 11)},
    needs_gold=True,
)
