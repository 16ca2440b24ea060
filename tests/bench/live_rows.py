"""A million live entities in one process: what each costs in memory, how fast they come, and whether commands notice.

Without Ray: two hosts of ``remora.local`` on SQLite, and the client beside them, all in one event loop. Entities are brought back
from the journal, one event each, then commanded at random, 1,024 under way. Memory is the process's, the store's caches included.
"""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from remora import App, Client, EntityOptions, Event, EventSourced, Settings, command, query
from remora.clock import SystemClock
from remora.journal import Append
from remora.local import LocalPlatform
from remora.sharding.table import HostRow
from remora.storage.open import open_store
from tests.bench.durability_rows import resident_bytes
from tests.bench.records import Record

LIVE = (10_000, 100_000, 1_000_000)
"""Live entities at which commands are counted; memory and activations are taken at the last."""
HOSTS = 2
IN_FLIGHT = 1_024
SECONDS = 5.0
BATCH = 5_000


class Sum(BaseModel):
    """What each keeps."""

    amount: int = 0


class Added(Event):
    """An amount was added."""

    amount: int


class Purse(EventSourced[Sum, Added]):
    """As small as they come; none is idle before the end."""

    options = EntityOptions(passivate_after_s=7_200.0, deadline_s=60.0)

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


app = App("purses", entities=[Purse], settings=Settings(live_max=10_000_000, live_bytes_max=64 << 30))


class LiveRows:
    """Rows measured on a store of their own in ``folder``.

    Args:
        folder: Where the store's files are made and deleted.
        live: Live entities at which commands are counted.
    """

    def __init__(self, folder: Path, live: Sequence[int] = LIVE) -> None:
        self._folder = folder / "live"
        self._live = live
        self._rng = random.Random(1)

    async def live(self) -> AsyncIterator[Record]:
        """Yield bytes per live entity, activations a second, and commands a second by how many are live."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        url = f"sqlite:///{self._folder / 'store.db'}"
        await self._write(url)
        platform = LocalPlatform(app, open_store(url), SystemClock())
        switching, thresholds = sys.getswitchinterval(), gc.get_threshold()
        await platform.start(HOSTS)
        sys.setswitchinterval(0.001)  # this and the collector as in a host's process
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        try:
            client = await platform.client().start()
            await self._activate(client, range(1_000))
            before, awake, took_s, rates = resident_bytes(), 1_000, 0.0, []
            for count in self._live:
                began_s = time.perf_counter()
                await self._activate(client, range(awake, count))
                took_s += time.perf_counter() - began_s
                awake = count
                if count == self._live[-1]:
                    gc.collect()
                    after = resident_bytes()
                rates.append(await self._commands(client, count))
            live = sum(len(host.cells) for host in platform.hosts.values())
            if live != awake:
                msg = f"{awake:,} were activated and {live:,} are live"
                raise AssertionError(msg)
            yield Record("entities.live", round((after - before) / (awake - 1_000)), f"bytes at {awake:,}")
            yield Record("entities.live.activations", round((awake - 1_000) / took_s), "activations/s")
            for count, rate in zip(self._live, rates, strict=True):
                yield Record(f"entities.live.rate@{_short(count)}", round(rate), "commands/s")
        finally:
            await platform.close()
            gc.unfreeze()
            gc.set_threshold(*thresholds)
            sys.setswitchinterval(switching)
            shutil.rmtree(self._folder)

    async def _write(self, url: str) -> None:
        store = open_store(url)
        await store.open(app.name, app.settings.shards)
        host = await store.join(HostRow(0, "writer", "n", "m", 1, 0.0))
        for start in range(0, self._live[-1], BATCH):
            rows = range(start, start + BATCH)
            await store.append(
                host,
                Append([(f"purse/{n}", 1, 1, b'[["Added",{"amount":1}]]', f"made-{n}", 0, b"1", 1, 0) for n in rows]),
            )
        await store.close()

    async def _activate(self, client: Client, numbers: range) -> None:
        """Bring entities back, so many at a time as a client may have under way."""
        for start in range(numbers.start, numbers.stop, IN_FLIGHT):
            some = range(start, min(start + IN_FLIGHT, numbers.stop))
            replies = await asyncio.gather(*(client.ref(Purse, str(n)).amount() for n in some))
            if set(replies) != {1}:
                msg = f"They hold {set(replies)} and not 1"
                raise AssertionError(msg)

    async def _commands(self, client: Client, count: int) -> float:
        """Return how many durable commands a second are answered, each to one of so many entities."""
        done, until_s = 0, time.perf_counter() + SECONDS + 1

        async def work() -> int:
            nonlocal done
            while time.perf_counter() < until_s:
                await client.ref(Purse, str(self._rng.randrange(count))).add(1)
                done += 1
            return done

        workers = [asyncio.create_task(work()) for _ in range(IN_FLIGHT)]
        await asyncio.sleep(1)
        began_s, warm = time.perf_counter(), done
        await asyncio.sleep(SECONDS - 0.5)
        rate = (done - warm) / (time.perf_counter() - began_s)
        await asyncio.gather(*workers)
        return rate


def _short(count: int) -> str:
    return f"{count // 1_000_000}M" if count >= 1_000_000 else f"{count // 1_000}k"
