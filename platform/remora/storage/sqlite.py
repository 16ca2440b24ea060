"""The store on SQLite: the embedded default for one machine.

A commit is one statement (see the schema): each step of a statement gives up and re-takes the
interpreter lock, which on a busy host costs far more than the rows. ``sqlite_file`` is what is below.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec

from remora.errors import Corrupt, StoreUnavailable
from remora.ids import SEND_DIGITS_MAX
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
    ScanRow,
    Span,
    StateRow,
    Tail,
    Want,
)  # fmt: skip
from remora.sharding.table import HostRow, ShardRow, Table, about_of, host_row
from remora.storage.sql import rows_as_json, term_ended
from remora.storage.sqlite_file import SqliteFile

T = TypeVar("T")

_decode_recovered = msgspec.json.Decoder(list[Recovered]).decode
_decode_events = msgspec.json.Decoder(list[EventRow]).decode
_decode_outbox = msgspec.json.Decoder(list[OutboxRow]).decode
_decode_reminders = msgspec.json.Decoder(list[ReminderRow]).decode
_decode_known = msgspec.json.Decoder(list[Known]).decode
_decode_tail = msgspec.json.Decoder(list[Tail]).decode
_decode_parked = msgspec.json.Decoder(list[ParkedRow]).decode
_decode_scan = msgspec.json.Decoder(list[ScanRow]).decode
_decode_states = msgspec.json.Decoder(list[StateRow]).decode
_decode_failures = msgspec.json.Decoder(list[FailureRow]).decode
_decode_keys = msgspec.json.Decoder(list[str]).decode
_encode = msgspec.json.Encoder().encode

_TAIL = "n, seq, events, command_id, verdict, reply, at, fingerprint"
_ENTRY_COLUMNS = 9
_ENTRY_SIZES = (1, 4, 16, 64, 256, 1024, 3600)
"""Rows of the prepared statements that write entries; SQLite takes 32,766 values in one."""

_HEAD = "rtrim(command_id, '0123456789')"
"""Of a durable send's id: its sender and a '>'."""
_IS_SEND = f"{_HEAD} GLOB '*>' AND length(command_id) - length({_HEAD}) BETWEEN 1 AND {SEND_DIGITS_MAX}"
"""See ``ids.send_of``."""
_LOAD = f"""
WITH want AS MATERIALIZED (
    SELECT w.value ->> 0 AS entity, w.value ->> 1 AS dedup, w.value ->> 2 AS below, w.value ->> 3 AS events,
           w.value -> 4 AS ids,
           (SELECT max(n) FROM entries e WHERE e.entity = w.value ->> 0) AS last,
           (SELECT max(n) FROM snapshots s
            WHERE s.entity = w.value ->> 0 AND (w.value ->> 2 = 0 OR s.n < w.value ->> 2)) AS snapshot
    FROM json_each(?) w
), found AS MATERIALIZED (
    SELECT want.entity, coalesce(p.n, s.n, 0) AS n, coalesce(p.seq, s.seq, 0) AS seq,
           coalesce(p.state, s.state) AS state, coalesce(p.version, s.version, 1) AS version,
           coalesce(m.n, 0) AS marks_n, m.marks AS marks, coalesce(want.last, 0) AS last, coalesce(l.seq, 0) AS last_seq,
           max(coalesce(want.last, 0) - want.dedup, 0) AS forgotten, want.events AS events, want.ids AS ids
    FROM want
    LEFT JOIN snapshots p ON p.entity = want.entity AND p.n = want.snapshot
    LEFT JOIN states s ON s.entity = want.entity AND (want.below = 0 OR s.n < want.below)
    LEFT JOIN marks m ON m.entity = want.entity
    LEFT JOIN entries l ON l.entity = want.entity AND l.n = want.last
)
SELECT json_group_array(json_array(
    f.entity, f.n, f.seq, f.state, f.version, f.marks_n, f.marks, f.last, f.last_seq, coalesce(o.n, 0), coalesce(o.at, 0),
    json((SELECT json_group_array(json_array({_TAIL}))
     FROM (SELECT * FROM entries e WHERE e.entity = f.entity AND e.n > f.n AND f.events ORDER BY n LIMIT {PAGE_ENTRIES}))),
    json((SELECT json_group_object(substr(head, 1, length(head) - 1), number)
     FROM (SELECT {_HEAD} AS head, max(CAST(substr(command_id, length({_HEAD}) + 1) AS INTEGER)) AS number
           FROM entries e WHERE e.entity = f.entity AND e.n > f.marks_n
           AND e.n <= CASE WHEN f.events THEN f.n ELSE f.last END AND command_id GLOB '*>*' AND {_IS_SEND} GROUP BY head))),
    json((SELECT json_group_array(json_array(n, seq, NULL, command_id, verdict, reply, at, fingerprint))
     FROM (SELECT * FROM entries e WHERE f.ids <> '[]' AND e.entity = f.entity AND e.n > f.forgotten
           AND e.command_id IN (SELECT value FROM json_each(f.ids)) ORDER BY n)))))
FROM found f LEFT JOIN entries o ON o.entity = f.entity
     AND o.n = (SELECT min(n) FROM entries e WHERE e.entity = f.entity AND e.n > f.forgotten)
"""  # noqa: S608 - constant text


