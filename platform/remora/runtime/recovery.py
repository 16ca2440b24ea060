"""Bringing entities back from the store, many in one read, bounded.

Snapshot, then the events behind it, page by page. A snapshot that cannot be read is no loss: an
older one is taken, or none. Whatever else cannot be read concerns that entity alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from remora.errors import Corrupt, StoreUnavailable
from remora.journal import PAGE_ENTRIES, Recovered, Tail, Want
from remora.lifecycle import Phase, step
from remora.schema.reading import UnreadableEvent, UnreadableState, read_events, read_state

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host
    from remora.runtime.window import Decided

_decode_marks = msgspec.json.Decoder(dict[str, int]).decode
RETRY_S = 0.1
"""Pause before the store is read again after it did not answer, in seconds."""
LONG_MAX = 2
"""Entities with more than a page of entries that are read back at the same time."""


class Recovery:
    """Reads waiting cells back, at most ``recoveries_max`` per read, one read at a time."""

    def __init__(self, host: Host, recoveries_max: int) -> None:
        self._host = host
        self._max = recoveries_max
        self._waiting: deque[Cell] = deque()
        self._task: asyncio.Task[None] | None = None
        self._long = asyncio.Semaphore(LONG_MAX)
        self._current: dict[str, Rebuild] = {}
        """Those with more pages to come; one that begins anew replaces the former."""
        self.count = 0
        """Entities recovered so far."""

    def add(self, cell: Cell) -> None:
        """Recover a cell soon."""
        self._waiting.append(cell)
        if self._task is None:
            self._task = self._host.loop.create_task(self._run())

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._some()
        finally:
            self._task = None

    async def _some(self) -> None:
        cells: dict[str, Cell] = {}
        while self._waiting and len(cells) < self._max:
            cell = self._waiting.popleft()
            # One that restarts while its latest entry is being written comes again when that is done.
            if cell.phase is Phase.RECOVERING and (cell.commit is None or cell.commit.done):
                cells[cell.key] = cell
        if cells:
            await self._load(cells)

    async def _load(self, cells: dict[str, Cell], below: int = 0) -> None:
        wants = [Want(cell.key, cell.spec.options.dedup_window, below) for cell in cells.values()]
        try:
            found = await self._host.store.load(wants)
        except StoreUnavailable as error:
            self._host.log.warning("recovery waits for the store: %s", error)
            await asyncio.sleep(RETRY_S)  # noqa: TID251 - bounded pause between tries; waiting commands keep their deadlines
            self._waiting.extend(cells.values())
            return
        except Exception as error:  # noqa: BLE001 - something in the store cannot be read: find out whose it is
            if len(cells) > 1:
                for cell in cells.values():
                    await self._load({cell.key: cell}, below)
                return
            for cell in cells.values():
                self._corrupt(cell, error)
            return
        for recovered in found:
            cell = cells[recovered.entity]
            if cell.phase is Phase.RECOVERING:
                await self._one(cell, recovered)

    def _corrupt(self, cell: Cell, error: Exception) -> None:
        self._host.log.error("cannot recover %s", cell.key, exc_info=error)
        cell.stop(Corrupt(f"{cell.key} cannot be recovered: {error}", entity=cell.key))

    async def _one(self, cell: Cell, recovered: Recovered) -> None:
        self._current.pop(cell.key, None)
        try:
            rebuild = Rebuild(cell, recovered)
            rebuild.take(recovered.tail)
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
            if rebuild.complete:
                self._ready(rebuild)
            else:
                self._current[cell.key] = rebuild
                self._host.spawn(self._pages(rebuild))

    async def _pages(self, rebuild: Rebuild) -> None:
        """Read what did not fit into the first page, beside other recoveries."""
        cell, host = rebuild.cell, self._host
        async with self._long:
            while not rebuild.complete:
                tail = await host.patiently(lambda: host.store.entries(cell.key, rebuild.n, PAGE_ENTRIES))
                if self._current.get(cell.key) is not rebuild or cell.phase is not Phase.RECOVERING:
                    return  # it stopped, left this host, or began anew meanwhile
                try:
                    rebuild.take(tail)
                except Exception as error:  # noqa: BLE001 - as above
                    self._corrupt(cell, error)
                    return
        del self._current[cell.key]
        self._ready(rebuild)

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
    """What becomes of one cell: snapshot, then events, then what it remembers of commands.

    Args:
        cell: The cell; it is not touched before ``finish``.
        recovered: The first page of what the store holds of it.

    Raises:
        UnreadableState: The state or snapshot cannot be read.
    """

    def __init__(self, cell: Cell, recovered: Recovered) -> None:
        self.cell = cell
        self.spec = cell.spec
        self.last = recovered.last
        self.state_n = recovered.state_n
        self.marks_n = recovered.marks_n
        self.n = min(recovered.state_n, recovered.marks_n)
        self.seq = recovered.state_seq
        self.tail_bytes = 0
        self.marks: dict[str, int] | None = _decode_marks(recovered.marks) if recovered.marks else None
        self.window: dict[str, Decided] = {}
        self.forgot_ms = 0
        self.state_bytes = len(recovered.state or "")
        self.entity = self.spec.cls()
        self.entity.id = cell.id
        self.entity.state = (
            self.spec.state_type()
            if recovered.state is None
            else read_state(self.spec, recovered.state, recovered.state_version)
        )
        self._forgotten_n = recovered.last - self.spec.options.dedup_window
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
            if self.spec.kind == "event_sourced" and entry.n > self.state_n:
                self._apply(entry)
            self._remember(entry)
            self.n, self.seq = entry.n, entry.seq

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
        if entry.n == self._forgotten_n + 1 and self._forgotten_n > 0:
            self.forgot_ms = entry.at
        # Only the outbox makes ids that end in '>' and a number.
        sender, mark, number = entry.command_id.rpartition(">")
        if mark and number.isdecimal():
            if entry.n > self.marks_n:
                self.marks = self.marks or {}
                self.marks[sender] = int(number)
        elif entry.n > self._forgotten_n:
            self.window[entry.command_id] = (entry.verdict, entry.reply.encode(), entry.at, entry.fingerprint)

    def finish(self) -> None:
        """Set the cell to it."""
        cell = self.cell
        cell.entity = self.entity
        cell.n = max(self.n, self.state_n, self.marks_n)
        cell.seq = self.seq
        cell.snapshot_n = self.state_n if self.spec.kind == "event_sourced" else self.marks_n
        cell.state_bytes, cell.tail_bytes = self.state_bytes, self.tail_bytes
        cell.kept = (self.state_n,) if self.state_n else ()
        cell.marks = self.marks
        # Its lanes stay: commands taken into the mailbox before or during recovery are taken.
        cell.window = self.window
        cell.forgot_ms = self.forgot_ms
        cell.reminders = None
        cell.commit = None
