"""The same-tokens certificate: what a chat program will show the model is what it saw in training.

64 conversations go through the training's encoder (twice: as prompts, as chat does, and as whole
conversations) and through every door of the export: the chat template in its tokenizer, the GGUF file's
own tokenizer, Ollama's template out of the Modelfile. One differing id, an extra space or a second BOS, and
nothing is exported. (Good in training and gibberish in the chat program is the commonest complaint about
exports: LlamaFactory issue 6320, ollama issue 6821.)
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lora_kit.data.encode import Encoder
from lora_kit.data.tokenizer import Tokenizer
from lora_kit.data.types import Conversation, Message
from lora_kit.errors import DataError, ModelError

_ASKED = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Sum these numbers: 3, 14, 159 and 2653.",
    "Translate 'good morning' into German, Spanish and Japanese.",
    "Fix this:\n\ndef f(x):\n    if x > 0:\n        return  x * 2",
    "Was heißt „schön“ auf Englisch? Über Bäche, bitte.",
    "你好，请介绍一下你自己。",  # noqa: RUF001
    "Привет! Как дела?",
    "Name 3 things:\n- one\n- two\n\n\nThank you!",
    "Explain \"don't\", it's and we've (as in: they'll say so)...",
    "🙂 emoji and accents: café, naïve, jalapeño 🚀🚀",
    "x = [1, 2, 3]; y = {'a': 1.5e-3}  # what is this?",
    "A  question   with    runs of     spaces and\ttabs",
    "मुझे भारत के बारे में बताओ",
    "What does <b>bold</b> & 50% < 75% mean?",
    "Why?",
)
_ANSWERED = (
    "Paris is the capital of France.",
    "Waves fold into foam,\nsalt on the evening wind,\nthe gulls say nothing.",
    "The sum is 2829.",
    "Certainly: def f(x): return 2 * x if x > 0 else None",
    "Gern geschehen, schöne Grüße!",
)
_SYSTEM = "You are a careful assistant. Answer in one sentence."


@dataclass(frozen=True, slots=True)
class SameTokens:
    """What was compared.

    Args:
        conversations: Number of conversations.
        tokens: Number of token ids that were equal, over all doors.
        doors: Names of the ways that were compared with the training's encoder.
        trims: Whether the template cuts blanks at the ends of messages, which not every program does.
    """

    conversations: int
    tokens: int
    doors: tuple[str, ...]
    trims: bool

    def to_json(self) -> dict[str, Any]:
        """As in certificate.json."""
        return asdict(self)


Door = Callable[[Sequence[Message]], list[int]]


def certificate_conversations(encoder: Encoder, *, count: int = 64) -> list[tuple[Message, ...]]:
    """Conversations of one to three exchanges, with and without a system message if the template takes one.

    All begin and end without blanks and hold no control tokens: those are what programs treat differently
    on purpose.
    """
    conversations = []
    for n in range(count):
        turns: list[Message] = []
        if n % 4 == 3 and _takes_system(encoder):
            turns.append(Message("system", _SYSTEM))
        for exchange in range(1 + n % 3):
            turns.append(Message("user", _ASKED[(n + 5 * exchange) % len(_ASKED)]))
            turns.append(Message("assistant", _ANSWERED[(n + exchange) % len(_ANSWERED)]))
        conversations.append(tuple(turns))
    return conversations


def with_system(encoder: Encoder, messages: Sequence[Message]) -> list[Message]:
    """The messages behind the system prompt that the encoder puts in, for programs that hold none."""
    if encoder.system is None or messages[0].role == "system":
        return list(messages)
    return [Message("system", encoder.system), *messages]


def opens_with_bos(encoder: Encoder) -> bool:
    """Whether programs are to put BOS before a text: the tokenizer does, and prompts begin with it.

    Where the template alone writes it (ChatML's first mark is SmolLM2's BOS) it stays the template's: a
    program that adds BOS would put a turn's mark before every plain text.
    """
    tokenizer = encoder.tokenizer
    return tokenizer.adds_bos and encoder.encode_prompt([Message("user", "?")])[:1] == [tokenizer.bos_id]


def compare_doors(encoder: Encoder, doors: dict[str, Door], *, trims: bool, count: int = 64) -> SameTokens:
    """Send conversations through every door and compare ids.

    Args:
        encoder: As in training.
        doors: Name to a function from messages to ids. Messages that end with a request end where the
            model speaks.
        trims: Goes into the result.
        count: Number of conversations.

    Raises:
        ModelError: Ids differ; names the door, the conversation and the place.
    """
    conversations = certificate_conversations(encoder, count=count)
    tokens = 0
    for conversation in conversations:
        whole = encoder.encode(Conversation(conversation, "certificate")).input_ids
        prompt = encoder.encode_prompt(conversation[:-1])
        if list(whole[: len(prompt)]) != prompt:
            raise ModelError("a prompt is not the beginning of its conversation", key="data.template")
        for name, door in doors.items():
            _same(encoder, name, conversation[:-1], prompt, door)
            tokens += len(prompt)
    return SameTokens(len(conversations), tokens, tuple(doors), trims)


def compare_texts(tokenizer: Tokenizer, encode: Callable[[str], list[int]]) -> int:
    """Compare the ids of plain texts, which a base without a chat template has as well.

    Args:
        tokenizer: The training's.
        encode: The other one; may put BOS in front.

    Returns:
        Number of tokens that were equal.

    Raises:
        ModelError: Ids differ.
    """
    tokens = 0
    for text in (*_ASKED, *_ANSWERED):
        wanted, found = tokenizer.encode_plain(text), encode(text)
        if found[:1] == [tokenizer.bos_id] and wanted[:1] != found[:1]:
            found = found[1:]
        if found != wanted:
            raise ModelError(
                f"the exported tokenizer reads {text[:40]!r} otherwise: "
                f"{tokenizer.decode(found)!r} in {len(found)} tokens instead of {len(wanted)}",
                cure="nothing was exported; please report the tokenizer",
            )
        tokens += len(wanted)
    return tokens


def _same(encoder: Encoder, name: str, messages: Sequence[Message], wanted: list[int], door: Door) -> None:
    found = door(messages)
    if found == wanted:
        return
    at = next((n for n, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), None)
    at = min(len(found), len(wanted)) if at is None else at
    shown = [encoder.tokenizer.decode(ids[max(at - 3, 0) : at + 4]) for ids in (wanted, found)]
    raise ModelError(
        f"{name} gives other tokens than the training: token {at} of {len(wanted)} for "
        f"{messages[-1].content[:40]!r}: {shown[1]!r} instead of {shown[0]!r}",
        cure="nothing was exported; please report the tokenizer and the template",
    )


def _takes_system(encoder: Encoder) -> bool:
    try:
        encoder.encode_prompt([Message("system", _SYSTEM), Message("user", "?")])
    except (DataError, ModelError):
        return False
    return True
