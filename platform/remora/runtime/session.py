"""A host's side of a channel: the answers ready for one client session."""

from __future__ import annotations

import asyncio
from collections import deque

from remora.messages import CREDITS, Answer, Ask, encode
from remora.runtime.backpressure import Backpressure

SAMPLES_MAX = 1000
"""Latencies that a host keeps until they are published."""
SAMPLE_LOST_S = 60.0
"""Seconds after which the answer to a sampled ask is not waited for any more."""


class Session:
    """Collects answers and gives them to the call that waits for them.

    At most one call of a session is kept waiting: a newer one releases it, so that a client with
    something new to say always finds a free call.

    Args:
        name: The client session's.
        latencies_s: Takes a sample per batch of how long an answer took, in seconds.
    """

    __slots__ = (
        "_granted",
        "_latencies_s",
        "_loop",
        "_parked",
        "_ready",
        "_sample_n",
        "_sampled_s",
        "answered",
        "last_used_s",
        "name",
        "taken",
    )

    def __init__(self, name: str, latencies_s: deque[float]) -> None:
        self.name = name
        self.taken = 0
        """Asks taken so far."""
        self.answered = 0
        """Answers given so far."""
        self._latencies_s = latencies_s
        self._sample_n = -1
        """The ask whose answer is waited for to measure how long it took."""
        self._sampled_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._ready: list[Answer] = []
        self._parked: asyncio.Future[None] | None = None
        self._granted = 0
        """What it was told last that it may have under way."""
        self.last_used_s = 0.0

    def took(self, asks: list[Ask]) -> None:
        """Count asks that were taken, and measure how long the answer to one of them takes."""
        self.taken += len(asks)
        if asks and (self._sample_n < 0 or self._loop.time() - self._sampled_s > SAMPLE_LOST_S):
            self._sample_n, self._sampled_s = asks[-1].n, self._loop.time()

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        """Add an answer; the waiting call leaves with all that are ready by then."""
        self._ready.append((n, verdict, payload))
        self.answered += 1
        if n == self._sample_n:
            self._sample_n = -1
            self._latencies_s.append(self._loop.time() - self._sampled_s)
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
