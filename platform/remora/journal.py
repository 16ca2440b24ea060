"""The port to durable storage. It carries bytes and plain records; adapters know no entity.

The unit is the *entry*: what one command did to one entity. Entries of an entity are numbered
1, 2, 3 …; one entry holds the command's events, its id and its reply, so that effect and answer
are one row. Beside the entries stand, per entity, the present state of ``Durable`` ones
(``states``), the last snapshots of ``EventSourced`` ones and the lane watermarks of durable sends
(``marks``), the latter two only there to make recovery short.

Writes of a host go through ``append``, which checks in the same transaction that the host's
incarnation stands, or writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from remora.sharding.table import HostRow, ShardRow, Table

EntryRow = tuple[str, int, int, bytes | None, str, int, bytes, int, int]
"""(entity, n, event sequence after it, events as JSON array of [name, event] or None,
command id, verdict, reply or error as JSON, wall clock in ms, fingerprint of what was asked)"""

ReminderSet = tuple[str, str, str, int, int, int]
"""(entity, name, shard, due in ms, period in ms or 0, misfire policy)"""

PAGE_ENTRIES = 5_000
"""Entries of one entity read at a time, so that a long journal is not held in memory as a whole."""


@dataclass(slots=True)
class Append:
    """What one commit writes, all or nothing, in the order of the fields."""

    entries: list[EntryRow] = field(default_factory=list)
    deletions: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """entity → (entity, n, upto): deleted with entry n. What it had before n goes: states, snapshots, events and
    reminders; entries up to ``upto`` go whole, later ones keep their ids and replies."""
    states: dict[str, tuple[str, int, int, bytes, int]] = field(default_factory=dict)
    """entity → (entity, n, seq, state as JSON, version); replaces the one before"""
    snapshots: dict[str, tuple[str, int, int, bytes, int, int]] = field(default_factory=dict)
    """entity → (entity, n, seq, state as JSON, version, how many to keep with this one)"""
    marks: dict[str, tuple[str, int, bytes]] = field(default_factory=dict)
    """entity → (entity, n, {sender: number} as JSON)"""
    outbox: list[tuple[str, int, str, bytes]] = field(default_factory=list)
    """(entity, n, shard, sends as JSON)"""
    delivered: list[tuple[str, int]] = field(default_factory=list)
    """outbox rows done with, parked ones too: (entity, n)"""
    parked: list[tuple[str, bytes, str, int]] = field(default_factory=list)
    """outbox rows given up: (reason, the sends that failed as JSON, entity, n)"""
    reminders: dict[tuple[str, str], ReminderSet | None] = field(default_factory=dict)
    """(entity, name) → the reminder, None cancels"""
    remembered: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    """entity → (entity, shard): whoever owns the shard activates it without being asked; None: not any more"""
    trims: dict[str, tuple[str, int]] = field(default_factory=dict)
    """entity → (entity, upto): entries up to that number are not needed any more; the last one stays, whatever is said"""

    @property
    def only_entries(self) -> bool:
        """Return whether nothing but entries is to be written, as most commits have it."""
        return not (
            self.states
            or self.snapshots
            or self.marks
            or self.outbox
            or self.delivered
            or self.parked
            or self.reminders
            or self.remembered
            or self.trims
            or self.deletions
        )

    def __bool__(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.entries) or not self.only_entries


class Want(NamedTuple):
    """One entity to read back."""

    entity: str
    window: int
    """The last so many entries are its dedup window."""
    below: int = 0
    """Only snapshots at an entry before this one count; 0: any. What a reader gives that could not use the newest."""
    events: bool = True
    """Whether entries since the snapshot are wanted: its state is made of their events."""
    ids: tuple[str, ...] = ()
    """Commands that wait for it and may have been decided before: whatever of them is in the window is wanted."""


class Span(NamedTuple):
    """Entries of one entity whose commands are asked for."""

    entity: str
    after: int
    """Number of the entry before the first."""
    upto: int
    """Number of the last."""


class Tail(msgspec.Struct, array_like=True):
    """One entry as recovery reads it."""

    n: int
    seq: int
    events: str | None
    command_id: str
    verdict: int
    reply: str
    at: int
    fingerprint: int = 0
    """Of what was asked; 0 in entries of releases that kept none."""


class Known(msgspec.Struct, array_like=True, frozen=True):
    """An entry, and of it only that it was decided: most of them nobody ever asks for again."""

    n: int
    command_id: str
    at: int


class Recovered(msgspec.Struct, array_like=True):
    """What the store holds of one entity."""

    entity: str
    state_n: int = 0
    """Entry number that state or snapshot stands at; 0 without one."""
    state_seq: int = 0
    state: str | None = None
    state_version: int = 1
    marks_n: int = 0
    marks: str | None = None
    last: int = 0
    """Number of the last entry."""
    last_seq: int = 0
    """Number of the last event."""
    oldest_n: int = 0
    """Number of the oldest entry in the dedup window; 0 if there is none."""
    oldest_ms: int = 0
    """When that was made."""
    tail: list[Tail] = []
    """If wanted, all entries since the state, in order; the first PAGE_ENTRIES of them, the others are read with
    ``entries``."""
    sends: dict[str, int] = {}
    """Durable sends behind the marks, up to the tail if that is wanted: the last number of each sender."""
    decided: list[Tail] = []
    """Entries of the commands that were asked for by id, in order, without their events."""


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


class ParkedRow(msgspec.Struct, array_like=True):
    """Durable sends of one entry that were given up."""

    entity: str
    n: int
    reason: str
    sends: str


class ReminderRow(msgspec.Struct, array_like=True):
    """One due reminder."""

    entity: str
    name: str
    due: int
    every: int = 0
    """Period in ms; 0: it rings once."""
    misfire: int = 0


class ScanRow(msgspec.Struct, array_like=True):
    """One entry with events, as a reader of the whole journal gets it."""

    position: int
    """Rises from row to row."""
    entity: str
    n: int
    events: str


class StateRow(msgspec.Struct, array_like=True):
    """The state of one ``Durable`` entity, as a reader of all of them gets it."""

    entity: str
    n: int
    version: int
    state: str


class FailureRow(msgspec.Struct, array_like=True):
    """All failures of one command of an entity with one exception."""

    entity: str
    command: str
    kind: str
    """Name of the exception's class."""
    first_ms: int
    last_ms: int
    times: int
    latest: str
    """The last one in full, as JSON: see ``supervision.failure.Failure``."""
    untold: int = 0
    """How many of them their supervisor has still to be told of."""


