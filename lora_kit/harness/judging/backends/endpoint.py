"""An OpenAI-compatible chat server as the judge, several questions at once."""

from collections.abc import Sequence

from lora_kit.harness.client import ChatClient
from lora_kit.harness.endpoint import is_loopback
from lora_kit.harness.fan_out import Breaker, ask_all
from lora_kit.harness.judging.backend import Answers, Question


class EndpointJudge:
    """A judge behind a chat server.

    Args:
        client: How to reach it.
        model: As the server calls it.
        parallel: Questions at once.
    """

    def __init__(self, client: ChatClient, model: str, *, parallel: int) -> None:
        self.model = model
        self.host = client.endpoint.host
        self.costs = not is_loopback(self.host)
        self._client = client
        self._parallel = parallel
        self._breaker = Breaker()

    def answer(self, questions: Sequence[Question]) -> Answers:
        """Ask the server."""
        bodies = [question.body for question in questions]
        return ask_all(self._client, bodies, parallel=self._parallel, breaker=self._breaker)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
