"""The store on PostgreSQL: for clusters, since hosts of any machine reach it.

Each app has a schema of its own, ``remora_<app>``, so that several apps can share one database.
An append is one autocommitted statement, which share-locks and checks the host's incarnation and
then writes; so is every other write. No lock is ever held across a round trip to a client.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from remora.errors import Fenced, StoreMismatch, StoreUnavailable
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
from remora.storage.postgres_link import SETTINGS, LeaseLink, Link, Target
from remora.storage.sql import check_identity, migrations, newer_release, newest, rows_as_json, term_ended

T = TypeVar("T")

RELEASE_MIN = 14
"""Oldest server: what the statements use is there from 13 on, and 13 is not maintained any more."""
READERS = 3
"""Connections for reading: one that recovers many entities does not hold up the others."""
WRITE_S = 3.0
"""Longest wait for a write to be confirmed, in seconds: its statement may take half of that, its commit the rest."""
READ_S = 6.0
"""Longest wait for an answer to a read, in seconds."""
READ_STATEMENT_MS = 5000
"""Reads hold no lock that anybody waits for: they may take longer than writes."""
OPEN_STATEMENT_MS = 60_000
"""A migration may take as long as another one that it waits for."""

_encode = msgspec.json.Encoder().encode
_decode_sends = msgspec.json.Decoder(dict[str, int]).decode
_decode_tail = msgspec.json.Decoder(list[Tail]).decode
_decode_hosts = msgspec.json.Decoder(list[tuple[int, str, str, str, int, float, str, str]]).decode
_decode_shards = msgspec.json.Decoder(list[tuple[str, int, int]]).decode

_ENTRY_ARRAYS = "$2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::integer[], $8::text[], $9::bigint[], $10::bigint[]"
# Nothing is inserted before the host's row is locked: without it there is nothing to join with.
_APPEND_ENTRIES = f"""
WITH host AS MATERIALIZED (SELECT 1 FROM hosts WHERE incarnation = $1 AND NOT fenced FOR SHARE)
INSERT INTO entries (position, entity, n, seq, events, command_id, verdict, reply, at, fingerprint)
SELECT (SELECT (pg_current_xact_id()::text::bigint + base) << 20 FROM journal) + u.place,
       u.entity, u.n, u.seq, u.events, u.command_id, u.verdict, u.reply, u.at, u.fingerprint
FROM host, unnest({_ENTRY_ARRAYS})
     WITH ORDINALITY AS u (entity, n, seq, events, command_id, verdict, reply, at, fingerprint, place)
