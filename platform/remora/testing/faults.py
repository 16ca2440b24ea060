"""A store that fails on demand, around one that works."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum
from typing import TypeVar

from remora.errors import Fenced, StoreUnavailable
from remora.journal import (
    Append,
    EventRow,
    FailureRow,
    Known,
    OutboxRow,
    ParkedRow,
    Recovered,
    ReminderRow,
    ScanRow,
    Span,
    StateRow,
    Store,
    Tail,
    Want,
)  # fmt: skip
from remora.sharding.table import HostRow, ShardRow, Table
from remora.storage.memory import MemoryStore

T = TypeVar("T")


class Fault(Enum):
    """How a call of the store fails."""

    BEFORE_WRITE = "before write"
    """Nothing was done."""
    AFTER_WRITE = "after write"
    """All was done; the answer was lost. To the caller the outcome is unknown."""


class FaultyStore:
    """Passes everything on to a store that works; any of its methods can be failed, delayed and held.

    ``faults``, ``decide`` and ``hold()`` without a name are about appends, the writes that matter
    most; the other methods take the name of the store's method that is meant, such as ``load``,
    which recoveries read with. A method's name stands for the port's (``remora.journal.Store``).

    Args:
        inner: The store that works; a ``MemoryStore`` if there is none.
    """

    def __init__(self, inner: Store | None = None) -> None:
        self.inner: Store = inner or MemoryStore()
        self.url = self.inner.url
        self.appends: list[tuple[int, Append]] = []
        """(incarnation, append) of those that were written."""
        self.faults: list[Fault] = []
        """For the next appends, one each."""
        self.error: Callable[[], Exception] = lambda: StoreUnavailable("The disk is full.")
        """Makes what a failed call raises."""
        self.decide: Callable[[Append], Fault | None] = lambda _: None
        """Decides about each append that no listed fault is for."""
        self.waiting = 0
        """Calls that are held."""
        self._next: defaultdict[str, list[Fault]] = defaultdict(list)
        self._delays_s: dict[str, float] = {}
        self._closed_gates: dict[str, asyncio.Event] = {}
        self._fence_next = False
        self._fenced: set[int] = set()

    # -- what a test says ----------------------------------------------------------------------------

    def fail_next(self, method: str = "append", *, times: int = 1, after: bool = False) -> None:
        """Have the next calls of a method fail with ``error()``.

        Args:
            method: The store's method.
            times: How many calls.
            after: Do what was asked first: the outcome is unknown to the caller.
        """
        faults = self.faults if method == "append" else self._next[method]
        faults.extend([Fault.AFTER_WRITE if after else Fault.BEFORE_WRITE] * times)

    def fence_next(self) -> None:
        """Have the next append find that its incarnation has ended, as after a takeover: it never writes again."""
        self._fence_next = True

    def delay(self, method: str, seconds: float) -> None:
        """Have every call of a method wait before it begins.

        Args:
            method: The store's method.
            seconds: How long; 0 ends it.
        """
        self._delays_s[method] = seconds

    def hold(self, method: str = "append") -> None:
        """Let no call of a method begin from now on; ``waiting`` counts those that are held."""
        self._closed_gates.setdefault(method, asyncio.Event())

    def let_go(self, method: str = "append") -> None:
        """Let held calls of a method and all others go on."""
        gate = self._closed_gates.pop(method, None)
        if gate is not None:
            gate.set()

    @property
    def failing(self) -> list[str]:
        """The methods whose next call fails."""
        return sorted({*(name for name, faults in self._next.items() if faults), *(["append"] if self.faults else [])})

    def mend(self) -> None:
        """Forget all faults and delays, and let everything go on; what was fenced stays fenced."""
        self.faults.clear()
        self._fence_next = False
        self._next.clear()
        self._delays_s.clear()
        self.decide = lambda _: None
        for method in list(self._closed_gates):
            self.let_go(method)

    async def _call(self, method: str, work: Callable[[], Awaitable[T]]) -> T:
        await self._begin(method)
        return await self._faulty(self._next[method].pop(0) if self._next[method] else None, work)

    async def _begin(self, method: str) -> None:
        """Wait as long as the test wants this method to wait."""
        gate, delay_s = self._closed_gates.get(method), self._delays_s.get(method, 0.0)
        if gate is not None:
            self.waiting += 1
            try:
                await gate.wait()
            finally:
                self.waiting -= 1
        if delay_s > 0:
            over = asyncio.Event()
            asyncio.get_running_loop().call_later(delay_s, over.set)
            await over.wait()

    async def _faulty(self, fault: Fault | None, work: Callable[[], Awaitable[T]]) -> T:
        if fault is Fault.BEFORE_WRITE:
            raise self.error()
        result = await work()
        if fault is Fault.AFTER_WRITE:
            raise self.error()
        return result

    def _check_incarnation(self, incarnation: int) -> None:
        if incarnation in self._fenced:
            msg = f"Incarnation {incarnation} has ended: its shards belong to others now."
            raise Fenced(msg)

    # -- the port --------------------------------------------------------------------------------------

    async def append(self, incarnation: int, append: Append) -> None:
        """Write one commit, or fail as told."""
        await self._begin("append")
        if self._fence_next:
            self._fence_next = False
            self._fenced.add(incarnation)
        self._check_incarnation(incarnation)
        fault = self.faults.pop(0) if self.faults else self.decide(append)

        async def write() -> None:
            await self.inner.append(incarnation, append)
            self.appends.append((incarnation, append))

        await self._faulty(fault, write)

    async def open(self, app: str, shards: int) -> None:
        """Create or check the schema."""
        await self._call("open", lambda: self.inner.open(app, shards))

    async def close(self) -> None:
        """Close the store that works."""
        await self._call("close", self.inner.close)

    async def load(self, wants: Sequence[Want]) -> list[Recovered]:
        """Read entities back."""
        return await self._call("load", lambda: self.inner.load(wants))

    async def entries(self, entity: str, after: int, limit: int) -> list[Tail]:
        """Read entries behind a number."""
        return await self._call("entries", lambda: self.inner.entries(entity, after, limit))

    async def known(self, spans: Sequence[Span]) -> list[list[Known]]:
        """Read which commands were decided."""
        return await self._call("known", lambda: self.inner.known(spans))

    async def events(self, entity: str, after_seq: int, limit: int) -> list[EventRow]:
        """Read recorded events."""
        return await self._call("events", lambda: self.inner.events(entity, after_seq, limit))

    async def outbox(self, shards: Iterable[str], limit: int) -> list[OutboxRow]:
        """Read undelivered sends."""
        return await self._call("outbox", lambda: self.inner.outbox(shards, limit))

    async def outbox_counts(self) -> tuple[int, int]:
        """Count undelivered and parked sends."""
        return await self._call("outbox_counts", self.inner.outbox_counts)

    async def parked(self, limit: int, entity: str = "") -> list[ParkedRow]:
        """Read sends that were given up."""
        return await self._call("parked", lambda: self.inner.parked(limit, entity))

    async def due(
        self, shards: Iterable[str], until_ms: int, limit: int, after: tuple[int, str, str] = (-1, "", "")
    ) -> list[ReminderRow]:
        """Read due reminders."""
        return await self._call("due", lambda: self.inner.due(shards, until_ms, limit, after))

    async def remembered(self, shards: Iterable[str], limit: int, after: str = "") -> list[str]:
        """Read entities that are to be activated."""
        return await self._call("remembered", lambda: self.inner.remembered(shards, limit, after))

    async def add_failures(self, rows: Sequence[FailureRow]) -> None:
        """Add failures."""
        await self._call("add_failures", lambda: self.inner.add_failures(rows))

    async def failures(self, limit: int, of: str = "") -> list[FailureRow]:
        """Read failures."""
        return await self._call("failures", lambda: self.inner.failures(limit, of))

    async def untold_failures(self, types: Sequence[str], limit: int) -> list[FailureRow]:
        """Read failures that a supervisor has still to be told of."""
        return await self._call("untold_failures", lambda: self.inner.untold_failures(types, limit))

    async def told(self, rows: Sequence[FailureRow]) -> None:
        """Take note that a supervisor was told."""
        await self._call("told", lambda: self.inner.told(rows))

    async def schema(self) -> str | None:
        """Return the description kept last."""
        return await self._call("schema", self.inner.schema)

    async def set_schema(self, text: str) -> None:
        """Keep a description of what the app writes."""
        await self._call("set_schema", lambda: self.inner.set_schema(text))

    async def scan(self, after: int, limit: int) -> list[ScanRow]:
        """Read entries with events, of all entities."""
        return await self._call("scan", lambda: self.inner.scan(after, limit))

    async def scan_states(self, after: str, limit: int) -> list[StateRow]:
        """Read states of all Durable entities."""
        return await self._call("scan_states", lambda: self.inner.scan_states(after, limit))

    async def join(self, host: HostRow) -> int:
        """Enter a host."""
        return await self._call("join", lambda: self.inner.join(host))

    async def reincarnate(self, incarnation: int) -> int:
        """End an incarnation and go on as a new one."""
        self._check_incarnation(incarnation)
        return await self._call("reincarnate", lambda: self.inner.reincarnate(incarnation))

    def renew(self, incarnation: int, at_s: float) -> None:
        """Renew a lease; it can be failed, but neither delayed nor held."""
        self._check_incarnation(incarnation)
        self._check_incarnation(incarnation)
        fault = self._next["renew"].pop(0) if self._next["renew"] else None
        if fault is Fault.BEFORE_WRITE:
            raise self.error()
        self.inner.renew(incarnation, at_s)
        if fault is Fault.AFTER_WRITE:
            raise self.error()

    async def leases(self) -> dict[int, float]:
        """Read all leases."""
        return await self._call("leases", self.inner.leases)

    async def lead(self, after: int = -1) -> int:
        """Begin a leader term."""
        return await self._call("lead", lambda: self.inner.lead(after))

    async def leader(self) -> tuple[int, float]:
        """Return the term and the last renewal of its leader."""
        return await self._call("leader", self.inner.leader)

    async def renew_leader(self, term: int, at_s: float) -> None:
        """Renew the leader's lease."""
        await self._call("renew_leader", lambda: self.inner.renew_leader(term, at_s))

    async def note(self, name: str) -> str | None:
        """Return what the registry noted."""
        return await self._call("note", lambda: self.inner.note(name))

    async def set_note(self, term: int, name: str, text: str) -> None:
        """Keep a note of the registry's."""
        await self._call("set_note", lambda: self.inner.set_note(term, name, text))

    async def read_table(self) -> Table:
        """Read the shard table."""
        return await self._call("read_table", self.inner.read_table)

    async def write_table(self, term: int, version: int, fence: Sequence[int], assign: dict[str, ShardRow]) -> None:
        """Fence and assign."""
        await self._call("write_table", lambda: self.inner.write_table(term, version, fence, assign))

    async def release(self, incarnation: int, shards: Sequence[str]) -> None:
        """Give up shards."""
        self._check_incarnation(incarnation)
        await self._call("release", lambda: self.inner.release(incarnation, shards))