_ADD_FAILURES = """
INSERT INTO failures
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
FROM json_each(?) WHERE true ON CONFLICT (entity, command, kind) DO UPDATE SET
    first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms),
    times = times + excluded.times, untold = untold + excluded.untold,
    latest = CASE WHEN excluded.last_ms >= last_ms THEN excluded.latest ELSE latest END
"""
_TOLD = """
UPDATE failures SET untold = max(untold - (told.value ->> 7), 0) FROM json_each(?) AS told
WHERE entity = told.value ->> 0 AND command = told.value ->> 1 AND kind = told.value ->> 2
"""
_TRIM_FAILURES = """
DELETE FROM failures WHERE untold <= ? AND (last_ms, entity, command, kind) <= (
    SELECT last_ms, entity, command, kind FROM failures
    ORDER BY last_ms DESC, entity DESC, command DESC, kind DESC LIMIT 1 OFFSET ?)
"""
_ANY = 2**62


@cache
def _insert_entries(size: int) -> str:
    """Return the statement that writes up to ``size`` entries if the incarnation stands; unused places are NULL."""
    row = f"({','.join('?' * _ENTRY_COLUMNS)})"
    return (
        "INSERT INTO entries (entity, n, seq, events, command_id, verdict, reply, at, fingerprint) "  # noqa: S608 - constant text
        f"SELECT * FROM (VALUES {','.join([row] * size)}) "
        "WHERE column1 IS NOT NULL AND (SELECT fenced FROM hosts WHERE incarnation = ?) = 0"
    )


