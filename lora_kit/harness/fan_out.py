"""Many questions to one chat server at once, each answer as soon as it is there.

A wrong key, an empty account or a redirect stops everything at once; a server that fails
several questions in a row is taken for dead. What was not asked says so; nothing is lost.
"""

import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from lora_kit.harness.chat_reply import ChatReply
from lora_kit.harness.client import ChatClient, ChatFailureError

DEAD_AFTER = 5  # failures in a row, each with all its attempts


class Breaker:
    """Counts failures in a row; once open it stays open, and nothing more is asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_a_row = 0
        self.reason = ""

    def note(self, failure: ChatFailureError | None) -> None:
        """Count a success (None) or a failure."""
        if failure is not None and failure.is_about_one:
            return
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if failure else 0
            if failure and (failure.stops_all or self._in_a_row >= DEAD_AFTER):
                self.reason = self.reason or failure.reason


def ask_all(
    client: ChatClient,
    bodies: Sequence[Mapping[str, Any]],
    *,
    parallel: int,
    breaker: Breaker | None = None,
) -> Generator[tuple[int, ChatReply | ChatFailureError], None, None]:
    """Ask all; yields ``(index, reply or failure)`` once each, as they come.

    Closing the iterator early, or an exception such as Ctrl-C, ends the requests that are under way.

    Args:
        client: Whom to ask.
        bodies: Requests.
        parallel: Most at once.
        breaker: One that earlier calls have used; None for a new one.
    """
    fuse = breaker or Breaker()

    def ask(body: Mapping[str, Any]) -> ChatReply | ChatFailureError:
        if fuse.reason:
            return ChatFailureError(f"not asked, after: {fuse.reason}")
        try:
            reply = client.complete(body, is_hopeless=lambda: bool(fuse.reason))
        except ChatFailureError as failure:
            fuse.note(failure)
            return failure
        fuse.note(None)
        return reply

    pool = ThreadPoolExecutor(parallel, thread_name_prefix="ask")
    try:
        futures = {pool.submit(ask, body): index for index, body in enumerate(bodies)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:
        client.stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
