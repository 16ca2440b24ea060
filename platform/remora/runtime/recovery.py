"""Bringing entities back from the store, many in one read, bounded.

Snapshot, then the events behind it, page by page. A snapshot that cannot be read is no loss: an
older one is taken, or none. Whatever else cannot be read concerns that entity alone.

A failover asks for very many at once, and neither the store nor what runs already must suffer from it. So an entity
needs a *permit* from when it is read until it runs: a host has ``Settings.recoveries_max`` of them, and no more than its
part of ``recoveries_cluster_max``, by the number of hosts in the table that it follows anyway: nobody has to be
asked. Those for which commands wait go first. Between a few of them the event loop gets its turn, so that entities
which run go on running.
"""

from __future__ import annotations

import asyncio
import random
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import msgspec

from remora.contract import EntitySpec
from remora.errors import StoreUnavailable
from remora.ids import send_of
from remora.journal import PAGE_ENTRIES, Recovered, Tail, Want
from remora.lifecycle import Phase, step
from remora.messages import ADMITTED
from remora.runtime.cell import Cell
from remora.runtime.window import Unread, answered, asked_again
from remora.schema.reading import UnreadableEvent, UnreadableState, read_events, read_state
from remora.sharding.table import Table
from remora.supervision.failure import RECOVERY

if TYPE_CHECKING:
    from remora.runtime.committer import Commit
    from remora.runtime.host import Host
    from remora.runtime.shard import Shard
    from remora.runtime.window import Decided

_decode_marks = msgspec.json.Decoder(dict[str, int]).decode
RETRY_MIN_S = 0.1
"""First pause before the store is read again after it did not answer, in seconds; each is twice as long as the one
before, less up to half of it by chance: hosts that lost the store together do not come back together."""
RETRY_MAX_S = 1.0
"""Longest such pause, in seconds."""
LONG_MAX = 2
"""Entities with more than a page of entries that are read back at the same time."""
TURN_WORK = 32
"""What is brought back in one turn of the loop: an entity counts one, and one more for each ``TURN_ENTRIES`` entries."""
TURN_ENTRIES = 16
SLICE_ENTRIES = TURN_WORK * TURN_ENTRIES
"""Entries of one entity that are applied in one turn of the loop."""
READS = 2
"""Reads under way at once, each of a part of the permits: while one is read, what another has brought is rebuilt."""
OTHERS = 8
"""One in so many permits is for entities that no command waits for, also while commands wait for others."""


