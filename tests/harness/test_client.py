import json
import threading
import time

import pytest

from lora_kit.harness.client import ChatClient, ChatFailureError
from lora_kit.harness.endpoint import Endpoint
from lora_kit.harness.fan_out import DEAD_AFTER, ask_all
from lora_kit.harness.retry import RetryRules, Timer

BODY = {"model": "judge", "messages": [{"role": "user", "content": "a lone \ud800 surrogate"}]}


@pytest.fixture
def client(chat_stub, fake_time):
    timer = Timer(clock=lambda: fake_time.now, sleep=fake_time.sleep, chance=lambda: 1.0)
    with ChatClient(Endpoint(chat_stub.url, "sk-0123456789"), timer=timer) as client:
        yield client


def test_a_request_is_what_a_chat_server_expects(client, chat_stub):
    assert client.complete(BODY).text == "7 7"
    assert chat_stub.bodies == [BODY]
    [headers] = chat_stub.headers
    assert headers["Authorization"] == "Bearer sk-0123456789"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("lora_kit/")


def test_without_a_key_none_is_sent(chat_stub):
    with ChatClient(Endpoint(chat_stub.url)) as client:
        client.complete(BODY)
    assert "Authorization" not in chat_stub.headers[0]


def test_connections_are_kept(client, chat_stub):
    ports = set()

    def script(handler, _):
        ports.add(handler.client_address[1])
        handler.complete("ok")

    chat_stub.script = script
    for _ in range(3):
        client.complete(BODY)
    assert len(ports) == 1


def test_all_are_answered_once_and_in_parallel(client, chat_stub):
    together = threading.Barrier(4, timeout=10)

    def script(handler, body):
        together.wait()
        handler.complete(body["n"])

    chat_stub.script = script
    bodies = [{"n": str(number)} for number in range(8)]
    found = dict(ask_all(client, bodies, parallel=4))
    assert {index: reply.text for index, reply in found.items()} == {n: str(n) for n in range(8)}


def test_one_bad_request_says_nothing_of_the_others(client, chat_stub):
    def script(handler, body):
        if body["n"] % 2:
            handler.send(400, json.dumps({"error": {"message": "too long"}}))
        else:
            handler.complete("ok")

    chat_stub.script = script
    found = dict(ask_all(client, [{"n": n} for n in range(20)], parallel=2))
    failed = [index for index, reply in found.items() if isinstance(reply, ChatFailureError)]
    assert sorted(failed) == list(range(1, 20, 2))
    assert len(chat_stub.bodies) == 20


def test_a_dead_server_is_not_asked_for_ever(client, chat_stub):
    chat_stub.script = lambda handler, _: handler.send(503)
    found = dict(ask_all(client, [{}] * 50, parallel=1))
    reasons = [reply.reason for reply in found.values()]
    assert sum(reason.startswith("not asked, after: 503") for reason in reasons) == 50 - DEAD_AFTER
    assert len(chat_stub.bodies) == DEAD_AFTER * RetryRules().attempts


def test_closing_the_iterator_ends_what_is_under_way(chat_stub):
    release = threading.Event()

    def script(handler, body):
        if body["n"]:
            release.wait(30)
        handler.complete("ok")

    chat_stub.script = script
    began = time.monotonic()
    with ChatClient(Endpoint(chat_stub.url)) as client:
        replies = ask_all(client, [{"n": n} for n in range(4)], parallel=2)
        assert next(replies)[0] == 0
        replies.close()
    assert time.monotonic() - began < 15
    release.set()
    assert len(chat_stub.bodies) <= 3
