"""Two answers, one token; its probabilities are the preference (AlpacaEval 2's weighted judge).

A judge that says m in 55 of 100 cases has said more than "m": the share counts, not the
token. Needs a server that gives log-probabilities, or a model in process.
"""

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.judging.kind import JudgeKind, Ruling, Showing
from lora_kit.harness.judging.wording import worded
from lora_kit.harness.statistics.win_rate import logprob_preference

FIRST, SECOND = "m", "M"
TASK = (
    "You decide which of two answers to a question a careful reader would prefer. "
    "Answer 1 is called m, Answer 2 is called M.\n"
)
FORM = "Reply with the name of the better answer and nothing else: m or M."
REMINDER = "Reply with a single letter: m or M."


def ask(showing: Showing) -> str:
    """Word the question."""
    return worded(showing, TASK, FORM)


def read(reply: ChatReply) -> Ruling | None:
    """Share of probability on each name; none of it on either is no ruling."""
    preference = logprob_preference(reply.top_logprobs or {}, model_shown="second")
    return None if preference is None else Ruling((2.0 - preference, preference - 1.0), "log-probabilities")


JUDGE = JudgeKind(
    name="logprob_pair",
    title="probability that an answer is the better one",
    shown=2,
    summary="preference",
    highest=1.0,
    ask=ask,
    reminder=REMINDER,
    read=read,
    max_tokens=1,
    choices=(FIRST, SECOND),
)
