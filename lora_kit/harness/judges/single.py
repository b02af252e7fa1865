"""One answer, one score from 1 to 10 (MT-bench's single grading, arXiv 2306.05685)."""

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judge_replies import read_reply
from lora_kit.harness.judging.kind import JudgeKind, Ruling, Showing
from lora_kit.harness.judging.wording import worded

TASK = (
    "You grade an answer to a question. Weigh whether it is right, whether it helps the one who asked, "
    "how deep it goes and how clear it is. Length by itself is no merit.\n"
)
FORM = (
    "Explain your grade in a few sentences, then end with the grade, from 1 (useless) to 10 (perfect), "
    "like this: [[5]]"
)
REMINDER = "Your reply must end with exactly one grade from 1 to 10 in double brackets, such as [[5]]."


def ask(showing: Showing) -> str:
    """Word the question."""
    return worded(showing, TASK, FORM)


def read(reply: ChatReply) -> Ruling | None:
    """Find the grade."""
    found = read_reply("single-1-10", reply.text)
    return Ruling((found.value,), found.layer) if isinstance(found.value, float) else None


JUDGE = JudgeKind(
    name="single",
    title="grade 1-10 of one answer",
    shown=1,
    summary="scores",
    highest=10.0,
    ask=ask,
    reminder=REMINDER,
    read=read,
    max_tokens=512,
    votes={str(grade): f"[[{grade}]]" for grade in range(1, 11)},
)
