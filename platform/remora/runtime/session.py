"""A host's side of a channel: the answers ready for one client session."""

from __future__ import annotations

import asyncio

from remora.messages import CREDITS, Answer, encode
from remora.runtime.backpressure import Backpressure


class Session:
    """Collects answers and gives them to the call that waits for them.

    At most one call of a session is kept waiting: a newer one releases it, so that a client with
    something new to say always finds a free call.

    Args:
        name: The client session's.
    """

    __slots__ = ("_granted", "_loop", "_parked", "_ready", "last_used_s", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._ready: list[Answer] = []
        self._parked: asyncio.Future[None] | None = None
        self._granted = 0
        """What it was told last that it may have under way."""
        self.last_used_s = 0.0

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        """Add an answer; the waiting call leaves with all that are ready by then."""
        self._ready.append((n, verdict, payload))
        parked = self._parked
        if parked is not None and not parked.done():
            parked.set_result(None)

    async def collect(self, wait_s: float, backpressure: Backpressure) -> bytes:
        """Return the ready answers, encoded; wait for the first one if there is none.

        Args:
            wait_s: Longest wait, in seconds.
            backpressure: Says how much the session may have under way; news of that go along with answers.
        """
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)
            self._parked = None
        if not self._ready:
            parked = self._parked = self._loop.create_future()
            timer = self._loop.call_later(wait_s, _release, parked)
            try:
                await parked
            finally:
                timer.cancel()
                if self._parked is parked:
                    self._parked = None
        ready, self._ready = self._ready, []
        if self._granted != backpressure.credits:
            self._granted = backpressure.credits
            ready.append((0, CREDITS, b"%d" % self._granted))
        return encode(ready)

    def break_off(self, error: Exception) -> None:
        """Fail the waiting call: nothing will answer it any more."""
        parked = self._parked
        if parked is not None and not parked.done():
            parked.set_exception(error)


def _release(parked: asyncio.Future[None]) -> None:
    if not parked.done():
        parked.set_result(None)
