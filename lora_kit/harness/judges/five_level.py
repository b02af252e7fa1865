"""Two answers, five verdicts from A>>B to B>>A; a clear one counts three times.

Arena-Hard's scale (arXiv 2406.11939).
"""

import re

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judging.kind import JudgeKind, Ruling, Showing
from lora_kit.harness.judging.wording import worded

TASK = (
    "You compare two answers to a question. A is Answer 1, B is Answer 2. First answer the question in a few "
    "words of your own, look for mistakes in both, then say which helps more. Order and length don't count.\n"
)
FORM = (
    "End with one of these five verdicts in double brackets: [[A>>B]] A is clearly better, [[A>B]] slightly "
    "better, [[A=B]] equal, [[B>A]] B is slightly better, [[B>>A]] clearly better."
)
REMINDER = "Your reply must end with exactly one of [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]]."
CLEAR_WEIGHT = 3.0
RULINGS = {
    "A>>B": ((1.0, 0.0), CLEAR_WEIGHT),
    "A>B": ((1.0, 0.0), 1.0),
    "A=B": ((0.5, 0.5), 1.0),
    "B>A": ((0.0, 1.0), 1.0),
    "B>>A": ((0.0, 1.0), CLEAR_WEIGHT),
}


def ask(showing: Showing) -> str:
    """Word the question."""
    return worded(showing, TASK, FORM)


def read(reply: ChatReply) -> Ruling | None:
    """Find the verdict: tagged anywhere, or bare on the last line; two different ones are none."""
    tagged = set(re.findall(r"\[\[(A>{1,2}B|A=B|B>{1,2}A)\]\]", reply.text))
    if tagged:
        return _ruling(tagged.pop(), "tagged") if len(tagged) == 1 else None
    last = reply.text.strip().rpartition("\n")[2].strip()
    return _ruling(last, "last line") if last in RULINGS else None


def _ruling(verdict: str, layer: str) -> Ruling:
    scores, weight = RULINGS[verdict]
    return Ruling(scores, layer, weight)


JUDGE = JudgeKind(
    name="five_level",
    title="five verdicts from much better to much worse",
    shown=2,
    summary="preference",
    highest=1.0,
    ask=ask,
    reminder=REMINDER,
    read=read,
    max_tokens=1024,
    votes={str(at): f"[[{verdict}]]" for at, verdict in enumerate(RULINGS, start=1)},
)