"""  # noqa: S608 - constant text
_APPEND_ALL = f"SELECT append_all($1, {_ENTRY_ARRAYS}, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)"
_TAIL = "json_build_array(n, seq, events, command_id, verdict, reply, at, fingerprint)"
_HEAD = "rtrim(command_id, '0123456789')"
"""Of a durable send's id: its sender and a '>'."""
_IS_SEND = f"{_HEAD} LIKE '%>' AND length(command_id) - length({_HEAD}) BETWEEN 1 AND {SEND_DIGITS_MAX}"
"""See ``ids.send_of``."""
_LOAD = f"""
SELECT w.entity, coalesce(p.n, s.n, 0), coalesce(p.seq, s.seq, 0), coalesce(p.state, s.state),
       coalesce(p.version, s.version, 1), coalesce(m.n, 0), m.marks, coalesce(l.n, 0), coalesce(l.seq, 0),
       coalesce(o.n, 0), coalesce(o.at, 0), t.tail, d.sends, k.decided
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[], $5::text[])
     WITH ORDINALITY AS w (entity, dedup, below, events, ids, place)
LEFT JOIN LATERAL (
    SELECT * FROM snapshots WHERE entity = w.entity AND (w.below = 0 OR n < w.below) ORDER BY n DESC LIMIT 1
) p ON true
LEFT JOIN LATERAL (
    SELECT * FROM states WHERE entity = w.entity AND (w.below = 0 OR n < w.below) LIMIT 1
) s ON true
LEFT JOIN LATERAL (SELECT * FROM marks WHERE entity = w.entity LIMIT 1) m ON true
LEFT JOIN LATERAL (SELECT n, seq FROM entries WHERE entity = w.entity ORDER BY n DESC LIMIT 1) l ON true
LEFT JOIN LATERAL (
    SELECT n, at FROM entries WHERE entity = w.entity AND n > coalesce(l.n, 0) - w.dedup ORDER BY n LIMIT 1
) o ON true
LEFT JOIN LATERAL (
    SELECT json_agg({_TAIL} ORDER BY n) AS tail FROM (
        SELECT n, seq, events, command_id, verdict, reply, at, fingerprint FROM entries
        WHERE w.events AND entity = w.entity AND n > coalesce(p.n, s.n, 0) ORDER BY n LIMIT {PAGE_ENTRIES}
    ) e
) t ON true
LEFT JOIN LATERAL (
    SELECT json_object_agg(left(head, -1), number) AS sends FROM (
        SELECT {_HEAD} AS head, max(substr(command_id, length({_HEAD}) + 1)::bigint) AS number
        FROM entries WHERE entity = w.entity AND n > coalesce(m.n, 0)
          AND n <= CASE WHEN w.events THEN coalesce(p.n, s.n, 0) ELSE l.n END AND command_id LIKE '%>%' AND {_IS_SEND}
        GROUP BY head
    ) e
) d ON true
LEFT JOIN LATERAL (
    SELECT json_agg({_TAIL.replace("events", "NULL")} ORDER BY n) AS decided FROM entries
    WHERE w.ids <> '[]' AND entity = w.entity AND n > coalesce(l.n, 0) - w.dedup
      AND command_id IN (SELECT json_array_elements_text(w.ids::json))
) k ON true
ORDER BY w.place
"""  # noqa: S608 - constant text
# Only what no transaction under way can still come before.
_SCAN = """
SELECT position, entity, n, events FROM entries
WHERE position > $1 AND events IS NOT NULL
  AND position < (SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + base) << 20 FROM journal)
ORDER BY position LIMIT $2
"""
_TABLE = """
SELECT (SELECT value::bigint FROM meta WHERE key = 'version'),
       (SELECT coalesce(json_agg(json_build_array(incarnation, name, node, machine, pid, started, dedicated, about)
                                 ORDER BY incarnation), '[]') FROM hosts WHERE NOT fenced),
       (SELECT coalesce(json_agg(json_build_array(shard, owner, epoch) ORDER BY shard), '[]') FROM shards)
"""
_RENEW = """
INSERT INTO leases VALUES ($1, $2) ON CONFLICT (incarnation) DO UPDATE SET renewed = excluded.renewed
"""
_YOUNGER = """
SELECT (coalesce((SELECT max(position) FROM entries), 0) >> 20) + 1 - (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + base)
FROM journal
"""
"""By how many transactions this server is behind the journal; positive only when the journal was brought from another."""


def _ended(incarnation: int) -> Fenced:
    return Fenced(f"Incarnation {incarnation} has ended: its shards belong to others now.")


def _columns(entries: Sequence[EntryRow]) -> list[Sequence[Any]]:
    """Return entries as nine columns, which is how PostgreSQL takes many rows in one statement."""
    if not entries:
        return [()] * 9
    entity, n, seq, events, command_id, verdict, reply, at, fingerprint = zip(*entries, strict=True)
    texts = [None if one is None else one.decode() for one in events]
    return [entity, n, seq, texts, command_id, verdict, [one.decode() for one in reply], at, fingerprint]


