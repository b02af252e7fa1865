"""Two answers, which is better or neither: QLoRA's three classes, asked in both orders. The default."""

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judge_replies import read_reply
from lora_kit.harness.judging.kind import JudgeKind, Ruling, Showing
from lora_kit.harness.judging.wording import worded

TASK = (
    "You decide which of two answers to a question is better: more helpful, more accurate, closer to what "
    "was asked. Neither the order of showing nor length counts.\n"
)
FORM = (
    "Give your reasons in a few sentences. Then end with a line that holds a single number: 1 if Answer 1 is "
    "better, 2 if Answer 2 is better, 3 if they are equally good."
)
REMINDER = "The last line of your reply must be only 1, 2 or 3."
SCORES = {"a": (1.0, 0.0), "tie": (0.5, 0.5), "b": (0.0, 1.0)}


def ask(showing: Showing) -> str:
    """Word the question."""
    return worded(showing, TASK, FORM)


def read(reply: ChatReply) -> Ruling | None:
    """Find the verdict."""
    found = read_reply("pairwise-3class", reply.text)
    return Ruling(SCORES[found.value], found.layer) if isinstance(found.value, str) else None


JUDGE = JudgeKind(
    name="pairwise",
    title="the better of two answers, or a tie",
    shown=2,
    summary="preference",
    highest=1.0,
    ask=ask,
    reminder=REMINDER,
    read=read,
    max_tokens=512,
    votes={"1": "1", "2": "2", "3": "3"},
)
