"""The store in this process's memory: for tests, notebooks and trying things out.

It keeps every rule of the port, fences included; it only forgets when the process ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from remora.errors import Fenced, StoreMismatch, StoreUnavailable
from remora.ids import send_of
from remora.journal import (
    FAILURES_KEPT,
    PAGE_ENTRIES,
    UNTOLD_KEPT,
    Append,
    EntryRow,
    EventRow,
    FailureRow,
    Known,
    OutboxRow,
    ParkedRow,
    Recovered,
    ReminderRow,
    ReminderSet,
    ScanRow,
    Span,
    StateRow,
    Tail,
    Want,
)  # fmt: skip
from remora.sharding.table import HostRow, ShardRow, Table
from remora.storage.sql import term_ended

URL = "memory://"


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def _check_text(append: Append) -> None:
    """Refuse, as a whole, what no database would take: bytes or names that are no UTF-8."""
    reminders = (row for row in (*append.reminders.values(), *append.remembered.values()) if row is not None)
    others = (append.states, append.snapshots, append.marks, append.deletions, append.trims)
    rows = (append.entries, append.outbox, append.delivered, append.parked, append.reminders, reminders)
    try:
        for row in chain(*rows, *(kind.values() for kind in others)):
            for cell in row:
                if type(cell) is bytes:
                    cell.decode()
                elif type(cell) is str:
                    cell.encode()
    except UnicodeError as error:
        msg = f"The store {URL} did not take data: {error}"
        raise StoreUnavailable(msg) from error


class MemoryStore:
    """Journal, membership and shard table in dictionaries."""

    def __init__(self) -> None:
        self.url = URL
        self._app: tuple[str, int] | None = None
        self._entries: dict[str, dict[int, EntryRow]] = {}
        """Entity → number → entry, in the order of numbers."""
        self._scan: list[tuple[str, int]] = []
        """Every entry ever written, in the order of commits."""
        self._states: dict[str, tuple[str, int, int, bytes, int]] = {}
        self._snapshots: dict[str, dict[int, tuple[str, int, int, bytes, int, int]]] = {}
        self._marks: dict[str, tuple[str, int, bytes]] = {}
        self._outbox: dict[tuple[str, int], tuple[str, int, str, bytes]] = {}
        self._parked: dict[tuple[str, int], str] = {}
        self._reminders: dict[tuple[str, str], ReminderSet] = {}
        self._remembered: dict[str, str] = {}
        """Entity → shard."""
        self._failures: dict[tuple[str, str, str], FailureRow] = {}
        self._schema: str | None = None
        self._hosts: dict[int, HostRow] = {}
        self._standing: set[int] = set()
        self._leases: dict[int, float] = {}
        self._shards: dict[str, ShardRow] = {}
        self._version = 0
        self._term = 0
        self._led_s = 0.0
        """When the leader last renewed its lease."""
        self._notes: dict[str, str] = {}

    async def open(self, app: str, shards: int) -> None:
        """Refuse another app or shard count."""
        if self._app is None:
            self._app = (app, shards)
        if self._app != (app, shards):
            msg = f"This store was created for app {self._app[0]!r} with {self._app[1]} shards, not {app!r} with {shards}."
            raise StoreMismatch(msg)

    async def close(self) -> None:
        """Keep everything: a second platform in this process may go on with it."""

    def _check_incarnation(self, incarnation: int) -> None:
        if incarnation not in self._standing:
            msg = f"Incarnation {incarnation} has ended: its shards belong to others now."
            raise Fenced(msg)

    async def append(self, incarnation: int, append: Append) -> None:
        """Write one commit."""
        self._check_incarnation(incarnation)
        _check_text(append)
        last: dict[str, int] = {}
        for row in append.entries:
            known = last.get(row[0]) or self._last(row[0])
            if row[1] != known + 1:
                msg = f"Another writer was first: entry {row[1]} of {row[0]} follows {known}."
                raise Fenced(msg)
            last[row[0]] = row[1]
        for row in append.entries:
            self._entries.setdefault(row[0], {})[row[1]] = row
            self._scan.append((row[0], row[1]))
        for deletion in append.deletions.values():
            self._delete(*deletion)
        self._states.update(append.states)
        for entity, snapshot in append.snapshots.items():
            kept = self._snapshots.setdefault(entity, {})
            kept[snapshot[1]] = snapshot
            for n in sorted(kept)[: -snapshot[5]]:
                del kept[n]
        self._marks.update(append.marks)
        self._append_owed(append)
        for entity, upto in append.trims.values():
            self._trim(entity, upto)

    def _append_owed(self, append: Append) -> None:
        """Write what is owed to others and to later: sends, reminders, activation without being asked."""
        self._outbox.update({(row[0], row[1]): row for row in append.outbox})
        for key in append.delivered:
            self._outbox.pop(key, None)
            self._parked.pop(key, None)
        for reason, sends, entity, n in append.parked:
            if (entity, n) in self._outbox:
                self._parked[entity, n] = reason
                self._outbox[entity, n] = (*self._outbox[entity, n][:3], sends)
        for named, reminder in append.reminders.items():
            if reminder is None:
                self._reminders.pop(named, None)
            else:
                self._reminders[named] = reminder
        for entity, remembered in append.remembered.items():
            if remembered is None:
                self._remembered.pop(entity, None)
            else:
                self._remembered[entity] = remembered[1]

    def _last(self, entity: str) -> int:
        return next(reversed(self._entries.get(entity, {})), 0)

    def _delete(self, entity: str, n: int, upto: int) -> None:
        self._trim(entity, upto)
        for number, row in self._entries.get(entity, {}).items():
            if number < n:
                self._entries[entity][number] = (*row[:3], None, *row[4:])
        self._states.pop(entity, None)
        self._snapshots.pop(entity, None)
        for key in [key for key in self._reminders if key[0] == entity]:
            del self._reminders[key]

    def _trim(self, entity: str, upto: int) -> None:
        entries = self._entries.get(entity, {})
        last = self._last(entity)  # stays: the next number follows it
        for number in [number for number in entries if number <= upto and number != last]:
            del entries[number]

    async def load(self, wants: Sequence[Want]) -> list[Recovered]:
        """Read entities back."""
        return [self._load(want) for want in wants]

    def _load(self, want: Want) -> Recovered:
        entity, window, below, events, ids = want
        rows, last = self._entries.get(entity, {}), self._last(entity)
        state_n, state_seq, state, version = 0, 0, None, 1
        found = self._states.get(entity)
        if found is not None and (below == 0 or found[1] < below):
            _, state_n, state_seq, state, version = found
        usable = [n for n in self._snapshots.get(entity, ()) if below == 0 or n < below]
        if usable:
            _, state_n, state_seq, state, version, _ = self._snapshots[entity][max(usable)]
        _, marks_n, marks = self._marks.get(entity, ("", 0, None))
        forgotten = max(last - window, 0)
        oldest = next((row for n, row in rows.items() if n > forgotten), None)
        sends: dict[str, int] = {}
        for send in (send_of(row[4]) for n, row in rows.items() if marks_n < n <= (state_n if events else last)):
            if send is not None:
                sends[send[0]] = max(sends.get(send[0], 0), send[1])
        decided = [one for one in self._tail(entity, forgotten, last) if one.command_id in ids] if ids else []
        for one in decided:
            one.events = None
        return Recovered(
            entity, state_n, state_seq, _text(state), version, marks_n, _text(marks), last, rows[last][2] if last else 0,
            oldest[1] if oldest else 0, oldest[7] if oldest else 0,
            self._tail(entity, state_n, PAGE_ENTRIES) if events else [], sends, decided,
        )  # fmt: skip

    async def entries(self, entity: str, after: int, limit: int) -> list[Tail]:
        """Read entries behind a number."""
        return self._tail(entity, after, limit)

    async def known(self, spans: Sequence[Span]) -> list[list[Known]]:
        """Read which commands were decided."""
        return [self._known(span) for span in spans]

    def _known(self, span: Span) -> list[Known]:
        rows = [row for n, row in self._entries.get(span.entity, {}).items() if span.after < n <= span.upto]
        return [Known(row[1], row[4], row[7]) for row in rows[:PAGE_ENTRIES]]

    def _tail(self, entity: str, after: int, limit: int) -> list[Tail]:
        rows = [row for n, row in self._entries.get(entity, {}).items() if n > after][:limit]
        return [Tail(r[1], r[2], _text(r[3]), r[4], r[5], r[6].decode(), r[7], r[8]) for r in rows]

    async def events(self, entity: str, after_seq: int, limit: int) -> list[EventRow]:
        """Read recorded events."""
        rows = [r for r in self._entries.get(entity, {}).values() if r[2] > after_seq and r[3] is not None]
        return [EventRow(r[1], r[2], (r[3] or b"").decode(), r[4], r[7]) for r in rows[:limit]]

    async def outbox(self, shards: Iterable[str], limit: int) -> list[OutboxRow]:
        """Read undelivered sends."""
        wanted = set(shards)
        rows = sorted(row[:4] for key, row in self._outbox.items() if row[2] in wanted and key not in self._parked)
        return [OutboxRow(entity, n, sends.decode()) for entity, n, _, sends in rows[:limit]]

    async def outbox_counts(self) -> tuple[int, int]:
        """Count undelivered and parked sends."""
        return len(self._outbox) - len(self._parked), len(self._parked)

    async def parked(self, limit: int, entity: str = "") -> list[ParkedRow]:
        """Read sends that were given up."""
        keys = sorted(key for key in self._parked if key[0] == (entity or key[0]))[:limit]
        return [ParkedRow(*key, self._parked[key], self._outbox[key][3].decode()) for key in keys]

    async def due(
        self, shards: Iterable[str], until_ms: int, limit: int, after: tuple[int, str, str] = (-1, "", "")
    ) -> list[ReminderRow]:
        """Read due reminders."""
        wanted = set(shards)
        rows = [
            ReminderRow(entity, name, due, every, misfire)
            for entity, name, shard, due, every, misfire in self._reminders.values()
            if shard in wanted and due <= until_ms and (due, entity, name) > after
        ]
        return sorted(rows, key=lambda row: (row.due, row.entity, row.name))[:limit]

    async def remembered(self, shards: Iterable[str], limit: int, after: str = "") -> list[str]:
        """Read entities that are to be activated."""
        wanted = set(shards)
        return sorted(key for key, shard in self._remembered.items() if shard in wanted and key > after)[:limit]

    async def add_failures(self, rows: Sequence[FailureRow]) -> None:
        """Add failures."""
        for row in rows:
            key = (row.entity, row.command, row.kind)
            old = self._failures.get(key, FailureRow(*key, row.first_ms, 0, 0, ""))
            latest = row.latest if row.last_ms >= old.last_ms else old.latest
            first_ms, last_ms = min(old.first_ms, row.first_ms), max(old.last_ms, row.last_ms)
            times, untold = old.times + row.times, old.untold + row.untold
            self._failures[key] = FailureRow(*key, first_ms, last_ms, times, latest, untold)
        over = [row for row in self._latest_failures()[FAILURES_KEPT:] if not row.untold]
        for row in over:
            del self._failures[row.entity, row.command, row.kind]
        for row in self._latest_failures()[UNTOLD_KEPT:]:
            del self._failures[row.entity, row.command, row.kind]

    def _latest_failures(self) -> list[FailureRow]:
        rows = self._failures.values()
        return sorted(rows, key=lambda row: (row.last_ms, row.entity, row.command, row.kind), reverse=True)

    async def failures(self, limit: int, of: str = "") -> list[FailureRow]:
        """Read failures."""
        rows = [row for row in self._latest_failures() if of in {"", row.entity, row.entity.partition("/")[0]}]
        return rows[:limit]

    async def untold_failures(self, types: Sequence[str], limit: int) -> list[FailureRow]:
        """Read failures that a supervisor has still to be told of."""
        rows = [row for row in self._latest_failures() if row.untold and row.entity.partition("/")[0] in types]
        return rows[::-1][:limit]

    async def told(self, rows: Sequence[FailureRow]) -> None:
        """Take note that a supervisor was told."""
        for row in rows:
            found = self._failures.get((row.entity, row.command, row.kind))
            if found is not None:
                found.untold = max(found.untold - row.untold, 0)

    async def schema(self) -> str | None:
        """Return the description kept last."""
        return self._schema

    async def set_schema(self, text: str) -> None:
        """Keep a description of what the app writes."""
        self._schema = text

    async def scan(self, after: int, limit: int) -> list[ScanRow]:
        """Read entries with events, of all entities."""
        found: list[ScanRow] = []
        for position in range(after, len(self._scan)):
            entity, n = self._scan[position]
            row = self._entries[entity].get(n)
            if row is not None and row[3] is not None and len(found) < limit:
                found.append(ScanRow(position + 1, entity, n, row[3].decode()))
        return found

    async def scan_states(self, after: str, limit: int) -> list[StateRow]:
        """Read states of all Durable entities."""
        keys = sorted(key for key in self._states if key > after)[:limit]
        return [StateRow(key, r[1], r[4], r[3].decode()) for key in keys for r in (self._states[key],)]

    async def join(self, host: HostRow) -> int:
        """Enter a host."""
        incarnation = len(self._hosts) + 1
        self._hosts[incarnation] = msgspec.structs.replace(host, incarnation=incarnation)
        self._standing.add(incarnation)
        return incarnation

    async def reincarnate(self, incarnation: int) -> int:
        """End an incarnation and go on as a new one."""
        self._check_incarnation(incarnation)
        successor = await self.join(self._hosts[incarnation])
        self._standing.discard(incarnation)
        for shard, row in self._shards.items():
            if row.owner == incarnation:
                self._shards[shard] = ShardRow(successor, row.epoch + 1)
        return successor

    def renew(self, incarnation: int, at_s: float) -> None:
        """Renew a lease."""
        self._check_incarnation(incarnation)
        self._leases[incarnation] = at_s

    async def leases(self) -> dict[int, float]:
        """Read all leases."""
        return dict(self._leases)

    def _check_term(self, term: int) -> None:
        if term != self._term:
            raise term_ended(term, self._term)

    async def lead(self, after: int = -1) -> int:
        """Begin a leader term."""
        if after >= 0:
            self._check_term(after)
        self._term += 1
        self._led_s = 0.0
        return self._term

    async def leader(self) -> tuple[int, float]:
        """Return the term and the last renewal of its leader."""
        return self._term, self._led_s

    async def renew_leader(self, term: int, at_s: float) -> None:
        """Renew the leader's lease."""
        self._check_term(term)
        self._led_s = at_s

    async def note(self, name: str) -> str | None:
        """Return what the registry noted."""
        return self._notes.get(name)

    async def set_note(self, term: int, name: str, text: str) -> None:
        """Keep a note of the registry's."""
        self._check_term(term)
        self._notes[name] = text

    async def read_table(self) -> Table:
        """Read the shard table and the hosts that stand."""
        hosts = {number: self._hosts[number] for number in sorted(self._standing)}
        return Table(self._version, hosts, dict(self._shards))

    async def write_table(self, term: int, version: int, fence: Sequence[int], assign: dict[str, ShardRow]) -> None:
        """Fence and assign."""
        self._check_term(term)
        for shard, row in assign.items():
            current = self._shards.get(shard, row)
            if current.epoch > row.epoch or (current.epoch == row.epoch and row.owner not in {0, current.owner}):
                msg = f"Shard {shard} has got another owner meanwhile: read the table again."
                raise StoreUnavailable(msg)
        ended = {row.owner for row in assign.values()} - self._standing.difference(fence) - {0}
        if ended:
            msg = f"Incarnation {min(ended)} has ended meanwhile and can own nothing: read the table again."
            raise StoreUnavailable(msg)
        self._standing.difference_update(fence)
        self._shards.update(assign)
        self._version = version

    async def release(self, incarnation: int, shards: Sequence[str]) -> None:
        """Give up shards."""
        self._check_incarnation(incarnation)
        for shard in shards:
            row = self._shards.get(shard)
            if row is not None and row.owner == incarnation:
                self._shards[shard] = ShardRow(0, row.epoch)
