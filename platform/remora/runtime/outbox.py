"""Durable sends: kept with the command's commit, delivered after it, applied once.

A send is an ask whose lane is the sending entity and whose number rises over the sender's life
(entry number times 256 + place in the entry). The receiver applies a sender's numbers in order and
remembers the last one, so that a send may be repeated at will: after a crash, a move, a lost
answer. A row leaves the store when all sends of its entry are answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from remora.client import Pending
from remora.errors import (
    DeadlineExceeded,
    HandlerFailed,
    Overloaded,
    Rejected,
    RemoraError,
    Unavailable,
    decode_error,
)  # fmt: skip
from remora.journal import OutboxRow, ParkedRow
from remora.lifecycle import Phase
from remora.messages import ERROR, REPEATED_ERROR, SEND, VALUE, Ask

if TYPE_CHECKING:
    from remora.client import Client
    from remora.runtime.cell import Cell
    from remora.runtime.committer import Commit, Sink
    from remora.runtime.host import Host

Send = tuple[str, str, str, bytes]
_decode_sends = msgspec.json.Decoder(list[tuple[str, str, str, msgspec.Raw]]).decode
_json = msgspec.json.Encoder().encode
SCAN_MAX = 200_000
"""Rows read back per takeover; a host never has more (see Settings.outbox_rows_max)."""
TRIES_MAX = 10
"""Deliveries of one send that the receiver's own code may fail before it is parked."""
RELEASE_MAX = 1_000
"""Entries whose parked sends are released at a time."""
FOREVER_S = 10**9
"""A durable send has no deadline."""


def _written(sends: Iterable[Send]) -> bytes:
    return _json([(kind, ident, method, msgspec.Raw(args)) for kind, ident, method, args in sends])


def _read(text: str) -> list[Send]:
    return [(kind, ident, method, bytes(args)) for kind, ident, method, args in _decode_sends(text)]


class Row:
    """The sends of one entry that are not all answered."""

    __slots__ = ("dropped", "entity", "failed", "left", "n", "reason", "under_way")

    def __init__(self, entity: str, n: int, left: int) -> None:
        self.entity = entity
        self.n = n
        self.left = left
        self.reason = ""
        """Why the last of those that failed did."""
        self.failed: list[tuple[int, Send]] = []
        """Those that no try will deliver, with their places."""
        self.under_way: set[Delivery] = set()
        self.dropped = False
        """Whether another host delivers it now."""


class Delivery(Pending):
    """One durable send under way."""

    __slots__ = ("failures", "outbox", "place", "row", "send")
    outbox: Outbox
    row: Row
    place: int
    send: Send
    failures: int

    def wants_retry(self, error: RemoraError) -> bool:
        """Try again when the receiver's own code failed, a stated number of times."""
        if not isinstance(error, HandlerFailed | DeadlineExceeded):
            return False
        self.failures += 1
        return self.failures < TRIES_MAX

    def resolve(self, verdict: int, payload: bytes) -> None:
        """Take the receiver's answer; a business "no" is one too."""
        if verdict in {ERROR, REPEATED_ERROR}:
            error = decode_error(payload)
            if not isinstance(error, Rejected):
                self.row.reason = f"{self.entity}.{self.ask.method}: {error.message}"
                self.row.failed.append((self.place, self.send))
        self.row.under_way.discard(self)
        self.outbox.answered(self.row)

    def fail(self, error: RemoraError) -> None:
        """The client was closed: the row stays in the store for whoever owns the shard next."""


