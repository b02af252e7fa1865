import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_kit.harness.chat_reply import NotAReplyError, error_text, read_chat_reply


def completion(message, **fields):
    choice = {"message": message, "finish_reason": "stop"} | fields.pop("choice", {})
    return json.dumps({"model": "m", "choices": [choice]} | fields).encode()


def test_a_plain_reply():
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    reply = read_chat_reply(completion({"content": "8 9"}, usage=usage))
    assert (reply.text, reply.model, reply.finish) == ("8 9", "m", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (5, 2)


@pytest.mark.parametrize(
    "body",
    [
        completion({"content": None}),
        completion({}),
        completion(None),
        completion("text"),
        completion({"content": 7}),
        b'{"choices": []}',
        b'{"choices": [null]}',
    ],
)
def test_a_reply_that_says_nothing_has_no_text(body):
    assert read_chat_reply(body).text == ""


def test_parts_are_joined_and_a_refusal_is_kept_apart():
    assert read_chat_reply(completion({"content": [{"text": "8 "}, {"text": "9"}]})).text == "8 9"
    assert read_chat_reply(completion({"content": None, "refusal": "No."})).refusal == "No."


def test_probabilities_of_the_first_token():
    top = [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": float("-inf")}, {"token": "x"}]
    choice = {"logprobs": {"content": [{"top_logprobs": top}]}}
    assert read_chat_reply(completion({"content": "m"}, choice=choice)).top_logprobs == {"m": -0.1}
    assert (
        read_chat_reply(completion({"content": "m"}, choice={"logprobs": {"content": []}})).top_logprobs
        is None
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>gateway</html>",
        b'data: {"choices": []}\n\n',
        b'{"choices": [{"message": {"content": "8 ',
        b"[1]",
        b"{}",
        b'{"error": {"message": "overloaded"}, "choices": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_reply_is_a_failure(body):
    with pytest.raises(NotAReplyError):
        read_chat_reply(body)


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(body):
    assert error_text(body) == " ".join(error_text(body).split())
    with suppress(NotAReplyError):
        read_chat_reply(body)


def test_errors_are_one_short_line():
    assert error_text(b'{"error": {"message": "no\\nsuch model"}}') == "no such model"
    assert error_text(b'{"error": "plain"}') == "plain"
    assert len(error_text(b"x" * 5000)) == 200
