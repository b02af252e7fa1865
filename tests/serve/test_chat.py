"""The loop: commands, comparison with the base, interrupts, and nothing that drives the terminal."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lora_kit.assemble import Opened
from lora_kit.data.types import Message
from lora_kit.serve import chat as module
from lora_kit.serve.chat import chat, visible
from lora_kit.serve.pieces import TextPieces
from lora_kit.serve.stream import Sampling, stream_answer

SHORT = Sampling(max_new_tokens=6)


def talk(opened: Opened, *lines: str | BaseException, options: Sampling = SHORT) -> str:
    """Type lines, and return what was shown after the greeting."""
    script: Iterator[str | BaseException] = iter(lines)
    shown: list[str] = []

    def read() -> str:
        line = next(script, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    chat(opened, read=read, write=shown.append, options=options)
    greeting, _, rest = "".join(shown).partition("\n")
    assert "/help" in greeting
    return rest


def answer(opened: Opened, messages: list[Message]) -> str:
    return "".join(stream_answer(opened.model, opened.encoder, messages, SHORT))


def test_each_turn_sees_the_turns_before_it(llama: Opened) -> None:
    first = [Message("user", "what is it?")]
    one = answer(llama, first)
    two = answer(llama, [*first, Message("assistant", one), Message("user", "and that?")])
    shown = talk(llama, "what is it?", "  ", " and that? ")
    assert f"model> {visible(one)}\n" in shown
    assert f"model> {visible(two)}\n" in shown
    assert shown.count("model>") == 2


def test_reset_forgets(llama: Opened) -> None:
    shown = talk(llama, "what is it?", "/reset", "what is it?")
    answers = [part.partition("\n")[0] for part in shown.split("model> ")[1:]]
    assert answers[0] == answers[1]


def test_base_switches_the_adapter_off_and_on(adapted: Opened) -> None:
    question = [Message("user", "what is it?")]
    tuned = answer(adapted, question)
    with adapted.model.disable_adapter():
        base = answer(adapted, question)
    assert base != tuned
    shown = talk(adapted, "what is it?", "/base", "/again", "/base", "/again")
    parts = [f"tuned> {visible(tuned)}\n", f"base> {visible(base)}\n"]
    places = [shown.index(part) for part in parts]
    assert places == sorted(places)
    assert shown.count(parts[0]) == 2
    assert answer(adapted, question) == tuned  # the adapter is on again


def test_base_on_a_model_without_an_adapter(llama: Opened) -> None:
    assert "no adapter" in talk(llama, "/base")


def test_tokens_shows_the_last_prompt(llama: Opened) -> None:
    shown = talk(llama, "/tokens", "the fox", "/tokens")
    ids = llama.encoder.encode_prompt([Message("user", "the fox")])
    assert "there is no prompt yet" in shown
    assert f"{len(ids)} tokens" in shown
    listed = [int(number) for number in re.findall(r"^ +(\d+)  '", shown, re.MULTILINE)]
    assert listed == ids
    assert "'<|im_start|>'" in shown


@pytest.mark.parametrize("command", ["/reset", "/again", "/base", "/tokens", "/help", "/exit"])
def test_help_lists_every_command(llama: Opened, command: str) -> None:
    assert command in talk(llama, "/help")


def test_exit_reads_no_further(llama: Opened) -> None:
    assert "model>" not in talk(llama, "/exit", "what is it?")


def test_again_without_a_question(llama: Opened) -> None:
    assert "no question yet" in talk(llama, "/again")


def test_unknown_command_and_a_question_with_a_slash(llama: Opened) -> None:
    assert "no command /exti" in talk(llama, "/exti now")
    shown = talk(llama, "//etc is what?", "/tokens")
    assert "model>" in shown
    assert "no command" not in shown


@pytest.mark.parametrize("end", [EOFError(), KeyboardInterrupt()])
def test_end_of_input_and_interrupt_at_the_prompt_leave_politely(llama: Opened, end: BaseException) -> None:
    assert talk(llama, end, "what is it?") == "\n"


def interrupting(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the nth forward pass of the next answer end with Ctrl-C."""
    from lora_kit.serve import stream

    honest: Callable[..., Any] = stream._next_scores
    count = 0

    def scores(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == after:
            honest(*args)  # the cache has grown already
            raise KeyboardInterrupt
        return honest(*args)

    monkeypatch.setattr(stream, "_next_scores", scores)


def test_interrupt_stops_the_answer_and_keeps_what_was_said(
    llama: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = [Message("user", "what is it?")]
    whole = stream_answer(llama.model, llama.encoder, question, Sampling(3))
    list(whole)
    pieces = TextPieces(llama.encoder)
    said = "".join(pieces.add(token) for token in whole.ids)
    assert said
    interrupting(monkeypatch, after=4)
    shown = talk(llama, "what is it?", "and that?")
    monkeypatch.undo()
    first, second = (part.partition("\n")[0] for part in shown.split("model> ")[1:])
    assert first == f"{visible(said)} …"
    assert "cut after 3 tokens" in shown
    spoken = [Message("assistant", said), Message("user", "and that?")]
    assert second == visible(answer(llama, [*question, *spoken]))


def test_interrupt_before_the_first_word_drops_the_question(
    llama: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupting(monkeypatch, after=1)
    assert "no question yet" in talk(llama, "what is it?", "/again")


def test_interrupt_outside_of_an_answer(llama: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fit_window", fit)
    assert "stopped" in talk(llama, "what is it?")


def test_oldest_turns_are_left_out_with_a_notice(llama: Opened) -> None:
    shown = talk(llama, *(["the quick brown fox jumps over the lazy dog"] * 12))
    assert "the oldest question and its answer no longer fit" in shown
    assert shown.count("model>") == 12


def test_a_question_that_is_too_long_is_said_and_dropped(llama: Opened) -> None:
    shown = talk(llama, "x" * 300, "what is it?")
    assert "shorten it" in shown
    assert shown.count("model>") == 1


def test_empty_answer_is_not_kept(llama: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = frozenset(range(300))
    monkeypatch.setitem(llama.encoder.__dict__, "stop_ids", everything)
    shown = talk(llama, "what is it?", "/again")
    assert "no question yet" in shown


def test_control_characters_never_reach_the_terminal() -> None:
    assert visible("a\x1b[2J\x9b\r\x07b\n\tc\u202e") == "a\ufffd[2J\ufffd\ufffd\ufffdb\n\tc\ufffd"
