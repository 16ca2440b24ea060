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
from remora.messages import CREDITS, Ask, Batch, decode_answers, encode
from remora.settings import Settings
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
        settings: Bounds: asks per call, calls under way at once, and asks under way at once until the host
            grants more or less; what is more waits here.
        on_answer: Called with each (thing sent, verdict, payload).
        on_broken: Called with all that was under way when the host could not be reached.
        on_late: Called with what has waited for credits before it leaves; returns what still is to leave.
    """

    def __init__(
        self,
        session: str,
        host: str,
        transport: Transport,
        settings: Settings,
        *,
        on_answer: Callable[[Sending, int, bytes], None],
        on_broken: Callable[[list[Sending], RemoraError], None],
        on_late: Callable[[list[Sending]], list[Sending]],
    ) -> None:
        self.host = host
        self._session = session
        self._transport = transport
        self._batch_max = settings.channel_batch_max
        self._calls_max = settings.channel_calls_max
        self._on_answer = on_answer
        self._on_broken = on_broken
        self._on_late = on_late
        self._queue: deque[Sending] = deque()
        self._in_flight: dict[int, Sending] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._credits = settings.channel_credits
        """How many asks the host lets this session have under way."""
        self._starved = False
        """Whether what is queued waits, or has waited, for credits: it may have been given up meanwhile."""
        self._scheduled = False
        self._left_s = 0.0
        """When the last call left."""
        self._took_s: deque[float] = deque(maxlen=8)
        """How long the last calls took."""
        self._loop = asyncio.get_running_loop()

    def submit(self, sending: Sending) -> None:
        """Queue something; it leaves at the end of this turn of the loop."""
        if self._starved and _needs_no_credit(sending.ask):
            self._send([sending])
            return
        self._queue.append(sending)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def forget(self, n: int) -> None:
        """Stop expecting an answer."""
        if self._in_flight.pop(n, None) is not None and self._starved and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def take_all(self) -> list[Sending]:
        """Give up everything queued or under way and return it, in order."""
        taken = [*self._in_flight.values(), *self._queue]
        self._in_flight.clear()
        self._queue.clear()
        self._starved = False
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
            room = self._credits - len(self._in_flight)
            if room <= 0:
                self._starve()
                return
            self._left_s = self._loop.time()
            count = min(len(self._queue), self._batch_max, room)
            sendings = [self._queue.popleft() for _ in range(count)]
            if self._starved:
                sendings, self._starved = self._on_late(sendings), bool(self._queue)
            if sendings:
                self._send(sendings)

    def _send(self, sendings: list[Sending]) -> None:
        for sending in sendings:
            self._in_flight[sending.n] = sending
        self._call([sending.ask for sending in sendings])

    def _starve(self) -> None:
        """All credits are used: what is queued waits for answers, but for what those answers may wait for."""
        if not self._starved:
            self._starved = True
            urgent = [sending for sending in self._queue if _needs_no_credit(sending.ask)]
            if urgent:
                self._queue = deque(sending for sending in self._queue if not _needs_no_credit(sending.ask))
                self._send(urgent)
        if not self._calls:
            self._call([])  # the answers that make room are to be listened for

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
            elif verdict == CREDITS:
                self._credits = int(payload)


def _needs_no_credit(ask: Ask) -> bool:
    """Whether to send an ask however much is under way: a handler's call, or a question about an entity."""
    return bool(ask.chain) or ask.method[:1] == "$"