FAILURES_KEPT = 10_000
"""Rows of failures that are kept; of more, those go that were seen last the longest ago."""
UNTOLD_KEPT = 10 * FAILURES_KEPT
"""The same of all rows, those among them that a supervisor has still to be told of."""


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

    async def load(self, wants: Sequence[Want]) -> list[Recovered]:
        """Read entities back, in the order asked for; unknown ones come back empty."""
        ...

    async def entries(self, entity: str, after: int, limit: int) -> list[Tail]:
        """Read an entity's entries behind a number."""
        ...

    async def known(self, spans: Sequence[Span]) -> list[list[Known]]:
        """Read which commands were decided by the entries of each span, in order; the first PAGE_ENTRIES of each."""
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

    async def parked(self, limit: int, entity: str = "") -> list[ParkedRow]:
        """Read sends that were given up, of one entity or of all, by entity and entry."""
        ...

    async def due(
        self, shards: Iterable[str], until_ms: int, limit: int, after: tuple[int, str, str] = (-1, "", "")
    ) -> list[ReminderRow]:
        """Read due reminders of some shards, by (due, entity, name), behind ``after``."""
        ...

    async def remembered(self, shards: Iterable[str], limit: int, after: str = "") -> list[str]:
        """Read the entities of some shards that are to be activated without being asked, by key, behind a key."""
        ...

    async def add_failures(self, rows: Sequence[FailureRow]) -> None:
        """Add failures to those of the same entity, command and exception.

        ``FAILURES_KEPT`` rows are kept, and older ones that are untold as long as there are no more than ``UNTOLD_KEPT``.

        No incarnation is asked for: what failed has failed, also on a host that was fenced meanwhile.
        """
        ...

    async def failures(self, limit: int, of: str = "") -> list[FailureRow]:
        """Return failures, the latest first.

        Args:
            limit: At most so many.
            of: An entity ``type/id``, or a type; empty: of all.
        """
        ...

    async def untold_failures(self, types: Sequence[str], limit: int) -> list[FailureRow]:
        """Return failures of some entity types that their supervisor has still to be told of, the oldest first."""
        ...

    async def told(self, rows: Sequence[FailureRow]) -> None:
        """Take note that a supervisor was told of ``untold`` failures of each of these rows; what came since stays untold."""
        ...

    async def schema(self) -> str | None:
        """Return what ``set_schema`` kept last."""
        ...

    async def set_schema(self, text: str) -> None:
        """Keep a description of what the app writes, for the next release to compare itself with."""
        ...

    async def scan(self, after: int, limit: int) -> list[ScanRow]:
        """Read entries with events of all entities behind a position."""
        ...

    async def scan_states(self, after: str, limit: int) -> list[StateRow]:
        """Read states of ``Durable`` entities, by key, behind a key."""
        ...

    async def join(self, host: HostRow) -> int:
        """Enter a host and return its incarnation, higher than any before."""
        ...

    async def reincarnate(self, incarnation: int) -> int:
        """End an incarnation and move its shards to a new one of the same host, in one step."""
        ...

    def renew(self, incarnation: int, at_s: float) -> None:
        """Renew a lease as of ``at_s`` if ``incarnation`` stands (``Fenced``). Blocking; for the host's lease thread."""
        ...

    async def leases(self) -> dict[int, float]:
        """Return the last renewal per incarnation."""
        ...

    async def lead(self, after: int = -1) -> int:
        """Begin a new leader term; writes of earlier terms are refused from now on.

        Args:
            after: The term that is to be the current one: of several that try, one succeeds. Below 0: whatever it is.

        Raises:
            Fenced: Another term than ``after`` is the current one.
        """
        ...

    async def leader(self) -> tuple[int, float]:
        """Return the current term (0: there was none) and when its leader last renewed its lease (0.0: never)."""
        ...

    async def renew_leader(self, term: int, at_s: float) -> None:
        """Renew the leader's lease as of ``at_s``.

        Raises:
            Fenced: The term has ended.
        """
        ...

    async def note(self, name: str) -> str | None:
        """Return what the registry has noted under a name; None if nothing."""
        ...

    async def set_note(self, term: int, name: str, text: str) -> None:
        """Keep something of the registry's that has to outlive it.

        Raises:
            Fenced: The term has ended.
        """
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
