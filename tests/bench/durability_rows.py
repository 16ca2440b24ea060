"""Recovery and reminders, in one process without Ray: what they cost is the runtime's and the store's."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel

from remora import App, Durable, EntityOptions, Event, EventSourced, Settings, command, query
from remora.clock import SystemClock
from remora.journal import Append, EntryRow, ReminderSet
from remora.local import LocalPlatform
from remora.sharding.hashing import shard_of
from remora.sharding.table import HostRow
from remora.storage.open import open_store
from tests.bench.records import Record

BATCH = 5_000
RECOVERED = (1_000, 100_000)
PENDING = 1_000_000
DUE = 20_000
FAR_MS = 10**15


class Sum(BaseModel):
    """What both entities keep."""

    amount: int = 0


class Added(Event):
    """An amount was added."""

    amount: int


class Ledger(EventSourced[Sum, Added]):
    """Brought back from its events."""

    options = EntityOptions(snapshot_every=10**9, snapshot_bytes=10**12)

    @command
    async def add(self, amount: int) -> int:
        """Add an amount."""
        self.emit(Added(amount=amount))
        return self.state.amount

    @query
    async def amount(self) -> int:
        """Return the sum."""
        return self.state.amount

    def apply(self, event: Added) -> None:
        """Add."""
        self.state.amount += event.amount


class Alarm(Durable[Sum]):
    """Counts its rings."""

    async def on_reminder(self, name: str) -> None:
        """Count one."""
        del name
        self.state.amount += 1


app = App("durability", entities=[Ledger, Alarm], settings=Settings(shards=64))


class DurabilityRows:
    """Rows measured on a store of their own in ``folder``.

    Args:
        folder: Where the store's files are made and deleted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "durability"

    async def recovery(self) -> AsyncIterator[Record]:
        """Yield seconds from the first question to the answer of an entity that is not in memory."""
        for count in RECOVERED:
            took: dict[bool, float] = {}
            for snapshot in (False, True):
                url = self._fresh()
                await self._write_events(url, count, snapshot=snapshot)
                platform = LocalPlatform(app, open_store(url), SystemClock())
                await platform.start(1)
                try:
                    client = await platform.client().start()
                    await client.ref(Ledger, "warm").amount()
                    began = time.perf_counter()
                    total = await client.ref(Ledger, "a").with_options(deadline_s=120).amount()
                    took[snapshot] = time.perf_counter() - began
                finally:
                    await platform.close()
                if total != count:
                    msg = f"{count} events came back as {total}"
                    raise AssertionError(msg)
            name = f"recovery.{count // 1000}k"
            yield Record(name, round(took[False] * 1000, 2), "ms")
            yield Record(
                f"{name}.snapshot",
                round(took[True] * 1000, 2),
                "ms",
                "without a snapshot",
                round(took[False] * 1000, 2),
            )

    async def reminders(self) -> AsyncIterator[Record]:
        """Yield what a million pending reminders cost in memory, and how many due ones ring a second."""
        url = self._fresh()
        store = open_store(url)
        await store.open(app.name, app.settings.shards)
        host = await store.join(HostRow(0, "writer", "n", "m", 1, 0.0))
        for start in range(0, PENDING, BATCH):
            await store.append(host, Append(reminders=_reminders(range(start, start + BATCH), FAR_MS)))
        await store.close()
        platform = LocalPlatform(app, open_store(url), SystemClock())
        before = resident_bytes()
        await platform.start(1)
        try:
            (running,) = platform.hosts.values()
            await running.reminders.fire_due()
            after = resident_bytes()
            due = _reminders(range(PENDING, PENDING + DUE), 1)
            rung = running.reminders.fired
            began = time.perf_counter()
            await platform.store.append(running.incarnation, Append(reminders=due))
            while running.reminders.fired - rung < DUE:  # noqa: ASYNC110 - a counter of the product, which wakes nobody
                await asyncio.sleep(0.01)
            took = time.perf_counter() - began
        finally:
            await platform.close()
        yield Record("reminders.pending", round((after - before) / 1e6, 1), f"MB with {PENDING:,} pending")
        yield Record("reminders.rate", round(DUE / took), "rings/s")

    def _fresh(self) -> str:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return f"sqlite:///{self._folder / 'store.db'}"

    async def _write_events(self, url: str, count: int, *, snapshot: bool) -> None:
        store = open_store(url)
        await store.open(app.name, app.settings.shards)
        host = await store.join(HostRow(0, "writer", "n", "m", 1, 0.0))
        key = "ledger/a"
        for start in range(1, count + 1, BATCH):
            last = min(start + BATCH - 1, count)
            rows: list[EntryRow] = [
                (key, n, n, b'[["Added",{"amount":1}]]', f"c{n}", 0, b"1", n, 0) for n in range(start, last + 1)
            ]
            append = Append(entries=rows)
            if snapshot and last == count:
                at = count - 50
                append.snapshots[key] = (key, at, at, b'{"amount":%d}' % at, 1, 2)
                append.marks[key] = (key, at, b"{}")
            await store.append(host, append)
        await store.close()


def resident_bytes() -> int:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _reminders(numbers: range, due_ms: int) -> dict[tuple[str, str], ReminderSet | None]:
    keys = [f"alarm/a{n}" for n in numbers]
    return {(key, "x"): (key, "x", shard_of(key, app.settings.shards), due_ms, 0, 0) for key in keys}