def share(table: Table, host_max: int, cluster_max: int) -> int:
    """Return how many entities a host may recover at once.

    Args:
        table: The hosts there are. Dedicated ones recover one entity each.
        host_max: The most for one host.
        cluster_max: The most for all hosts together; a host may always recover one.
    """
    dedicated = sum(1 for host in table.hosts.values() if host.dedicated)
    shared = max(len(table.hosts) - dedicated, 1)
    return max(1, min(host_max, (cluster_max - dedicated) // shared))


def pause_s(failures: int, rng: random.Random) -> float:
    """Return how long to leave a store in peace that did not answer so many times in a row, in seconds."""
    return float(min(RETRY_MIN_S * 2 ** (failures - 1), RETRY_MAX_S)) * (1 - rng.random() / 2)


class Recovery:
    """Activates entities and reads them back, one read of many at a time.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._wanted: dict[Cell, None] = {}
        """Those for which a command waits, in the order they came."""
        self._others: dict[Cell, None] = {}
        """Those that were activated for a reminder, a durable send or without a message."""
        self._reading: set[asyncio.Task[Any]] = set()
        """Those that read, at most READS."""
        self._long = asyncio.Semaphore(LONG_MAX)
        self._current: dict[str, Rebuild] = {}
        """Those with more pages to come; one that begins anew replaces the former."""
        self._in_read: set[Cell] = set()
        """Those that are being read: nobody reads them beside that."""
        self._news = asyncio.Event()
        """Set when a permit comes back, or somebody is to be read."""
        self._failures = 0
        """Reads in a row that the store did not answer."""
        self._reads = 0
        self.at_once = 0
        """Permits held now."""
        self.most = 0
        """Most permits held at once, so far."""
        self.count = 0
        """Entities recovered so far."""
        self.trouble = ""
        """Why the last read failed, until one succeeds."""

    @property
    def waiting(self) -> int:
        """Return how many entities wait to be recovered."""
        return len(self._wanted) + len(self._others)

    @property
    def permits(self) -> int:
        """Return how many entities this host may recover at once, as things are."""
        settings = self._host.settings
        return share(self._host.client.table, settings.recoveries_max, settings.recoveries_cluster_max)

    # -- what is asked ---------------------------------------------------------------------------------

    def activate(self, spec: EntitySpec, shard: Shard, entity_id: str, key: str) -> Cell:
        """Make an entity's cell; commands wait in its mailbox until it has its state."""
        host = self._host
        cell = Cell(host, shard, spec, entity_id, key)
        if shard.stopped is not None:
            cell.stop(shard.stopped)  # of this shard nobody comes into memory: it answers, and is gone
            return cell
        host.activations += 1
        host.cells[key] = cell
        cell.last_used_s = cell.seen_s = host.clock.monotonic_s()
        host.passivation.activated(cell)
        if host.quarantine.entities and host.quarantine.keep(cell):
            shard.images.pop(key, None)  # too old by the time that it runs again
            return cell
        if shard.images and host.handoff.open(cell):
            return cell
        if spec.durable:
            self.add(cell)
        else:
            self._begin_anew(cell)
        return cell

    def after(self, commit: Commit | None, cell: Cell) -> None:
        """Recover a cell once ``commit`` is written."""
        if not cell.spec.durable:
            self._begin_anew(cell)
            self._host.loop.call_soon(cell.pump)
        elif commit is None or commit.done:
            self.add(cell)
        else:
            commit.waiters.append(lambda _: self.add(cell))

    @staticmethod
    def _begin_anew(cell: Cell) -> None:
        cell.entity = cell.spec.cls()
        cell.entity.id, cell.entity.state = cell.id, cell.spec.state_type()
        cell.phase = step(cell.phase, Phase.READY)

    def add(self, cell: Cell) -> None:
        """Recover a cell soon."""
        if any(not ask.flags & ADMITTED for ask, _, _ in cell.mailbox):
            self._others.pop(cell, None)
            self._wanted[cell] = None
        elif cell not in self._wanted:
            self._others[cell] = None
        self._news.set()
        if len(self._reading) < READS:
            self._reading.add(self._host.spawn(self._read()))

    def wanted(self, cell: Cell) -> None:
        """Something has come into the mailbox of a recovering cell: if it is a command, the cell goes before others."""
        if cell in self._others and not cell.mailbox[-1][0].flags & ADMITTED:
            del self._others[cell]
            self._wanted[cell] = None

    def place(self, cell: Cell) -> int:
        """Return how many cells are read back before this one, and one more; 0 if it is being read."""
        return next((place for place, one in enumerate(chain(self._wanted, self._others), 1) if one is cell), 0)

    @property
    def oldest_s(self) -> float | None:
        """Since when the one that has waited longest waits for its turn, of those a command waits for; None if none does."""
        first = next(iter(self._wanted), None)
        return None if first is None else first.busy_since_s or first.last_used_s

    async def close(self) -> None:
        """Stop reading."""
        for reading in self._reading:
            reading.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    # -- reading ---------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while self.waiting:
                permits = self.permits
                room = min(permits - self.at_once, -(-permits // READS))
                cells = self._take(room) if room > 0 else {}
                if cells:
                    await self._some(cells)
                elif self.waiting:
                    self._news.clear()
                    await self._news.wait()
        finally:
            # At once, and not when the task is seen to be done: what is added in between would be nobody's.
            task = asyncio.current_task()
            self._reading = {one for one in self._reading if one is not task}

    def _take(self, room: int) -> dict[str, Cell]:
        """Choose whom to read next."""
        self._reads += 1
        least = room // OTHERS or int(self._reads % OTHERS == 0)
        others = min(len(self._others), max(room - len(self._wanted), least))
        chosen: dict[str, Cell] = {}
        for waiting, count in ((self._wanted, room - others), (self._others, others)):
            free = (cell for cell in waiting if cell not in self._in_read)
            for cell in list(islice(free, count)):
                del waiting[cell]
                # One that restarts while its latest entry is being written comes again when that is done.
                if self._waits(cell) and (cell.commit is None or cell.commit.done):
                    chosen[cell.key] = cell
        return chosen

    async def _some(self, cells: dict[str, Cell]) -> None:
        self._in_read.update(cells.values())
        self.at_once += len(cells)
        self.most = max(self.most, self.at_once)
        try:
            await self._load(cells)
            self._failures = 0
        except StoreUnavailable as error:
            self._host.log.warning("recovery waits for the store: %s", error)
            self.trouble = error.message
            self._failures += 1
            for cell in cells.values():
                self.add(cell)
        finally:
            self._in_read.difference_update(cells.values())
            self._give_back(len(cells))
        if self._failures:
            await asyncio.sleep(pause_s(self._failures, self._host.rng))  # noqa: TID251 - growing, bounded pause while the store is away; commands keep their deadlines

    def _give_back(self, permits: int) -> None:
        self.at_once -= permits
        self._news.set()

    async def _load(self, cells: dict[str, Cell], below: int = 0) -> None:
        """Read cells and bring them back."""
        wants = {cell.key: self._want(cell, below) for cell in cells.values()}
        try:
            found = await self._host.store.load(list(wants.values()))
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - something in the store cannot be read: find out whose it is
            for cell in cells.values():
                if len(cells) > 1:
                    await self._load({cell.key: cell}, below)
                else:
                    self._corrupt(cell, error)
            return
        self.trouble = ""
        work = 0
        for recovered in found:
            cell = cells[recovered.entity]
            if self._waits(cell):
                await self._one(cell, wants[cell.key], recovered)
            work += 1 + len(recovered.tail) // TURN_ENTRIES
            if work >= TURN_WORK:
                work = 0
                await asyncio.sleep(0)  # noqa: TID251 - the loop's turn, for entities that run

    @staticmethod
    def _want(cell: Cell, below: int) -> Want:
        made_of_events = cell.spec.kind == "event_sourced"
        return Want(cell.key, cell.spec.options.dedup_window, below, made_of_events, asked_again(cell))

    @staticmethod
    def _waits(cell: Cell) -> bool:
        """Return whether a cell waits to be read back: one that could not be may wait for its supervisor's word on that."""
        return cell.phase is Phase.RECOVERING and cell.task is None

    def _corrupt(self, cell: Cell, error: Exception) -> None:
        self._host.log.error("cannot recover %s", cell.key, exc_info=error)
        if self._waits(cell):  # else it was stopped, held back or let go meanwhile, and what becomes of it is settled
            self._host.failures.judge_recovery(cell, error)

    async def _one(self, cell: Cell, want: Want, recovered: Recovered) -> None:
        """Bring one back, or begin to, where it has more to read."""
        self._current.pop(cell.key, None)
        try:
            with self._host.running.within(cell.key, RECOVERY):
                rebuild = Rebuild(cell, want, recovered)
            await self._apply(rebuild, recovered.tail)
        except UnreadableState as error:
            if cell.spec.kind == "event_sourced" and recovered.state_n:
                self._host.log.warning(
                    "%s: snapshot at entry %d: %s; an older one is tried, or its events",
                    cell.key,
                    recovered.state_n,
                    error,
                )
                await self._load({cell.key: cell}, recovered.state_n)
            else:
                self._corrupt(cell, error)
        except Exception as error:  # noqa: BLE001 - whatever a row or an apply raises, only this entity is concerned
            self._corrupt(cell, error)
        else:
            if not rebuild.complete:
                self._current[cell.key] = rebuild
                self.at_once += 1  # a permit of its own, beside that of the read which ends now
                self._host.spawn(self._pages(rebuild))
            elif self._waits(cell):  # and has not left meanwhile
                self._ready(rebuild)

    async def _apply(self, rebuild: Rebuild, tail: list[Tail]) -> None:
        """Add a page of entries, so many in each turn of the loop."""
        running = self._host.running
        for start in range(0, max(len(tail), 1), SLICE_ENTRIES):
            if start:
                await asyncio.sleep(0)  # noqa: TID251 - the loop's turn, for entities that run
            with running.within(rebuild.cell.key, RECOVERY):
                rebuild.take(tail[start : start + SLICE_ENTRIES])

    async def _pages(self, rebuild: Rebuild) -> None:
        """Read what did not fit into the first page, beside other recoveries."""
        cell, host = rebuild.cell, self._host
        try:
            async with self._long:
                while not rebuild.complete:
                    tail = await host.patiently(lambda: host.store.entries(cell.key, rebuild.n, PAGE_ENTRIES))
                    if not self._is_current(rebuild):
                        return
                    await self._apply(rebuild, tail)
            if self._is_current(rebuild):
                del self._current[cell.key]
                self._ready(rebuild)
        except StoreUnavailable:  # this host is closed
            raise
        except Exception as error:  # noqa: BLE001 - as above
            if self._is_current(rebuild):
                self._corrupt(cell, error)
        finally:
            if self._current.get(cell.key) is rebuild:
                del self._current[cell.key]
            self._give_back(1)

    def _is_current(self, rebuild: Rebuild) -> bool:
        """Return whether a cell still waits for this: it may have stopped, left this host, or begun anew."""
        return self._current.get(rebuild.cell.key) is rebuild and self._waits(rebuild.cell)

    def _ready(self, rebuild: Rebuild) -> None:
        cell = rebuild.cell
        rebuild.finish()
        self.count += 1
        cell.phase = step(cell.phase, Phase.READY)
        passivation = self._host.passivation
        passivation.recovered(cell)
        cell.pump()
        passivation.settle(cell)


class Rebuild:
    """What becomes of one cell: snapshot, then events, and what it remembers of the commands that wait for it.

    Args:
        cell: The cell; it is not touched before ``finish``.
        want: What was asked of the store.
        recovered: The first page of what the store holds of it.

    Raises:
        UnreadableState: The state or snapshot cannot be read.
    """

    def __init__(self, cell: Cell, want: Want, recovered: Recovered) -> None:
        self.cell = cell
        self.spec = cell.spec
        self.last, self.last_seq = recovered.last, recovered.last_seq
        self.state_n = recovered.state_n
        self.marks_n = recovered.marks_n
        self.n = recovered.state_n if want.events else recovered.last
        """Entry up to which it has been read."""
        self.tail_bytes = 0
        self.marks: dict[str, int] | None = _decode_marks(recovered.marks) if recovered.marks else None
        if recovered.sends:
            self.marks = (self.marks or {}) | recovered.sends
        self.window: dict[str, Decided] = {}
        looked_up = dict.fromkeys(want.ids) | {one.command_id: answered(one) for one in recovered.decided}
        self.unread = Unread(self.n, looked_up) if 0 < recovered.oldest_n <= self.n else None
        self.forgot_ms = recovered.oldest_ms if recovered.oldest_n > 1 else 0
        self.state_bytes = len(recovered.state or "")
        self.entity = self.spec.cls()
        self.entity.id = cell.id
        self.entity.state = (
            self.spec.state_type()
            if recovered.state is None
            else read_state(self.spec, recovered.state, recovered.state_version)
        )
        self._forgotten_n = recovered.last - want.window
        self._events_n = recovered.state_n
        """Entry up to which events are in the state."""

    @property
    def complete(self) -> bool:
        """Whether nothing more is to be read."""
        return self.n >= self.last

    def take(self, tail: list[Tail]) -> None:
        """Add a page of entries."""
        if not tail and not self.complete:
            msg = f"entries {self.n + 1} to {self.last} are missing"
            raise LookupError(msg)
        for entry in tail:
            self._apply(entry)
            self._remember(entry)
            self.n = entry.n

    def _apply(self, entry: Tail) -> None:
        if entry.n != self._events_n + 1:
            msg = f"entries {self._events_n + 1} to {entry.n - 1} are missing, and no snapshot after them can be read"
            raise LookupError(msg)
        self._events_n = entry.n
        if entry.events is None:
            return
        self.tail_bytes += len(entry.events)
        try:
            events = read_events(self.spec, entry.events)
        except UnreadableEvent as error:
            msg = f"entry {entry.n}: {error}"
            raise UnreadableEvent(msg) from error
        for event in events:
            self.entity.apply(event)

    def _remember(self, entry: Tail) -> None:
        if (send := send_of(entry.command_id)) is None:
            if entry.n > self._forgotten_n:
                self.window[entry.command_id] = answered(entry)
        elif entry.n > self.marks_n:
            self.marks = self.marks or {}
            self.marks[send[0]] = send[1]

    def finish(self) -> None:
        """Set the cell to it."""
        cell = self.cell
        cell.entity = self.entity
        cell.n = max(self.last, self.state_n, self.marks_n)
        cell.seq = self.last_seq
        cell.snapshot_n = self.state_n if self.spec.kind == "event_sourced" else self.marks_n
        cell.state_bytes, cell.tail_bytes = self.state_bytes, self.tail_bytes
        cell.kept = (self.state_n,) if self.state_n else ()
        cell.marks = self.marks
        # Its lanes stay: commands taken into the mailbox before or during recovery are taken.
        cell.window, cell.unread, cell.forgot_ms = self.window, self.unread, self.forgot_ms
        cell.reminders = None
        cell.unremembered = self.spec.options.remember
        cell.commit = None
