"""A conversation in the terminal: several turns, words as they come, base and adapter to compare.

What is read and where it is written come from outside, so that the whole loop can be
tested. A model's words are foreign text: control characters never reach the terminal.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from peft import PeftModel

from lora_kit.assemble import Opened
from lora_kit.data.types import Message
from lora_kit.errors import DataError
from lora_kit.harness.engines.llama_cpp_engine import LlamaCppEngine
from lora_kit.model.context import context_tokens
from lora_kit.serve.gguf_stream import GgufStream, stream_gguf
from lora_kit.serve.memory import Memory
from lora_kit.serve.stream import AnswerStream, Sampling, stream_answer
from lora_kit.serve.window import fit_window

Read = Callable[[], str]
Write = Callable[[str], None]


def chat(opened: Opened | LlamaCppEngine, *, read: Read, write: Write, options: Sampling) -> None:
    """Talk until the user leaves: with /exit, at the end of the input, or with Ctrl-C at the prompt.

    Args:
        opened: The model to talk to, or a GGUF file; its adapter, if any, can be switched off and on.
        read: Waits for the user's next line; raises EOFError at the end.
        write: Shows text as it is, without adding a line break.
        options: How answers are made.

    Raises:
        ModelError: The model's scores are not finite.
    """
    session = _Session(opened, write, options)
    session.say("Type a question, or /help. Ctrl-C stops an answer; /exit or Ctrl-D leaves.")
    while True:
        try:
            line = read().strip()
        except (EOFError, KeyboardInterrupt):
            write("\n")
            return
        if line == "/exit":
            return
        try:
            session.handle(line)
        except KeyboardInterrupt:
            session.say("stopped")


class _Session:
    """The state of a conversation."""

    def __init__(self, opened: Opened | LlamaCppEngine, write: Write, options: Sampling) -> None:
        self.opened = opened
        self.write = write
        self.options = options
        self.messages: list[Message] = []
        self.memory = Memory()
        self.adapter_on = self._adapted is not None
        self.commands: dict[str, tuple[Callable[[], None], str]] = {
            "/reset": (self.reset, "forget the conversation"),
            "/again": (self.again, "answer the last question once more"),
            "/base": (self.toggle, "switch the adapter off or on, to compare; the conversation stays"),
            "/tokens": (self.tokens, "show the last prompt, token by token"),
            "/help": (self.help, "show this list"),
        }

    def handle(self, line: str) -> None:
        """Do what a line asks for."""
        word = line.split(" ", maxsplit=1)[0]
        if word in self.commands:
            self.commands[word][0]()
        elif line.startswith("/") and not line.startswith("//"):
            self.say(
                f"there is no command {visible(word)}; /help lists them, // begins a question with a slash"
            )
        elif line:
            self.ask(line.removeprefix("/") if line.startswith("//") else line)

    def say(self, text: str) -> None:
        """Show a remark of ours, apart from the model's words."""
        self.write(f"· {text}\n")

    def ask(self, question: str) -> None:
        """Answer a question, and keep both for the next turns."""
        asked = [*self.messages, Message("user", question)]
        try:
            fitting = self._fit(asked)
            stream = self._stream(fitting)
        except DataError as error:
            self.say(str(error))
            return
        if left_out := (len(asked) - len(fitting)) // 2:
            pairs = "question and its answer" if left_out == 1 else f"{left_out} questions and their answers"
            self.say(f"the oldest {pairs} no longer fit into the model's context and are left out")
        answer = self._show(stream)
        self.messages = [*fitting, Message("assistant", answer)] if answer else fitting[:-1]

    def reset(self) -> None:
        """Forget the conversation."""
        self.messages = []
        self.memory.forget()
        self.say("the conversation is forgotten")

    def again(self) -> None:
        """Ask the last question anew."""
        if not self.messages:
            self.say("there is no question yet")
            return
        question = self.messages[-2].content
        self.messages = self.messages[:-2]
        self.ask(question)

    def toggle(self) -> None:
        """Let the base answer, or the adapter again."""
        if self._adapted is None:
            self.say("this model has no adapter: it is a base, a merged model or a GGUF file")
            return
        self.adapter_on = not self.adapter_on
        self.memory.forget()  # keys and values of the one are not those of the other
        self.say(
            "the adapter is on"
            if self.adapter_on
            else "the adapter is off: the base answers; /base switches back"
        )

    def tokens(self) -> None:
        """Show what the model was given."""
        if not self.messages:
            self.say("there is no prompt yet")
            return
        tokenizer = self.opened.encoder.tokenizer
        ids = self.opened.encoder.encode_prompt(self.messages[:-1])
        self.say(f"{len(ids)} tokens")
        self.write("".join(f"{token:>8}  {visible(repr(tokenizer.decode([token])))}\n" for token in ids))

    def help(self) -> None:
        """List the commands."""
        width = max(map(len, self.commands))
        rows = [f"{name:<{width}}  {text}" for name, (_, text) in self.commands.items()]
        self.write("\n".join([*rows, f"{'/exit':<{width}}  leave", ""]))

    @property
    def _adapted(self) -> PeftModel | None:
        model = self.opened.model if isinstance(self.opened, Opened) else None
        return model if isinstance(model, PeftModel) else None

    def _fit(self, messages: list[Message]) -> list[Message]:
        opened = self.opened
        limit = context_tokens(opened.model.config) if isinstance(opened, Opened) else opened.context_tokens
        longest = self.options.max_new_tokens
        return fit_window(opened.encoder, messages, context_tokens=limit, max_new_tokens=longest)

    def _stream(self, messages: list[Message]) -> AnswerStream | GgufStream:
        if not isinstance(self.opened, Opened):
            return stream_gguf(self.opened, messages, self.options)
        model, encoder = self.opened.model, self.opened.encoder
        return stream_answer(model, encoder, messages, self.options, memory=self.memory)

    def _show(self, stream: AnswerStream | GgufStream) -> str:
        """Write an answer as it grows; Ctrl-C ends it, and what was said so far counts."""
        said: list[str] = []
        self.write(f"{self._speaker()}> ")
        try:
            with self._adapter():
                for piece in stream:
                    said.append(piece)
                    self.write(visible(piece))
        except KeyboardInterrupt:
            self.write(" …")
        self.write("\n")
        if stream.ids and not stream.stopped:
            self.say(f"the answer was cut after {len(stream.ids)} tokens")
        return "".join(said)

    def _speaker(self) -> str:
        if self._adapted is None:
            return "model"
        return "tuned" if self.adapter_on else "base"

    @contextmanager
    def _adapter(self) -> Iterator[None]:
        model = self._adapted
        with nullcontext() if model is None or self.adapter_on else model.disable_adapter():
            yield


def visible(text: str) -> str:
    """Text that can't drive a terminal: control characters but line break and tab are replaced."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )
