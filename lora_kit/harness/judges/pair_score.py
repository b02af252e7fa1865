"""Two answers, two scores from 1 to 10 in the first line: Vicuna's "per cent of ChatGPT" and QLoRA's Table 6.

The other system's answers are the yardstick: the sum of scores over the sum of its scores.
"""

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judge_replies import read_reply
from lora_kit.harness.judging.kind import JudgeKind, Ruling, Showing
from lora_kit.harness.judging.wording import worded

TASK = (
    "You compare two answers to a question. Weigh how helpful, relevant, accurate and detailed each is. "
    "Which one comes first means nothing.\n"
)
FORM = (
    "Reply with one line that holds only two numbers from 1 to 10, the score of Answer 1 and the score of "
    "Answer 2, with a space between them. Explain the scores from the second line on."
)
REMINDER = "The first line of your reply must be two numbers from 1 to 10 and nothing else, such as: 7 5"
STRICT = "first line"


def ask(showing: Showing) -> str:
    """Word the question."""
    return worded(showing, TASK, FORM)


def read(reply: ChatReply) -> Ruling | None:
    """Find the two scores."""
    found = read_reply("pair-score-1-10", reply.text)
    return Ruling(found.value, found.layer) if isinstance(found.value, tuple) else None


JUDGE = JudgeKind(
    name="pair_score",
    title="scores 1-10 of two answers",
    shown=2,
    summary="relative",
    highest=10.0,
    ask=ask,
    reminder=REMINDER,
    read=read,
    max_tokens=1024,
    verdict_first=STRICT,
)
