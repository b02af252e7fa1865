import pytest

from lora_kit.catalogue import ENGINES
from lora_kit.data.types import Message
from lora_kit.errors import IncompleteError
from lora_kit.harness.client import ChatClient
from lora_kit.harness.endpoint import Endpoint
from lora_kit.harness.engines.openai_engine import OpenAIEngine
from lora_kit.harness.retry import Timer

PROMPTS = [
    (Message("system", "Be brief."), Message("user", f"Question {n}", f"Context {n}")) for n in range(5)
]


@pytest.fixture
def client(chat_stub, fake_time):
    timer = Timer(clock=lambda: fake_time.now, sleep=fake_time.sleep)
    with ChatClient(Endpoint(chat_stub.url), timer=timer) as client:
        yield client


def test_answers_come_with_tokens_and_how_they_ended(client, chat_stub):
    def script(handler, body):
        finish = "length" if body["messages"][1]["content"].startswith("Question 3") else "stop"
        handler.complete(body["messages"][1]["content"], finish=finish, usage={"completion_tokens": 4})

    chat_stub.script = script
    engine = OpenAIEngine(
        "gpt", client, "gpt-x", extra={"seed": 1, "max_tokens": None, "max_completion_tokens": 9}
    )
    found = dict(engine.generate(PROMPTS, max_new_tokens=9, batch_size=3))
    assert found[2].text == "Question 2\n\nContext 2"
    assert (found[2].tokens, found[2].stopped, found[3].stopped) == (4, True, False)
    body = chat_stub.bodies[0]
    assert (body["temperature"], body["max_completion_tokens"], body["seed"]) == (0.0, 9, 1)
    assert "max_tokens" not in body
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_what_is_missing_is_said_after_the_rest_was_yielded(client, chat_stub):
    def script(handler, body):
        number = body["messages"][1]["content"][9]
        if number == "1":
            handler.send(400, "too long")
        elif number == "2":
            handler.complete(None, finish="content_filter")
        else:
            handler.complete("")

    chat_stub.script = script
    found = {}
    answers = OpenAIEngine("gpt", client, "gpt-x").generate(PROMPTS, max_new_tokens=9, batch_size=2)
    with pytest.raises(IncompleteError) as caught:
        found.update((index, answer.text) for index, answer in answers)
    assert found == {0: "", 3: "", 4: ""}
    assert sorted(problem.where for problem in caught.value.problems if problem.where) == [
        "prompt 2",
        "prompt 3",
    ]


def test_its_fingerprint_is_host_model_and_fields(client):
    engines = [
        OpenAIEngine("a", client, "gpt-x"),
        OpenAIEngine("b", client, "gpt-x"),
        OpenAIEngine("a", client, "gpt-y"),
        OpenAIEngine("a", client, "gpt-x", extra={"seed": 1}),
    ]
    assert engines[0].fingerprint == engines[1].fingerprint
    assert len({engine.fingerprint for engine in engines}) == 3


def test_it_measures_no_likelihood(client):
    assert ENGINES["openai"].build is OpenAIEngine
    engine = OpenAIEngine("a", client, "gpt-x")
    assert not engine.measures_likelihood
    with pytest.raises(NotImplementedError):
        engine.likelihood([])