class Outbox:
    """A host's durable sends."""

    def __init__(self, host: Host, client: Client) -> None:
        self._host = host
        self._client = client
        self._rows: dict[tuple[str, int], Row] = {}
        self._queue: deque[tuple[Row, int, Send]] = deque()
        self._scanning: dict[str, list[tuple[str, int, list[Send]]]] = {}
        self._scan_again: set[str] = set()
        self._in_flight = 0
        self._blocked = False
        self._releasing: set[tuple[str, int]] = set()
        self.delivered = 0
        """Rows delivered so far."""

    @property
    def pending(self) -> int:
        """Rows not delivered yet."""
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether new commands must wait until some are delivered."""
        return len(self._rows) >= self._host.settings.outbox_rows_max

    def add(self, cell: Cell, commit: Commit, sends: list[Send]) -> None:
        """Write a command's sends with its commit and deliver them after it."""
        n, shard, key = cell.n, cell.shard.key, cell.key
        data = _written(sends)
        commit.append.outbox.append((key, n, shard, data))
        self._rows[key, n] = Row(key, n, len(sends))

        def committed(error: RemoraError | None) -> None:
            if error is not None:
                self._rows.pop((key, n), None)
            elif shard in self._scanning:
                self._scanning[shard].append((key, n, sends))  # older rows of the sender go first
            else:
                self._begin(key, n, sends)

        commit.waiters.append(committed)

    def take_over(self, shards: Iterable[str]) -> Coroutine[Any, Any, None]:
        """Deliver what the store holds of these shards and this host does not know of.

        From the call on, and not only from when it is awaited, new sends wait for the older ones.
        """
        names = []
        for name in shards:
            if name in self._scanning:
                self._scan_again.add(name)
            else:
                self._scanning[name] = []
                names.append(name)
        return self._scan(names)

    async def _scan(self, names: list[str]) -> None:
        while names:
            asked = names
            rows = await self._host.patiently(lambda: self._host.store.outbox(asked, SCAN_MAX))  # noqa: B023 - awaited in this round
            # What was asked for again while this was read may have older rows than it found: nothing of it begins yet.
            names = [name for name in asked if name in self._scan_again]
            self._scan_again.difference_update(names)
            ready = [item for name in asked if name not in names for item in self._scanning.pop(name)]
            ready += [
                (row.entity, row.n, sends)
                for row in rows
                if (row.entity, row.n) not in self._rows
                and self._host.shard_name(row.entity) not in names
                and (sends := self._enter(row))
            ]
            # By number, read and held back alike: a receiver takes one that comes behind a later one for delivered.
            for key, n, sends in sorted(ready, key=lambda item: item[:2]):
                self._begin(key, n, sends)

    def _enter(self, row: OutboxRow) -> list[Send]:
        try:
            sends = _read(row.sends)
        except ValueError as error:  # one row that cannot be read must not hold up all others
            reason = f"what was to be sent cannot be read: {error}"
            self._host.log.warning("sends of %s at entry %d are parked: %s", row.entity, row.n, reason)
            self._host.committer.open().append.parked.append((reason, row.sends.encode(), row.entity, row.n))
            return []
        self._rows[row.entity, row.n] = Row(row.entity, row.n, len(sends))
        return sends

    async def release(self, cell: Cell, ask: Ask, sink: Sink) -> None:
        """Send again what was parked of an entity, as sends of a new entry: their receivers went past the old numbers."""
        try:
            rows = await self._host.store.parked(RELEASE_MAX, cell.key)
        except RemoraError as error:
            sink.answer(ask.n, ERROR, error.encode())
            return
        if cell.phase is not Phase.READY:
            refusal = Unavailable(f"{cell.key} is {cell.phase.value}: nothing was released.", entity=cell.key)
            sink.answer(ask.n, ERROR, refusal.encode())
            return
        released = 0
        for row in rows:
            if (row.entity, row.n) in self._releasing:
                continue
            try:
                sends = _read(row.sends)
            except ValueError:
                continue  # as it was when it was parked: it stays
            released += self._release(cell, row, sends)
        cell.answer(sink, ask.n, VALUE, _json(released))

    def _release(self, cell: Cell, row: ParkedRow, sends: list[Send]) -> int:
        key = (row.entity, row.n)
        commit = cell.note(f"$release:{row.n}")
        commit.append.delivered.append(key)
        self._releasing.add(key)
        commit.waiters.append(lambda _: self._releasing.discard(key))
        if sends:
            self.add(cell, commit, sends)
        return len(sends)

    def drop(self, shards: Iterable[str]) -> None:
        """Forget the sends of shards that left this host; their new owner reads them from the store."""
        left = set(shards)
        for key in [key for key in self._rows if self._host.shard_name(key[0]) in left]:
            row = self._rows.pop(key)
            row.dropped = True
            for delivery in row.under_way:
                self._client.withdraw(delivery)
            self._in_flight -= len(row.under_way)
        self._queue = deque(item for item in self._queue if not item[0].dropped)
        self._feed()

    def _begin(self, key: str, n: int, sends: list[Send]) -> None:
        row = self._rows.get((key, n))
        if row is None:
            return
        self._queue.extend((row, place, send) for place, send in enumerate(sends))
        self._feed()

    def _feed(self) -> None:
        while self._queue and self._in_flight < self._host.settings.outbox_in_flight_max:
            item = self._queue.popleft()
            try:
                self._submit(*item)
            except Overloaded as error:
                self._queue.appendleft(item)
                if not self._blocked:
                    self._blocked = True
                    self._host.loop.call_later(error.retry_after_s, self._unblock)
                return

    def _unblock(self) -> None:
        self._blocked = False
        self._feed()

    def _submit(self, row: Row, place: int, send: Send) -> None:
        kind, ident, method, args = send
        spec = self._host.app.specs.get(kind)
        if spec is None:
            row.reason = f"{kind}/{ident}.{method}: the app has no entity type {kind!r}"
            row.failed.append((place, send))
            self._in_flight += 1
            self.answered(row)
            return
        ask = Ask(
            self._client.number(),
            kind,
            ident,
            method,
            args,
            "",
            FOREVER_S,
            row.entity,
            row.n * 256 + place + 1,
            0,
            (),
            SEND,
        )
        delivery: Any = self._client.pending(spec, ask, float("inf"), None, Delivery)
        delivery.outbox, delivery.row, delivery.place, delivery.send, delivery.failures = self, row, place, send, 0
        self._client.submit(delivery)
        row.under_way.add(delivery)
        self._in_flight += 1

    def answered(self, row: Row) -> None:
        """One send of ``row`` got its answer."""
        self._in_flight -= 1
        row.left -= 1
        if row.left == 0 and self._rows.pop((row.entity, row.n), None) is not None:
            append = self._host.committer.open().append
            if row.reason:
                self._host.log.error("a durable send of %s is parked: %s", row.entity, row.reason)
                append.parked.append((row.reason, _written(send for _, send in sorted(row.failed)), row.entity, row.n))
            else:
                append.delivered.append((row.entity, row.n))
                self.delivered += 1
            if self._host.held:
                self._host.admit_held()
        if self._queue:
            self._feed()
