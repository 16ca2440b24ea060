"""The Ray actor around a host. It decides nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from typing import Any

import ray

from remora.app import AppSource
from remora.client import Client
from remora.clock import SystemClock
from remora.cluster.metrics import Publisher
from remora.cluster.names import supervisor_name
from remora.cluster.transport import RayDirectory, RayTransport
from remora.process import machine_identity, started_s
from remora.runtime import blackbox
from remora.runtime.admission import admit
from remora.runtime.host import Host
from remora.runtime.measures import OF_HOST
from remora.runtime.readiness import Progress
from remora.schema.describe import release_of
from remora.sharding.table import HostRow
from remora.storage.open import open_store
from remora.why import Glance

SWITCH_INTERVAL_S = 0.001
"""How long the loop may keep the interpreter lock from the commit thread (Python's default is 5 ms,
a whole commit's worth)."""

MIN_WEIGHT = 0.1
"""What a host that was given no CPU counts in the allocation."""


BESIDE = "beside"
"""Ray concurrency group of what is answered while a handler keeps the host's own event loop."""
BESIDE_CALLS_MAX = 16
"""Such calls at once."""


class HostActor:
    """One host process.

    The constructor only keeps its arguments, because Ray destroys an actor whose constructor
    raises; ``start`` does the work and may be called again after Ray restarted the process.
    """

    def __init__(self, source: AppSource, store: str, name: str, dedicated: str, group: str, weight: float) -> None:
        self._source = source
        self._store_url = store
        self._name = name
        self._dedicated = dedicated
        self._group = group
        self._weight = weight
        self._host: Host | None = None
        """Set once it has joined."""
        self._made: Host | None = None
        """Set while it waits for what has to pass before it joins."""
        self._box: blackbox.BlackBox | None = None
        self._starting = asyncio.Lock()

    async def prepare(self, known: str) -> str:
        """Run what has to pass before this host joins; return what is waited for, empty once it may join.

        Args:
            known: What the caller has heard already.
        """
        async with self._starting:
            if self._host is not None:
                return ""
            made = self._made = self._made or await self._make()
        return await made.gate.prepare(known)

    async def start(self) -> HostRow:
        """Load the app, join the store, hold a lease; return who this host is now."""
        async with self._starting:
            if self._host is None:
                made, self._made = self._made or await self._make(), None  # one that fails to start is made anew
                self._host = await self._start(made)
            return self._host.row

    async def _make(self) -> Host:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        app = self._source.load()
        clock = SystemClock()
        store = open_store(self._store_url)
        await store.open(app.name, app.settings.shards)
        await admit(app, store)  # the code here may be of another release than the registry's
        context = ray.get_runtime_context()
        row = HostRow(
            0,
            self._name,
            context.get_node_id(),
            machine_identity(),
            os.getpid(),
            started_s(os.getpid()),
            self._dedicated,
            self._group,
            max(self._weight, MIN_WEIGHT),
            {name: str(value) for name, value in context.get_node_labels().items()},
            release_of(app),
        )
        box = self._box = _black_box(app.settings.threads_max)
        transport = RayTransport()
        client = Client(
            RayDirectory(app.name), transport, clock, app.settings, f"{self._name}/{context.get_worker_id()}"
        )
        await client.start()
        return Host(
            app, store, clock, row, client, seed=os.getpid(), on_fenced=self._end_process, on_reincarnated=self._reincarnated,
            hand_over=transport.hand_over, box=box,
            escalate=lambda failure: RayDirectory(app.name).ask("escalated", failure),
            ask_supervisor=lambda name, failure: transport.ask_supervisor(supervisor_name(app.name, name), failure),
        )  # fmt: skip

    async def _start(self, host: Host) -> Host:
        await host.start()
        row = host.row
        tags = {
            "app": host.app.name,
            "host": f"dedicated {row.dedicated.partition('/')[0]}" if row.dedicated else row.slot,
        }
        Publisher(OF_HOST, host, tags, host.latencies_s).start()
        # Entities live long: looking at all of them for garbage again and again only costs.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        return host

    async def exchange(self, data: bytes) -> bytes:
        """Take a batch of commands, return answers that are ready."""
        return await self._running().exchange(data)

    @ray.method(concurrency_group=BESIDE)  # type: ignore[untyped-decorator]  # Ray's
    async def glance(self) -> Glance:
        """Return what keeps the event loop. Ray runs this in a loop and thread of its own, so it is answered then too."""
        return Glance() if self._host is None else self._host.watchdog.glance()

    async def own(self, incarnation: int, shards: dict[str, int]) -> None:
        """Serve these shards of that incarnation from now on."""
        await self._running().own(incarnation, shards)

    async def release(self, targets: dict[str, str]) -> None:
        """Give up these shards, each to the host of that name."""
        await self._running().release(targets)

    async def hand_over(self, data: bytes) -> None:
        """Keep what another host knows of shards that move to this one."""
        self._running().take(data)

    async def read_quarantine(self) -> None:
        """Read from the store what is in quarantine."""
        await self._running().read_quarantine()

    @ray.method(concurrency_group=BESIDE)  # type: ignore[untyped-decorator]  # Ray's
    async def last_words(self, pid: int, started: float) -> blackbox.LastWords | None:
        """Return what another process of this machine left that has ended; beside the event loop, as ``glance`` is."""
        return blackbox.last_words(pid, started)

    async def open_types(self, progress: Progress) -> dict[str, str]:
        """Serve what is open; return what is waited for, by type."""
        return self._running().gate.follow(progress)

    async def close_types(self, types: list[str]) -> None:
        """Serve types no more."""
        await self._running().gate.close(types)

    async def close(self) -> None:
        """Write what there is and serve nothing any more; the process waits for its end."""
        await self._running().close()

    async def live(self) -> dict[str, int]:
        """Return how many entities are in memory per shard."""
        return await self._running().live()

    async def loads(self) -> dict[str, int]:
        """Return commands taken so far per shard."""
        return self._running().loads()

    async def status(self) -> dict[str, Any]:
        """Return counters."""
        return self._running().status()

    async def platform_file(self) -> str:
        """Return where this process found the module ``platform``: the standard library's, always."""
        import platform

        return platform.__file__ or ""

    async def watch(self) -> None:
        """Never return: the call fails when this process ends, which is how its death is noticed."""
        await asyncio.Event().wait()

    def _end_process(self) -> None:
        """A fenced host owns nothing and must not answer from memory: the registry replaces it."""
        logging.shutdown()
        if self._box is not None:
            self._box.close()  # nothing that runs is to blame for this
        os._exit(3)

    async def _reincarnated(self) -> None:
        await RayDirectory(self._running().app.name).ask("refresh")

    def _running(self) -> Host:
        if self._host is None:
            msg = f"{self._name} is not started."
            raise RuntimeError(msg)
        return self._host


def _black_box(threads: int) -> blackbox.BlackBox | None:
    """Return this process's black box; None where there is no place for one, which must keep no host from starting."""
    try:
        blackbox.tidy()
        box = blackbox.BlackBox(threads)
    except OSError as error:
        logging.getLogger("remora.host").error("what takes this host down will not be found: %s", error)  # noqa: TRY400 - where it was raised says nothing
        return None
    box.listen()
    return box
