"""A transport of httpx that keeps a deadline over the whole exchange, down to a header at one byte a second.

httpx limits the time between two bytes; a server that drips holds a request for ever.
Here every read of the socket also looks at the deadline of its request, and, four times
a second, at whether everybody was told to stop.
"""

import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpcore
import httpx

from lora_kit.harness.retry import Timer

POLL_SECONDS = 0.25


class Deadline:
    """The moment at which the current thread's request ends.

    Args:
        timer: Whose clock counts, and whose ``stop`` ends all requests.
    """

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._of_thread = threading.local()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Give the block's requests so many seconds together."""
        self._of_thread.until = self._timer.clock() + seconds
        try:
            yield
        finally:
            del self._of_thread.until

    def allowed(self, timeout: float | None) -> float:
        """Seconds that an operation may take which would like ``timeout``; 0 or less if there are none."""
        if self._timer.stopped.is_set():
            return 0.0
        left: float = getattr(self._of_thread, "until", float("inf")) - self._timer.clock()
        return min(left, timeout if timeout is not None else left)


class DeadlineTransport(httpx.HTTPTransport):
    """``httpx.HTTPTransport`` over sockets that know the deadline; no proxies.

    Args:
        deadline: Asked before every operation.
        connections: Most at once.
    """

    def __init__(self, deadline: Deadline, connections: int) -> None:
        super().__init__(verify=_trusted())
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=_trusted(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30.0,
            network_backend=_Backend(deadline),
        )


@cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # reads all certificates, which takes a while


class _Backend(httpcore.SyncBackend):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        allowed = self._deadline.allowed(timeout)
        if allowed <= 0:
            raise httpcore.ConnectTimeout("no time left")
        stream = super().connect_tcp(host, port, allowed, local_address, socket_options)
        return _Stream(stream, self._deadline)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = timeout if timeout is not None else float("inf")
        while True:
            slice_seconds = min(POLL_SECONDS, self._deadline.allowed(left))
            if slice_seconds <= 0:
                raise httpcore.ReadTimeout("no time left")
            try:
                return self._stream.read(max_bytes, slice_seconds)
            except httpcore.ReadTimeout:
                left -= slice_seconds

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        allowed = self._deadline.allowed(timeout)
        if allowed <= 0:
            raise httpcore.WriteTimeout("no time left")
        self._stream.write(buffer, allowed)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        allowed = self._deadline.allowed(timeout)
        if allowed <= 0:
            raise httpcore.ConnectTimeout("no time left")
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, allowed), self._deadline)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's own signature
        return self._stream.get_extra_info(info)
