"""One answer, five plain questions about it; its score is the share of yes.

Small judges that can't keep a scale of ten apart can say yes or no. Every question must
be answered: a missing one is no "no".
"""

import re

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judging.kind import JudgeKind, Ruling, Showing
from lora_kit.harness.judging.wording import worded

QUESTIONS = (
    "Does the answer address what was asked, all of it?",
    "Is everything that it states correct, as far as you can tell?",
    "Does it keep to the form, length and language that were asked for?",
    "Is it free of repetition, filler and text that was cut?",
    "Could the one who asked act on it without asking again?",
)
TASK = "You check an answer to a question against a list.\n"
FORM = "\n".join(
    [
        "Reply with one line for each point, its number and yes or no, such as `1: yes`:",
        *(f"{number}. {text}" for number, text in enumerate(QUESTIONS, start=1)),
    ]
)
REMINDER = f"Your reply must be {len(QUESTIONS)} lines, each a number, a colon, and yes or no."


def ask(showing: Showing) -> str:
    """Word the question."""
    return worded(showing, TASK, FORM)


def read(reply: ChatReply) -> Ruling | None:
    """Share of yes; None unless each point is answered once, or always the same."""
    found = re.findall(r"^\W*(\d+)\s*[:.)]\W*(yes|no)\b", reply.text, re.MULTILINE | re.IGNORECASE)
    said = {(int(number), word.lower()) for number, word in found}
    if sorted(number for number, _ in said) != list(range(1, len(QUESTIONS) + 1)):
        return None
    return Ruling((sum(word == "yes" for _, word in said) / len(QUESTIONS),), "lines")


JUDGE = JudgeKind(
    name="checklist",
    title="share of a list that an answer fulfils",
    shown=1,
    summary="scores",
    highest=1.0,
    ask=ask,
    reminder=REMINDER,
    read=read,
    max_tokens=128,
)
