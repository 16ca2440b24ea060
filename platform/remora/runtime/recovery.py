"""Bringing entities back from the store, many in one read, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from remora.errors import Corrupt, StoreUnavailable
from remora.journal import Recovered, Want
from remora.lifecycle import Phase, step
from remora.schema.reading import UnreadableState, read_events, read_state

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

_decode_marks = msgspec.json.Decoder(dict[str, int]).decode
RETRY_S = 0.1
"""Pause before the store is read again after it did not answer, in seconds."""


class Recovery:
    """Reads waiting cells back, at most ``recoveries_max`` per read, one read at a time."""

    def __init__(self, host: Host, recoveries_max: int) -> None:
        self._host = host
        self._max = recoveries_max
        self._waiting: deque[Cell] = deque()
        self._task: asyncio.Task[None] | None = None
        self._below: dict[str, int] = {}
        """entity → entry of a snapshot that could not be read: an older one is to be taken"""
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

    async def _load(self, cells: dict[str, Cell]) -> None:
        try:
            found = await self._host.store.load(
                [Want(c.key, c.spec.options.dedup_window, self._below.get(c.key, 0)) for c in cells.values()]
            )
        except StoreUnavailable as error:
            self._host.log.warning("recovery waits for the store: %s", error)
            await asyncio.sleep(RETRY_S)  # noqa: TID251 - bounded pause between tries; waiting commands keep their deadlines
            self._waiting.extend(cells.values())
            return
        except Exception as error:  # noqa: BLE001 - something in the store cannot be read: find out whose it is
            if len(cells) > 1:
                for cell in cells.values():
                    await self._load({cell.key: cell})
                return
            for cell in cells.values():
                self._corrupt(cell, error)
            return
        for recovered in found:
            cell = cells[recovered.entity]
            if cell.phase is Phase.RECOVERING:
                self._one(cell, recovered)

    def _corrupt(self, cell: Cell, error: Exception) -> None:
        self._host.log.error("cannot recover %s", cell.key, exc_info=error)
        cell.stop(Corrupt(f"{cell.key} cannot be recovered: {error}", entity=cell.key))

    def _one(self, cell: Cell, recovered: Recovered) -> None:
        try:
            rebuild(cell, recovered)
            self._below.pop(cell.key, None)
        except UnreadableState as error:
            if cell.spec.kind != "event_sourced":
                self._corrupt(cell, error)
                return
            # The events are the truth: an older snapshot will do, or none.
            self._host.log.warning("%s: snapshot at entry %d: %s", cell.key, recovered.state_n, error)
            self._below[cell.key] = recovered.state_n
            self._waiting.append(cell)
            return
        except Exception as error:  # noqa: BLE001 - whatever a row or an apply raises, only this entity is concerned
            self._corrupt(cell, error)
            return
        self.count += 1
        cell.phase = step(cell.phase, Phase.READY)
        cell.pump()


def rebuild(cell: Cell, recovered: Recovered) -> None:
    """Set a cell to what the store holds: snapshot, then events, then what it remembers of commands."""
    spec = cell.spec
    state = spec.state_type() if recovered.state is None else read_state(spec, recovered.state, recovered.state_version)
    entity = spec.cls()
    entity.id, entity.state = cell.id, state
    cell.entity = entity
    cell.n = cell.snapshot_n = recovered.state_n if spec.kind == "event_sourced" else recovered.marks_n
    cell.seq = recovered.state_seq
    cell.marks = _decode_marks(recovered.marks) if recovered.marks else None
    # Its lanes stay: commands taken into the mailbox before or during recovery are taken.
    cell.window = {}
    cell.forgot_ms = 0
    cell.commit = None
    forgotten_n = (recovered.tail[-1].n if recovered.tail else 0) - spec.options.dedup_window
    for entry in recovered.tail:
        if entry.events is not None and entry.n > recovered.state_n:
            for event in read_events(spec, entry.events):
                entity.apply(event)
        if entry.n == forgotten_n + 1 and forgotten_n > 0:
            cell.forgot_ms = entry.at
        # Only the outbox makes ids that end in '>' and a number.
        sender, mark, number = entry.command_id.rpartition(">")
        if mark and number.isdecimal():
            if entry.n > recovered.marks_n:
                cell.marks = cell.marks or {}
                cell.marks[sender] = int(number)
        elif entry.n > forgotten_n:
            cell.window[entry.command_id] = (entry.verdict, entry.reply.encode(), entry.at)
        cell.n, cell.seq = entry.n, entry.seq
    cell.n = max(cell.n, recovered.state_n, recovered.marks_n)