class PostgresStore:
    """Journal, membership and shard table in one schema of a PostgreSQL database.

    Several apps may share a database: each has the schema ``remora_<app>``, tables and versions of
    its own. The user needs the right to create that schema, or to own it when it exists.

    Args:
        url: ``postgresql://user:password@host:port/database``. It is in no message and no representation;
            ``url`` of the store has no password.

    Raises:
        StoreMismatch: The URL cannot be read, or the driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.migrates = True
        """Whether opening makes the app's schema, or brings it up to this release; else one that needs it is refused."""
        self._target = Target(url)
        self.url = self._target.visible
        self._writer: Link | None = None
        self._control: Link
        self._readers: list[Link]
        self._lease: LeaseLink
        self._attempts: dict[int, str] = {}
        """incarnation → what it asks for a successor with, until it has the answer"""
        self._closed = False

    def __repr__(self) -> str:
        return f"PostgresStore({self.url!r})"

    # -- opening -----------------------------------------------------------------------------

    async def open(self, app: str, shards: int) -> None:
        """Create or check the app's schema."""
        if self._closed:
            raise self._not_open()
        schema = f"remora_{app}"
        path = {"search_path": f'"{schema}"'}
        opening = {**SETTINGS, **path, "statement_timeout": str(OPEN_STATEMENT_MS), "lock_timeout": "0"}
        try:
            connection = await self._target.connect(opening)
        except Exception as error:  # the driver's, the system's, the resolver's
            raise self._target.refusal(error) from error
        try:
            async with asyncio.timeout(OPEN_STATEMENT_MS / 1000):
                if not await self._stands(connection, app, shards):
                    await self._migrate(connection, schema, app, shards)
        except Exception as error:
            raise self._target.refusal(error) from error
        finally:
            connection.terminate()
        self._control = Link(self._target, path, answer_s=WRITE_S)
        reading = {**path, "statement_timeout": str(READ_STATEMENT_MS), "default_transaction_read_only": "on"}
        self._readers = [Link(self._target, reading, answer_s=READ_S) for _ in range(READERS)]
        # A renewal that a crash of the server loses was still made: nobody takes shards of a lease that changed lately.
        self._lease = LeaseLink(self._target, {**path, "synchronous_commit": "off", "statement_timeout": "1000"})
        self._writer = Link(self._target, path, answer_s=WRITE_S)

    async def _stands(self, connection: Any, app: str, shards: int) -> bool:  # noqa: ANN401 - the driver has no types
        """Return whether the schema is as this release and app want it: opening it writes nothing."""
        release = connection.get_server_version().major
        if release < RELEASE_MIN:
            msg = f"{self.url} is PostgreSQL {release}: Remora needs {RELEASE_MIN} or newer."
            raise StoreMismatch(msg)
        encoding = await connection.fetchval("SHOW server_encoding")
        if encoding != "UTF8":
            msg = f"The database of {self.url} is encoded in {encoding}: create one with ENCODING 'UTF8'."
            raise StoreMismatch(msg)
        if await connection.fetchval("SELECT to_regclass('migrations')") is None:
            return False
        version, known = await connection.fetchval("SELECT max(version) FROM migrations"), newest("postgres")
        if version > known:
            raise newer_release(self.url, version, known)
        if version < known:
            return False
        meta = dict(await connection.fetch("SELECT key, value FROM meta"))
        if not {"app", "shards", "store", "term", "version"} <= meta.keys():
            return False
        check_identity(self.url, meta, app, shards)
        return int(await connection.fetchval(_YOUNGER)) <= 0

    async def _migrate(self, connection: Any, schema: str, app: str, shards: int) -> None:  # noqa: ANN401 - untyped
        if not self.migrates:
            msg = f"{self.url} has no tables of the app {app!r} as this release makes them: give a database that it has been started on, or a copy."
            raise StoreMismatch(msg)
        async with connection.transaction():
            # Whoever opens at the same time waits here, and then finds the work done.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", schema)
            if await connection.fetchval("SELECT to_regnamespace($1)", f'"{schema}"') is None:
                await connection.execute(f'CREATE SCHEMA "{schema}"')
            await connection.execute("CREATE TABLE IF NOT EXISTS migrations (version integer PRIMARY KEY)")
            done = await connection.fetchval("SELECT coalesce(max(version), 0) FROM migrations")
            for file in migrations("postgres")[done:]:
                await connection.execute(file.read_text(encoding="utf-8"))
                await connection.execute("INSERT INTO migrations VALUES ($1)", int(file.name[:4]))
            fresh = {"app": app, "shards": str(shards), "store": secrets.token_hex(16), "term": "0", "version": "0"}
            await connection.executemany("INSERT INTO meta VALUES ($1, $2) ON CONFLICT DO NOTHING", list(fresh.items()))
            check_identity(self.url, dict(await connection.fetch("SELECT key, value FROM meta")), app, shards)
            await connection.execute(
                "UPDATE journal SET base = base + greatest(0, $1)", await connection.fetchval(_YOUNGER)
            )

    async def close(self) -> None:
        """Close connections after what is under way."""
        self._closed = True
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.gather(*(link.close() for link in (writer, self._control, *self._readers)))
            await asyncio.to_thread(self._lease.close)

    def _not_open(self) -> StoreUnavailable:
        return StoreUnavailable(f"The store {self.url} is closed.")

    # -- the ways to the server ------------------------------------------------------------------

    async def _read(self, statement: str, *values: Any) -> list[Any]:  # noqa: ANN401 - values of any column
        if self._writer is None:
            raise self._not_open()
        link = min(self._readers, key=lambda one: one.waiting)
        rows: list[Any] = await link.run(lambda connection: connection.fetch(statement, *values))
        return rows

    async def _set(self, statement: str, *values: Any) -> Any:  # noqa: ANN401 - values of any column
        """Write on the connection for everything but appends, and return the first value."""
        if self._writer is None:
            raise self._not_open()
        return await self._control.run(lambda connection: connection.fetchval(statement, *values))

    # -- journal -----------------------------------------------------------------------------

    async def append(self, incarnation: int, append: Append) -> None:
        """Write one commit."""
        if self._writer is None:
            raise self._not_open()
        await self._writer.run(self._append(incarnation, append))

    def _append(self, incarnation: int, append: Append) -> Callable[[Any], Awaitable[None]]:
        async def entries(connection: Any) -> None:  # noqa: ANN401 - the driver has no types
            status: str = await connection.execute(_APPEND_ENTRIES, incarnation, *_columns(append.entries))
            if int(status.rpartition(" ")[2]) != len(append.entries):
                raise _ended(incarnation)

        async def everything(connection: Any) -> None:  # noqa: ANN401 - the driver has no types
            parts = (
                list(append.deletions.values()), list(append.states.values()), list(append.snapshots.values()),
                list(append.marks.values()), append.outbox, append.delivered, append.parked,
                [row for row in append.reminders.values() if row is not None],
                [key for key, row in append.reminders.items() if row is None], list(append.trims.values()),
                [row for row in append.remembered.values() if row is not None],
                [(key,) for key, row in append.remembered.items() if row is None],
            )  # fmt: skip
            values = (*_columns(append.entries), *(rows_as_json(rows) for rows in parts))
            await connection.execute(_APPEND_ALL, incarnation, *values)

        return entries if append.only_entries and append.entries else everything

    async def load(self, wants: Sequence[Want]) -> list[Recovered]:
        """Read entities back, all in one statement."""
        if not wants:
            return []
        entity, window, below, events, ids = zip(*wants, strict=True)
        rows = await self._read(_LOAD, entity, window, below, events, [_encode(one).decode() for one in ids])
        found = [Recovered(*tuple(row)[:11]) for row in rows]
        for one, (*_, tail, sends, decided) in zip(found, rows, strict=True):
            one.tail, one.decided = self._tail(tail), self._tail(decided)
            one.sends = _decode_sends(sends or "{}")
        return found

    def _tail(self, text: str | None) -> list[Tail]:
        try:
            return [] if text is None else _decode_tail(text)
        except msgspec.MsgspecError as error:
            raise self._target.translate(error) from error

    async def entries(self, entity: str, after: int, limit: int) -> list[Tail]:
        """Read entries behind a number."""
        statement = """SELECT n, seq, events, command_id, verdict, reply, at, fingerprint FROM entries
                       WHERE entity = $1 AND n > $2 ORDER BY n LIMIT $3"""
        return [Tail(*row) for row in await self._read(statement, entity, after, limit)]

    async def known(self, spans: Sequence[Span]) -> list[list[Known]]:
        """Read which commands were decided, all in one statement."""
        if not spans:
            return []
        statement = f"""SELECT span.i, one.n, one.command_id, one.at
                        FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS span (entity, after, upto, i)
                        CROSS JOIN LATERAL (
                            SELECT n, command_id, at FROM entries
                            WHERE entity = span.entity AND n > span.after AND n <= span.upto ORDER BY n LIMIT {PAGE_ENTRIES}
                        ) AS one ORDER BY span.i, one.n"""  # noqa: S608 - constant text
        found: list[list[Known]] = [[] for _ in spans]
        for i, *row in await self._read(statement, *zip(*spans, strict=True)):
            found[i - 1].append(Known(*row))
        return found

    async def events(self, entity: str, after_seq: int, limit: int) -> list[EventRow]:
        """Read recorded events."""
        statement = """SELECT n, seq, events, command_id, at FROM entries
                       WHERE entity = $1 AND seq > $2 AND events IS NOT NULL ORDER BY n LIMIT $3"""
        return [EventRow(*row) for row in await self._read(statement, entity, after_seq, limit)]

    async def outbox(self, shards: Iterable[str], limit: int) -> list[OutboxRow]:
        """Read undelivered sends."""
        statement = """SELECT entity, n, sends FROM outbox WHERE parked IS NULL AND shard = ANY ($1::text[])
                       ORDER BY entity, n LIMIT $2"""
        return [OutboxRow(*row) for row in await self._read(statement, list(shards), limit)]

    async def outbox_counts(self) -> tuple[int, int]:
        """Count undelivered and parked sends."""
        (row,) = await self._read("SELECT count(*) FILTER (WHERE parked IS NULL), count(parked) FROM outbox")
        return row[0], row[1]

    async def parked(self, limit: int, entity: str = "") -> list[ParkedRow]:
        """Read sends that were given up."""
        statement = """SELECT entity, n, parked, sends FROM outbox WHERE parked IS NOT NULL AND $2 IN ('', entity)
                       ORDER BY entity, n LIMIT $1"""
        return [ParkedRow(*row) for row in await self._read(statement, limit, entity)]

    async def due(
        self, shards: Iterable[str], until_ms: int, limit: int, after: tuple[int, str, str] = (-1, "", "")
    ) -> list[ReminderRow]:
        """Read due reminders."""
        statement = """SELECT entity, name, due, every, misfire FROM reminders
                       WHERE due <= $1 AND (due, entity, name) > ($2, $3, $4) AND shard = ANY ($5::text[])
                       ORDER BY due, entity, name LIMIT $6"""
        return [ReminderRow(*row) for row in await self._read(statement, until_ms, *after, list(shards), limit)]

    async def remembered(self, shards: Iterable[str], limit: int, after: str = "") -> list[str]:
        """Read entities that are to be activated."""
        statement = "SELECT entity FROM remembered WHERE entity > $1 AND shard = ANY ($2) ORDER BY entity LIMIT $3"
        return [row[0] for row in await self._read(statement, after, list(shards), limit)]

    async def add_failures(self, rows: Sequence[FailureRow]) -> None:
        """Add failures."""
        await self._set("SELECT add_failures($1, $2, $3)", _encode(rows).decode(), FAILURES_KEPT, UNTOLD_KEPT)

    async def failures(self, limit: int, of: str = "") -> list[FailureRow]:
        """Read failures."""
        statement = """SELECT entity, command, kind, first_ms, last_ms, times, latest, untold FROM failures
                       WHERE $2 IN ('', entity, split_part(entity, '/', 1))
                       ORDER BY last_ms DESC, entity DESC, command DESC, kind DESC LIMIT $1"""
        return [FailureRow(*row) for row in await self._read(statement, limit, of)]

    async def untold_failures(self, types: Sequence[str], limit: int) -> list[FailureRow]:
        """Read failures that a supervisor has still to be told of."""
        statement = """SELECT entity, command, kind, first_ms, last_ms, times, latest, untold FROM failures
                       WHERE untold > 0 AND split_part(entity, '/', 1) = ANY ($1)
                       ORDER BY last_ms, entity, command, kind LIMIT $2"""
        return [FailureRow(*row) for row in await self._read(statement, list(types), limit)]

    async def told(self, rows: Sequence[FailureRow]) -> None:
        """Take note that a supervisor was told."""
        await self._set("SELECT told($1)", _encode(rows).decode())

    async def schema(self) -> str | None:
        """Return the description kept last."""
        rows = await self._read("SELECT value FROM meta WHERE key = 'schema'")
        return rows[0][0] if rows else None

    async def set_schema(self, text: str) -> None:
        """Keep a description of what the app writes."""
        statement = "INSERT INTO meta VALUES ('schema', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        await self._set(statement, text)

    async def scan(self, after: int, limit: int) -> list[ScanRow]:
        """Read entries with events, of all entities.

        What was committed while an older transaction of the server, of any database, is writing comes
        when that has ended: none is ever passed over.
        """
        return [ScanRow(*row) for row in await self._read(_SCAN, after, limit)]

    async def scan_states(self, after: str, limit: int) -> list[StateRow]:
        """Read states of all Durable entities."""
        statement = "SELECT entity, n, version, state FROM states WHERE entity > $1 ORDER BY entity LIMIT $2"
        return [StateRow(*row) for row in await self._read(statement, after, limit)]

    # -- membership and shard table ------------------------------------------------------------

    async def join(self, host: HostRow) -> int:
        """Enter a host."""
        statement = """INSERT INTO hosts (name, node, machine, pid, started, dedicated, about)
                       VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING incarnation"""
        values = (host.name, host.node, host.machine, host.pid, host.started, host.dedicated, about_of(host))
        return int(await self._set(statement, *values))

    async def reincarnate(self, incarnation: int) -> int:
        """End an incarnation and go on as a new one.

        Asked again after its answer was lost, it answers the same: a host whose network failed in
        between is still the one that it has become.
        """
        attempt = self._attempts.setdefault(incarnation, secrets.token_hex(8))
        try:
            successor = int(await self._set("SELECT reincarnate($1, $2)", incarnation, attempt))
        except Fenced:
            self._attempts.pop(incarnation, None)
            raise
        self._attempts.pop(incarnation, None)
        return successor

    def renew(self, incarnation: int, at_s: float) -> None:
        """Renew a lease; blocking."""
        if self._writer is None:
            raise self._not_open()

        async def renewed(connection: Any) -> bool:  # noqa: ANN401 - the driver has no types
            await connection.execute(_RENEW, incarnation, at_s)
            # A statement of its own, and last: one that was fenced by now must not believe that it may answer for another term.
            return bool(await connection.fetchval("SELECT NOT fenced FROM hosts WHERE incarnation = $1", incarnation))

        if not self._lease.run(renewed):
            raise _ended(incarnation)

    async def leases(self) -> dict[int, float]:
        """Read all leases."""
        return dict(await self._read("SELECT incarnation, renewed FROM leases WHERE incarnation > 0"))

    async def lead(self, after: int = -1) -> int:
        """Begin a leader term."""
        return int(await self._set("SELECT begin_term($1)", after))

    async def leader(self) -> tuple[int, float]:
        """Return the term and the last renewal of its leader."""
        # Leaders stand among the leases of hosts, under their term below zero.
        statement = """SELECT m.value::bigint, coalesce(l.renewed, 0.0) FROM meta m
                       LEFT JOIN leases l ON l.incarnation = -(m.value::bigint) AND l.incarnation < 0
                       WHERE m.key = 'term'"""
        ((term, renewed),) = await self._read(statement)
        return term, renewed

    async def renew_leader(self, term: int, at_s: float) -> None:
        """Renew the leader's lease."""
        statement = """WITH renewed AS (INSERT INTO leases VALUES (-($1::bigint), $2)
                           ON CONFLICT (incarnation) DO UPDATE SET renewed = excluded.renewed)
                       SELECT value::bigint FROM meta WHERE key = 'term'"""
        current = int(await self._set(statement, term, at_s))
        if current != term:
            raise term_ended(term, current)

    async def note(self, name: str) -> str | None:
        """Return what the registry noted."""
        rows = await self._read("SELECT value FROM meta WHERE key = 'note:' || $1", name)
        return rows[0][0] if rows else None

    async def set_note(self, term: int, name: str, text: str) -> None:
        """Keep a note of the registry's."""
        await self._set("SELECT set_note($1, $2, $3)", term, name, text)

    async def read_table(self) -> Table:
        """Read the shard table and the hosts that stand."""
        ((version, hosts, shards),) = await self._read(_TABLE)
        try:
            found = {row[0]: host_row(*row) for row in _decode_hosts(hosts)}
            return Table(
                version, found, {shard: ShardRow(owner, epoch) for shard, owner, epoch in _decode_shards(shards)}
            )
        except msgspec.MsgspecError as error:
            raise self._target.translate(error) from error

    async def write_table(self, term: int, version: int, fence: Sequence[int], assign: dict[str, ShardRow]) -> None:
        """Fence and assign in one transaction."""
        owners, epochs = [row.owner for row in assign.values()], [row.epoch for row in assign.values()]
        statement = "SELECT write_table($1, $2, $3, $4, $5, $6)"
        await self._set(statement, term, version, list(fence), list(assign), owners, epochs)

    async def release(self, incarnation: int, shards: Sequence[str]) -> None:
        """Give up shards."""
        await self._set("SELECT release_shards($1, $2)", incarnation, list(shards))
