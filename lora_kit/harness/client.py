"""A small client of OpenAI-compatible chat servers: one request, asked until it is answered or given up.

No redirect is followed (it would carry the key elsewhere), every exchange has a deadline,
a body that ends early is a failure and never a short answer, and no message of a failure
holds the key. Many at once: see ``fan_out``.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx

from lora_kit import __version__
from lora_kit.harness.chat_reply import ChatReply, NotAReplyError, error_text, read_chat_reply
from lora_kit.harness.deadline import Deadline, DeadlineTransport
from lora_kit.harness.endpoint import STRUCK_OUT, Endpoint
from lora_kit.harness.retry import RetryRules, Timer, is_about_one, is_final, retry_after_seconds, stops_all

LARGEST_BODY_BYTES = 8_000_000
SHOWN_ERROR = 200
logging.getLogger("httpcore").setLevel(logging.INFO)  # below that it logs headers, where a key may be echoed


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds that one attempt may take.

    Args:
        connect: Until there is a connection.
        read: Between two pieces of the answer; before the first one, the time that the model thinks.
        total: From the first byte sent to the last one received.
    """

    connect: float = 10.0
    read: float = 180.0
    total: float = 300.0


class ChatFailureError(Exception):
    """A question without an answer.

    Args:
        reason: What happened, without the key.
        is_final: Asking again would not help.
        stops_all: Asking anything else would not help either.
        is_about_one: It says nothing of other questions.
        retry_after: Seconds that the server wants to be left alone.
    """

    def __init__(
        self,
        reason: str,
        *,
        is_final: bool = False,
        stops_all: bool = False,
        is_about_one: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final
        self.stops_all = stops_all
        self.is_about_one = is_about_one
        self.retry_after = retry_after


class ChatClient:
    """Asks one server; safe to share between threads.

    Args:
        endpoint: Where, and with which key.
        limits: Deadlines of one attempt.
        rules: How often to ask again.
        timer: Clock, sleep and chance.
        connections: Most at once.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limits: TimeLimits | None = None,
        rules: RetryRules | None = None,
        *,
        timer: Timer | None = None,
        connections: int = 8,
    ) -> None:
        self.endpoint = endpoint
        self._limits = limits or TimeLimits()
        self._rules = rules or RetryRules()
        self._timer = timer or Timer()
        self._deadline = Deadline(self._timer)
        self._http = httpx.Client(
            transport=DeadlineTransport(self._deadline, connections),
            timeout=httpx.Timeout(self._limits.read, connect=self._limits.connect),
            headers=_headers(endpoint),
            follow_redirects=False,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def stop(self) -> None:
        """End all requests and waits, in whatever thread they are."""
        self._timer.stop()

    def complete(self, body: Mapping[str, Any], *, is_hopeless: Callable[[], bool] = bool) -> ChatReply:
        """Ask until there is an answer.

        Args:
            body: The request as JSON data.
            is_hopeless: Asked after a failure; true means that others have found the server dead.

        Raises:
            ChatFailureError: There is none: refused, or the attempts or the time are used up.
        """
        content = json.dumps(body).encode("ascii")  # escapes: a lone surrogate in an answer can be sent
        began, attempt = self._timer.clock(), 1
        while True:
            try:
                return self._once(content)
            except ChatFailureError as failure:
                wait = self._rules.wait(attempt, failure.retry_after, self._timer.chance())
                late = self._timer.clock() - began + wait > self._rules.total_seconds
                tired = late or attempt >= self._rules.attempts
                if failure.is_final or tired or is_hopeless() or self._timer.stopped.is_set():
                    raise _counted(failure, attempt) from None
            self._timer.sleep(wait)
            attempt += 1

    def _once(self, content: bytes) -> ChatReply:
        try:
            with self._deadline.within(self._limits.total):
                status, headers, body = self._exchange(content)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise ChatFailureError(self._clean(_transport_reason(error))) from None
        if status == httpx.codes.OK:
            return self._reply(body)
        if httpx.codes.is_redirect(status):
            raise self._redirected(headers.get("location", ""))
        words = f"{status} {httpx.codes.get_reason_phrase(status)}".strip()
        told = self._clean(error_text(body, SHOWN_ERROR))
        raise ChatFailureError(
            f"{words}: {told}" if told else words,
            is_final=is_final(status),
            stops_all=stops_all(status),
            is_about_one=is_about_one(status),
            retry_after=retry_after_seconds(headers.get("retry-after")),
        )

    def _exchange(self, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        with self._http.stream("POST", self.endpoint.chat_url, content=content) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > LARGEST_BODY_BYTES:
                    raise ChatFailureError("the answer is too large", is_final=True, is_about_one=True)
            return response.status_code, response.headers, bytes(body)

    def _reply(self, body: bytes) -> ChatReply:
        try:
            return read_chat_reply(self._clean_bytes(body))
        except NotAReplyError as error:
            raise ChatFailureError(self._clean(str(error))) from None

    def _redirected(self, location: str) -> ChatFailureError:
        """Redirects end the run: the key must not travel, and every other request would be redirected too."""
        try:
            target = urlsplit(urljoin(self.endpoint.chat_url, location))
            where = f"{target.scheme}://{target.hostname}{target.path}"
        except ValueError:
            where = "an address that can't be read"
        return ChatFailureError(
            self._clean(f"redirected to {where}, which is not followed"), is_final=True, stops_all=True
        )

    def _clean_bytes(self, body: bytes) -> bytes:
        """A server that echoes the key must not get it into a journal."""
        key = self.endpoint.key.encode("ascii")
        return body.replace(key, STRUCK_OUT.encode("ascii")) if self.endpoint.is_secret else body

    def _clean(self, text: str) -> str:
        return self.endpoint.redacted(text)


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": f"lora_kit/{__version__}"}
    return headers | ({"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {})


def _transport_reason(error: httpx.RequestError | httpx.InvalidURL) -> str:
    kinds = {
        httpx.ConnectTimeout: "no connection in time",
        httpx.ReadTimeout: "no answer in time",
        httpx.WriteTimeout: "the request could not be sent in time",
        httpx.ConnectError: "no connection",
        httpx.RemoteProtocolError: "the answer broke off",
        httpx.ReadError: "the connection broke",
    }
    words = next((text for kind, text in kinds.items() if isinstance(error, kind)), type(error).__name__)
    return f"{words}: {error}" if isinstance(error, httpx.ConnectError) else words


def _counted(failure: ChatFailureError, attempts: int) -> ChatFailureError:
    if attempts == 1:
        return failure
    return ChatFailureError(
        f"{failure.reason} ({attempts} attempts)",
        is_final=failure.is_final,
        stops_all=failure.stops_all,
        is_about_one=failure.is_about_one,
    )
