"""The port to durable storage. It carries bytes and plain records; adapters know no entity.

The unit is the *entry*: what one command did to one entity. Entries of an entity are numbered
1, 2, 3 …; one entry holds the command's events, its id and its reply, so that effect and answer
are one row. Beside the entries stand, per entity, the last snapshot (``states``) and the lane
watermarks of durable sends (``marks``), both only there to make recovery short.

Writes of a host go through ``append``, which checks in the same transaction that the host's
incarnation stands, or writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from remora.sharding.table import HostRow, ShardRow, Table

EntryRow = tuple[str, int, int, bytes | None, str, int, bytes, int]
"""(entity, n, event sequence after it, events as JSON array of [name, event] or None,
command id, verdict, reply or error as JSON, wall clock in ms)"""


@dataclass(slots=True)
class Append:
    """What one commit writes, all or nothing."""

    entries: list[EntryRow] = field(default_factory=list)
    states: dict[str, tuple[str, int, int, bytes]] = field(default_factory=dict)
    """entity → (entity, n, seq, state as JSON)"""
    marks: dict[str, tuple[str, int, bytes]] = field(default_factory=dict)
    """entity → (entity, n, {sender: number} as JSON)"""
    outbox: list[tuple[str, int, str, bytes]] = field(default_factory=list)
    """(entity, n, shard, sends as JSON)"""
    delivered: list[tuple[str, int]] = field(default_factory=list)
    """outbox rows done with: (entity, n)"""
    parked: list[tuple[str, str, int]] = field(default_factory=list)
    """outbox rows given up: (reason, entity, n)"""
    reminders: dict[tuple[str, str], tuple[str, str, str, int] | None] = field(default_factory=dict)
    """(entity, name) → (entity, name, shard, due in ms), None cancels"""

    @property
    def only_entries(self) -> bool:
        """Return whether nothing but entries is to be written, as most commits have it."""
        return not (self.states or self.marks or self.outbox or self.delivered or self.parked or self.reminders)

    def __bool__(self) -> bool:
        """Return whether there is anything to write."""
        return bool(
            self.entries or self.states or self.marks or self.outbox or self.delivered or self.parked or self.reminders
        )


class Tail(msgspec.Struct, array_like=True):
    """One entry as recovery reads it."""

    n: int
    seq: int
    events: str | None
    command_id: str
    verdict: int
    reply: str
    at: int


class Recovered(msgspec.Struct, array_like=True):
    """What the store holds of one entity."""

    entity: str
    state_n: int = 0
    """Entry number the snapshot stands at; 0 without a snapshot."""
    state_seq: int = 0
    state: str | None = None
    marks_n: int = 0
    marks: str | None = None
    tail: list[Tail] = []
    """Entries in order: all since the older of snapshot and marks, and the dedup window."""


class EventRow(msgspec.Struct, array_like=True):
    """One entry's events, for history."""

    n: int
    seq: int
    events: str
    command_id: str
    at: int


class OutboxRow(msgspec.Struct, array_like=True):
    """The durable sends of one entry that are not all delivered."""

    entity: str
    n: int
    sends: str
    """JSON array of [type, id, method, arguments]"""


class ReminderRow(msgspec.Struct, array_like=True):
    """One due reminder."""

    entity: str
    name: str
    due: int


class Store(Protocol):
    """Journal, membership and shard table of one app.

    All methods raise ``StoreUnavailable`` when the store does not answer, and ``Fenced`` where an
    incarnation is checked and has ended.
    """

    url: str

    async def open(self, app: str, shards: int) -> None:
        """Create or check the schema; refuse a store of another app or shard count (``StoreMismatch``)."""
        ...

    async def close(self) -> None:
        """Release connections and threads."""
        ...

    async def append(self, incarnation: int, append: Append) -> None:
        """Write all of ``append`` if ``incarnation`` stands, or nothing (``Fenced``)."""
        ...

    async def load(self, wants: Sequence[tuple[str, int]]) -> list[Recovered]:
        """Read entities back: (entity, dedup window) each; unknown ones come back empty."""
        ...

    async def events(self, entity: str, after_seq: int, limit: int) -> list[EventRow]:
        """Read an entity's recorded events behind a sequence number."""
        ...

    async def outbox(self, shards: Iterable[str], limit: int) -> list[OutboxRow]:
        """Read undelivered, unparked sends of some shards, oldest entry first per entity."""
        ...

    async def outbox_counts(self) -> tuple[int, int]:
        """Return how many outbox rows are undelivered and how many are parked."""
        ...

    async def due(self, shards: Iterable[str], until_ms: int, limit: int) -> list[ReminderRow]:
        """Read due reminders of some shards."""
        ...

    async def join(self, host: HostRow) -> int:
        """Enter a host and return its incarnation, higher than any before."""
        ...

    async def reincarnate(self, incarnation: int) -> int:
        """End an incarnation and move its shards to a new one of the same host, in one step."""
        ...

    def renew(self, incarnation: int, at_s: float) -> None:
        """Renew a lease as of ``at_s``. Blocking; called from the host's own lease thread."""
        ...

    async def leases(self) -> dict[int, float]:
        """Return the last renewal per incarnation."""
        ...

    async def lead(self) -> int:
        """Begin a new leader term; writes of earlier terms are refused from now on."""
        ...

    async def read_table(self) -> Table:
        """Return the shard table as stored."""
        ...

    async def write_table(self, term: int, version: int, fence: Sequence[int], assign: dict[str, ShardRow]) -> None:
        """Fence incarnations and write new owners, in one transaction.

        Raises:
            Fenced: The term has ended.
            StoreUnavailable: A shard's epoch is past the one to write, or a new owner does not stand any more:
                it was decided on an older table.
        """
        ...

    async def release(self, incarnation: int, shards: Sequence[str]) -> None:
        """Give up shards of an incarnation that stands: their owner becomes 0."""
        ...