class SqliteStore(SqliteFile):
    """Journal, membership and shard table in one SQLite file.

    Args:
        path: The database file; ``-leases`` and ``-turn`` files stand beside it.
    """

    # -- journal -----------------------------------------------------------------------------

    async def append(self, incarnation: int, append: Append) -> None:
        """Write one commit."""
        await self._on(self._writer, self._append, incarnation, append)

    def _append(self, incarnation: int, append: Append) -> None:
        if append.only_entries and len(append.entries) <= _ENTRY_SIZES[-1]:
            self._append_entries(incarnation, append.entries)
        else:
            self._append_all(incarnation, append)

    def _append_entries(self, incarnation: int, entries: Sequence[EntryRow]) -> None:
        """Write a commit of nothing but entries: half the cost a row of the general statement, which goes by JSON."""
        size = next(size for size in _ENTRY_SIZES if size >= len(entries))
        values: list[Any] = []
        for entity, n, seq, events, command_id, verdict, reply, at, fingerprint in entries:
            text = None if events is None else events.decode()
            values += (entity, n, seq, text, command_id, verdict, reply.decode(), at, fingerprint)
        values += [None] * (_ENTRY_COLUMNS * (size - len(entries)))
        with self._turn_taken():
            written = self._write.execute(_insert_entries(size), (*values, incarnation)).rowcount
        if written != len(entries):
            raise self._ended(incarnation)

    def _append_all(self, incarnation: int, append: Append) -> None:
        cancelled = [key for key, row in append.reminders.items() if row is None]
        columns = (
            append.entries, list(append.deletions.values()), list(append.states.values()),
            list(append.snapshots.values()), list(append.marks.values()), append.outbox, append.delivered,
            append.parked, [row for row in append.reminders.values() if row is not None], cancelled,
            list(append.trims.values()), [row for row in append.remembered.values() if row is not None],
            [(key,) for key, row in append.remembered.items() if row is None],
        )  # fmt: skip
        values = (incarnation, *(rows_as_json(rows) for rows in columns))
        try:
            with self._turn_taken():
                self._write.execute("INSERT INTO commits VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", values)
        except sqlite3.IntegrityError as error:
            if str(error) != "fenced":  # what the trigger raises; anything else is an entry number that is taken
                raise
            raise self._ended(incarnation) from error

    async def load(self, wants: Sequence[Want]) -> list[Recovered]:
        """Read entities back, all in one statement."""
        return await self._on(self._reader, self._of_entities, _LOAD, (_encode(wants).decode(),), _decode_recovered)

    async def entries(self, entity: str, after: int, limit: int) -> list[Tail]:
        """Read entries behind a number."""
        statement = f"""SELECT json_group_array(json_array({_TAIL})) FROM (
            SELECT * FROM entries WHERE entity = ? AND n > ? ORDER BY n LIMIT ?)"""  # noqa: S608 - constant text
        return await self._on(self._reader, self._of_entities, statement, (entity, after, limit), _decode_tail)

    async def known(self, spans: Sequence[Span]) -> list[list[Known]]:
        """Read which commands were decided, in one turn of the reader."""
        return await self._on(self._reader, self._known, spans)

    def _known(self, spans: Sequence[Span]) -> list[list[Known]]:
        statement = f"""SELECT json_group_array(json_array(n, command_id, at)) FROM (
            SELECT * FROM entries WHERE entity = ? AND n > ? AND n <= ? ORDER BY n LIMIT {PAGE_ENTRIES})"""  # noqa: S608 - constant text
        return [self._of_entities(statement, span, _decode_known) for span in spans]

    def _of_entities(self, statement: str, values: Sequence[Any], decode: Callable[[str], T]) -> T:
        """Read what entities have written. What keeps that from being read may be theirs, and not the store's state."""
        try:
            return self._one(statement, values, decode)
        except sqlite3.OperationalError as error:
            # Text that is no UTF-8 (Python's own error, without a code), or that JSON cannot hold.
            if hasattr(error, "sqlite_errorcode") and "JSON" not in str(error):
                raise
            msg = f"The store {self.url} holds what cannot be read: {error}"
            raise Corrupt(msg) from error

    def _one(self, statement: str, values: Sequence[Any], decode: Callable[[str], T]) -> T:
        text = self._read.execute(statement, values).fetchone()[0]
        return decode(text)

    async def events(self, entity: str, after_seq: int, limit: int) -> list[EventRow]:
        """Read recorded events."""
        statement = """SELECT json_group_array(json_array(n, seq, events, command_id, at)) FROM (
            SELECT * FROM entries WHERE entity = ? AND seq > ? AND events IS NOT NULL ORDER BY n LIMIT ?)"""
        return await self._on(self._reader, self._of_entities, statement, (entity, after_seq, limit), _decode_events)

    async def outbox(self, shards: Iterable[str], limit: int) -> list[OutboxRow]:
        """Read undelivered sends."""
        statement = """SELECT json_group_array(json_array(entity, n, sends)) FROM (
            SELECT * FROM outbox WHERE parked IS NULL AND shard IN (SELECT value FROM json_each(?))
            ORDER BY entity, n LIMIT ?)"""
        values = (_encode(list(shards)).decode(), limit)
        return await self._on(self._reader, self._one, statement, values, _decode_outbox)

    async def outbox_counts(self) -> tuple[int, int]:
        """Count undelivered and parked sends."""
        statement = "SELECT json_array(count(*) FILTER (WHERE parked IS NULL), count(parked)) FROM outbox"
        return await self._on(self._reader, self._one, statement, (), msgspec.json.Decoder(tuple[int, int]).decode)

    async def parked(self, limit: int, entity: str = "") -> list[ParkedRow]:
        """Read sends that were given up."""
        statement = """SELECT json_group_array(json_array(entity, n, parked, sends)) FROM (
            SELECT * FROM outbox WHERE parked IS NOT NULL AND ? IN ('', entity) ORDER BY entity, n LIMIT ?)"""
        return await self._on(self._reader, self._one, statement, (entity, limit), _decode_parked)

    async def due(
        self, shards: Iterable[str], until_ms: int, limit: int, after: tuple[int, str, str] = (-1, "", "")
    ) -> list[ReminderRow]:
        """Read due reminders."""
        statement = """SELECT json_group_array(json_array(entity, name, due, every, misfire)) FROM (
            SELECT * FROM reminders WHERE due <= ? AND (due, entity, name) > (?, ?, ?)
            AND shard IN (SELECT value FROM json_each(?)) ORDER BY due, entity, name LIMIT ?)"""
        values = (until_ms, *after, _encode(list(shards)).decode(), limit)
        return await self._on(self._reader, self._one, statement, values, _decode_reminders)

    async def remembered(self, shards: Iterable[str], limit: int, after: str = "") -> list[str]:
        """Read entities that are to be activated."""
        statement = """SELECT json_group_array(entity) FROM (
            SELECT entity FROM remembered WHERE entity > ? AND shard IN (SELECT value FROM json_each(?))
            ORDER BY entity LIMIT ?)"""
        values = (after, _encode(list(shards)).decode(), limit)
        return await self._on(self._reader, self._one, statement, values, _decode_keys)

    async def add_failures(self, rows: Sequence[FailureRow]) -> None:
        """Add failures."""
        await self._on(self._writer, self._add_failures, _encode(rows).decode())

    def _add_failures(self, rows: str) -> None:
        with self._turn_taken(), self._transaction() as connection:
            connection.execute(_ADD_FAILURES, (rows,))
            connection.execute(_TRIM_FAILURES, (0, FAILURES_KEPT))
            connection.execute(_TRIM_FAILURES, (_ANY, UNTOLD_KEPT))

    async def failures(self, limit: int, of: str = "") -> list[FailureRow]:
        """Read failures."""
        statement = """SELECT
            json_group_array(json_array(entity, command, kind, first_ms, last_ms, times, latest, untold)) FROM (
            SELECT * FROM failures WHERE ?1 IN ('', entity, substr(entity, 1, instr(entity, '/') - 1))
            ORDER BY last_ms DESC, entity DESC, command DESC, kind DESC LIMIT ?2)"""
        return await self._on(self._reader, self._one, statement, (of, limit), _decode_failures)

    async def untold_failures(self, types: Sequence[str], limit: int) -> list[FailureRow]:
        """Read failures that a supervisor has still to be told of."""
        statement = """SELECT
            json_group_array(json_array(entity, command, kind, first_ms, last_ms, times, latest, untold)) FROM (
            SELECT * FROM failures WHERE untold > 0
                AND substr(entity, 1, instr(entity, '/') - 1) IN (SELECT value FROM json_each(?))
            ORDER BY last_ms, entity, command, kind LIMIT ?)"""
        bound = (_encode(types).decode(), limit)
        return await self._on(self._reader, self._one, statement, bound, _decode_failures)

    async def told(self, rows: Sequence[FailureRow]) -> None:
        """Take note that a supervisor was told."""
        await self._on(self._writer, self._told, _encode(rows).decode())

    def _told(self, rows: str) -> None:
        with self._turn_taken(), self._transaction() as connection:
            connection.execute(_TOLD, (rows,))

    async def schema(self) -> str | None:
        """Return the description kept last."""
        return await self._on(self._reader, self._meta, "schema")

    def _meta(self, key: str) -> str | None:
        row = self._read.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    async def set_schema(self, text: str) -> None:
        """Keep a description of what the app writes."""
        await self._on(self._writer, self._set_schema, text)

    def _set_schema(self, text: str) -> None:
        with self._turn_taken():
            self._write.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (text,))

    async def scan(self, after: int, limit: int) -> list[ScanRow]:
        """Read entries with events, of all entities."""
        statement = """SELECT json_group_array(json_array(position, entity, n, events)) FROM (
            SELECT * FROM entries WHERE position > ? AND events IS NOT NULL ORDER BY position LIMIT ?)"""
        return await self._on(self._reader, self._one, statement, (after, limit), _decode_scan)

    async def scan_states(self, after: str, limit: int) -> list[StateRow]:
        """Read states of all Durable entities."""
        statement = """SELECT json_group_array(json_array(entity, n, version, state)) FROM (
            SELECT * FROM states WHERE entity > ? ORDER BY entity LIMIT ?)"""
        return await self._on(self._reader, self._one, statement, (after, limit), _decode_states)

    # -- membership and shard table ------------------------------------------------------------

    async def join(self, host: HostRow) -> int:
        """Enter a host."""
        return await self._on(self._writer, self._join, host)

    def _join(self, host: HostRow) -> int:
        values = (host.name, host.node, host.machine, host.pid, host.started, host.dedicated, about_of(host))
        with self._turn_taken(), self._transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO hosts (name, node, machine, pid, started, dedicated, about) VALUES (?,?,?,?,?,?,?)", values
            )
            return int(cursor.lastrowid or 0)

    async def reincarnate(self, incarnation: int) -> int:
        """End an incarnation and go on as a new one."""
        return await self._on(self._writer, self._reincarnate, incarnation)

    def _reincarnate(self, incarnation: int) -> int:
        with self._turn_taken(), self._transaction() as connection:
            self._check_incarnation(incarnation, connection)
            cursor = connection.execute(
                """INSERT INTO hosts (name, node, machine, pid, started, dedicated, about)
                   SELECT name, node, machine, pid, started, dedicated, about FROM hosts WHERE incarnation = ?""",
                (incarnation,),
            )
            successor = int(cursor.lastrowid or 0)
            connection.execute("UPDATE hosts SET fenced = 1 WHERE incarnation = ?", (incarnation,))
            connection.execute(
                "UPDATE shards SET owner = ?, epoch = epoch + 1 WHERE owner = ?", (successor, incarnation)
            )
            return successor

    def renew(self, incarnation: int, at_s: float) -> None:
        """Renew a lease; blocking."""
        try:
            self._lease.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", (incarnation, at_s))
            # Last: one that was fenced by now must not believe that it may answer for another term of its lease.
            self._check_incarnation(incarnation, self._fences)
        except sqlite3.Error as error:
            raise self._translate(error) from error

    async def leases(self) -> dict[int, float]:
        """Read all leases."""
        return await self._on(self._reader, self._leases)

    def _leases(self) -> dict[int, float]:
        # Who cannot write here must not judge hosts by what they could not write either: a full disk ends nobody.
        self._lease.execute("INSERT OR REPLACE INTO leases VALUES (0, 0.0)")
        return dict(self._lease.execute("SELECT incarnation, renewed FROM leases WHERE incarnation > 0").fetchall())

    @staticmethod
    def _term(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT value FROM meta WHERE key = 'term'").fetchone()[0])

    def _check_term(self, term: int, connection: sqlite3.Connection) -> None:
        current = self._term(connection)
        if current != term:
            raise term_ended(term, current)

    async def lead(self, after: int = -1) -> int:
        """Begin a leader term."""
        return await self._on(self._writer, self._lead, after)

    def _lead(self, after: int) -> int:
        with self._turn_taken(), self._transaction() as connection:
            if after >= 0:
                self._check_term(after, connection)
            connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'term'")
            return self._term(connection)

    async def leader(self) -> tuple[int, float]:
        """Return the term and the last renewal of its leader."""
        return await self._on(self._reader, self._leader)

    def _leader(self) -> tuple[int, float]:
        term = self._term(self._read)
        # Leaders stand among the leases of hosts, under their term below zero.
        row = self._lease.execute("SELECT renewed FROM leases WHERE incarnation = ?", (-term,)).fetchone()
        return term, 0.0 if row is None or not term else row[0]

    async def renew_leader(self, term: int, at_s: float) -> None:
        """Renew the leader's lease."""
        await self._on(self._reader, self._renew_leader, term, at_s)

    def _renew_leader(self, term: int, at_s: float) -> None:
        self._lease.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", (-term, at_s))
        self._check_term(term, self._read)

    async def note(self, name: str) -> str | None:
        """Return what the registry noted."""
        return await self._on(self._reader, self._meta, f"note:{name}")

    async def set_note(self, term: int, name: str, text: str) -> None:
        """Keep a note of the registry's."""
        await self._on(self._writer, self._set_note, term, name, text)

    def _set_note(self, term: int, name: str, text: str) -> None:
        with self._turn_taken(), self._transaction() as connection:
            self._check_term(term, connection)
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"note:{name}", text))

    async def read_table(self) -> Table:
        """Read the shard table and the hosts that stand."""
        return await self._on(self._reader, self._read_table)

    def _read_table(self) -> Table:
        self._read.execute("BEGIN")
        try:
            version = int(self._read.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()[0])
            shards = self._read.execute("SELECT shard, owner, epoch FROM shards").fetchall()
            hosts = self._read.execute(
                "SELECT incarnation, name, node, machine, pid, started, dedicated, about FROM hosts WHERE fenced = 0"
            ).fetchall()
        finally:
            self._read.execute("COMMIT")
        return Table(
            version,
            {row[0]: host_row(*row) for row in hosts},
            {shard: ShardRow(owner, epoch) for shard, owner, epoch in shards},
        )

    async def write_table(self, term: int, version: int, fence: Sequence[int], assign: dict[str, ShardRow]) -> None:
        """Fence and assign in one transaction."""
        await self._on(self._writer, self._write_table, term, version, fence, assign)

    def _write_table(self, term: int, version: int, fence: Sequence[int], assign: dict[str, ShardRow]) -> None:
        with self._turn_taken(), self._transaction() as connection:
            self._check_term(term, connection)
            overtaken = connection.execute(
                """SELECT s.shard FROM json_each(?) a JOIN shards s ON s.shard = a.value ->> 0
                   WHERE s.epoch > a.value ->> 2
                      OR (s.epoch = a.value ->> 2 AND a.value ->> 1 NOT IN (0, s.owner)) LIMIT 1""",
                (_encode([(shard, row.owner, row.epoch) for shard, row in assign.items()]).decode(),),
            ).fetchone()
            if overtaken is not None:
                msg = f"Shard {overtaken[0]} has got another owner meanwhile: read the table again."
                raise StoreUnavailable(msg)
            for incarnation in fence:
                connection.execute("UPDATE hosts SET fenced = 1 WHERE incarnation = ?", (incarnation,))
            ended = connection.execute(
                """SELECT value FROM json_each(?)
                   WHERE value NOT IN (SELECT incarnation FROM hosts WHERE fenced = 0) LIMIT 1""",
                (_encode([row.owner for row in assign.values() if row.owner]).decode(),),
            ).fetchone()
            if ended is not None:
                msg = f"Incarnation {ended[0]} has ended meanwhile and can own nothing: read the table again."
                raise StoreUnavailable(msg)
            connection.executemany(
                "INSERT OR REPLACE INTO shards VALUES (?,?,?)", [(s, row.owner, row.epoch) for s, row in assign.items()]
            )
            connection.execute("UPDATE meta SET value = ? WHERE key = 'version'", (str(version),))

    async def release(self, incarnation: int, shards: Sequence[str]) -> None:
        """Give up shards."""
        await self._on(self._writer, self._release, incarnation, shards)

    def _release(self, incarnation: int, shards: Sequence[str]) -> None:
        with self._turn_taken(), self._transaction() as connection:
            self._check_incarnation(incarnation, connection)
            for shard in shards:
                connection.execute("UPDATE shards SET owner = 0 WHERE shard = ? AND owner = ?", (shard, incarnation))
