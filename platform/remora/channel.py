"""The batching connection between a client and a host.

A call to a host costs about a millisecond whatever it carries, so commands share calls (natural
batching): the first leaves at once, those that come while calls are under way leave together in
the next. Answers come back the same way: a call returns as soon as any answer of the session is
ready, so a slow command never holds back the answers of the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from remora.errors import HostGone, RemoraError
from remora.messages import Ask, Batch, decode_answers, encode
from remora.why import Glance

HOLD_BELOW = 64
HOLD_MAX_S = 0.02
"""While a call is under way, fewer commands than this wait for it to return before they leave in another:
twice as long as the quickest of the last calls took, and this many seconds at most, since a call that
waits for a slow command returns late. A call costs about 2 ms of processor time on both sides
together, whatever it carries."""


class Transport(Protocol):
    """The one port that reaches a host, over Ray, in memory or over a network."""

    async def exchange(self, host: str, data: bytes) -> bytes:
        """Give a host an encoded batch, return encoded answers of the same session.

        Raises:
            HostGone: The host died or cannot be reached; the outcome is unknown.
        """
        ...

    async def glance(self, host: str) -> Glance:
        """Return what keeps a host's event loop, asked of another thread of its process.

        Raises:
            HostGone: The host died or cannot be reached.
        """
        ...


class Sending(Protocol):
    """What a channel needs of something under way."""

    ask: Ask
    n: int


class Channel:
    """One client's connection to one host.

    Args:
        session: Names the client; answers are kept per session.
        host: Name of the host.
        transport: Reaches it.
        batch_max: Asks per call.
        calls_max: Calls under way at once.
        on_answer: Called with each (thing sent, verdict, payload).
        on_broken: Called with all that was under way when the host could not be reached.
    """

    def __init__(
        self,
        session: str,
        host: str,
        transport: Transport,
        *,
        batch_max: int,
        calls_max: int,
        on_answer: Callable[[Sending, int, bytes], None],
        on_broken: Callable[[list[Sending], RemoraError], None],
    ) -> None:
        self.host = host
        self._session = session
        self._transport = transport
        self._batch_max = batch_max
        self._calls_max = calls_max
        self._on_answer = on_answer
        self._on_broken = on_broken
        self._queue: deque[Sending] = deque()
        self._in_flight: dict[int, Sending] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._left_s = 0.0
        """When the last call left."""
        self._took_s: deque[float] = deque(maxlen=8)
        """How long the last calls took."""
        self._loop = asyncio.get_running_loop()

    def submit(self, sending: Sending) -> None:
        """Queue something; it leaves at the end of this turn of the loop."""
        self._queue.append(sending)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def forget(self, n: int) -> None:
        """Stop expecting an answer."""
        self._in_flight.pop(n, None)

    def take_all(self) -> list[Sending]:
        """Give up everything queued or under way and return it, in order."""
        taken = [*self._in_flight.values(), *self._queue]
        self._in_flight.clear()
        self._queue.clear()
        return taken

    def in_flight(self) -> list[Sending]:
        """Return what is under way."""
        return list(self._in_flight.values())

    async def close(self) -> None:
        """Cancel the calls under way."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _flush(self) -> None:
        self._scheduled = False
        while self._queue and len(self._calls) < self._calls_max:
            if self._calls and len(self._queue) < HOLD_BELOW and not self._held_long_enough():
                return
            self._left_s = self._loop.time()
            count = min(len(self._queue), self._batch_max)
            sendings = [self._queue.popleft() for _ in range(count)]
            for sending in sendings:
                self._in_flight[sending.n] = sending
            self._call([sending.ask for sending in sendings])

    def _held_long_enough(self) -> bool:
        """Return whether what is queued need not wait for company; if it is to, look again then."""
        hold_s = min(2 * min(self._took_s, default=0.0), HOLD_MAX_S)
        wait_s = self._left_s + hold_s - self._loop.time()
        if wait_s <= 0:
            return True
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(wait_s, self._flush)
        return False

    def _call(self, asks: list[Ask]) -> None:
        task = self._loop.create_task(self._exchange(asks))
        self._calls.add(task)
        task.add_done_callback(self._called)

    def _called(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            broken = error if isinstance(error, RemoraError) else HostGone(f"{self.host}: {error!r}")
            self._on_broken(self.take_all(), broken)
        elif self._queue:
            self._left_s = 0.0  # what waited for this call to return leaves now
            self._flush()
        elif self._in_flight and not self._calls:
            self._call([])  # nothing new to say, and answers are owed: listen

    async def _exchange(self, asks: list[Ask]) -> None:
        began_s = self._loop.time()
        data = await self._transport.exchange(self.host, encode(Batch(self._session, asks)))
        self._took_s.append(self._loop.time() - began_s)
        for n, verdict, payload in decode_answers(data):
            sending = self._in_flight.pop(n, None)
            if sending is not None:
                self._on_answer(sending, verdict, payload)
