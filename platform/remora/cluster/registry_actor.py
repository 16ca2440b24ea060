"""The Ray actor around the sharding registry, and how that registry runs hosts on Ray."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
from collections.abc import Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from remora.app import App, load_app
from remora.clock import SystemClock
from remora.cluster.host_actor import HostActor
from remora.cluster.names import NAMESPACE, entity_name, host_name, slot_of
from remora.cluster.transport import find_actor, ours
from remora.errors import HostGone
from remora.process import machine_identity, started_s
from remora.runtime.registry import Registry
from remora.sharding.table import HostRow, encode_table
from remora.storage.open import open_store

HOST_LABEL = "remora/entity-host"
"""Ray node label of nodes meant for hosts; where no node has it, any node will do."""
START_S = 120.0
"""Longest wait for a host process to start, in seconds: image pulls and cold nodes included."""
TELL_S = 15.0
"""Longest wait for a host to take or give up shards, in seconds."""


class RayHosts:
    """Runs hosts as Ray named detached actors."""

    def __init__(self, app: App, app_path: str, store: str) -> None:
        self._app = app
        self._app_path = app_path
        self._store = store
        self._handles: dict[str, ActorHandle[Any]] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._dedicating: dict[str, asyncio.Task[None]] = {}
        self._lives = itertools.count(1)
        self.term = 0
        self.registry: Registry

    async def attach(self, rows: Sequence[HostRow]) -> list[HostRow]:
        """Find hosts of an earlier registry process again; return those that are gone."""
        lost = []
        for row in rows:
            try:
                self._handles[row.name] = await find_actor(row.name)
                current: HostRow = await self._handles[row.name].start.remote()
            except (HostGone, RayError):
                lost.append(row)
                continue
            if current.incarnation == row.incarnation:
                self._begin_watch(row)
            else:
                lost.append(row)
        return lost

    async def create(self, slot: int) -> HostRow:
        """Start a shared host in a slot."""
        name = host_name(self._app.name, slot, f"{self.term}-{next(self._lives)}")
        options: dict[str, Any] = {"max_restarts": 0, "num_cpus": 1, "scheduling_strategy": "SPREAD"}
        if any(HOST_LABEL in node.get("Labels", {}) for node in ray.nodes()):
            options["label_selector"] = {HOST_LABEL: "true"}
        return await self._create(name, "", options)

    async def _create(self, name: str, dedicated: str, options: dict[str, Any]) -> HostRow:
        actor = ray.remote(HostActor).options(
            name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, max_task_retries=0,
            max_concurrency=10_000, enable_task_events=False, **options,
        )  # fmt: skip
        handle: ActorHandle[Any] = actor.remote(self._app_path, self._store, name, dedicated)
        try:
            async with asyncio.timeout(START_S):
                row: HostRow = await handle.start.remote()
        except (RayError, TimeoutError) as error:
            ray.kill(handle, no_restart=True)
            raise ours(error, name) from error
        self._handles[name] = handle
        self._begin_watch(row)
        return row

    def _begin_watch(self, row: HostRow) -> None:
        task = asyncio.get_running_loop().create_task(self._watch(row))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _watch(self, row: HostRow) -> None:
        """Wait for the host's death, which Ray reports within milliseconds when it does not restart it."""
        try:
            await self._handles[row.name].watch.remote()
        except RayActorError:
            if not row.dedicated:
                self._handles.pop(row.name, None)
            await self.registry.gone([row.incarnation])

    # -- as Hosts of the registry --------------------------------------------------------------------

    async def own(self, host: HostRow, shards: dict[str, int]) -> None:
        """See Hosts."""
        await self._tell(host, "own", shards)

    async def release(self, host: HostRow, shards: Sequence[str]) -> None:
        """See Hosts."""
        await self._tell(host, "release", list(shards))

    async def _tell(self, host: HostRow, method: str, argument: object) -> None:
        handle = self._handles.get(host.name)
        if handle is None:
            msg = f"{host.name} is gone."
            raise HostGone(msg)
        try:
            async with asyncio.timeout(TELL_S):
                await getattr(handle, method).remote(argument)
        except (RayError, TimeoutError) as error:
            raise ours(error, host.name) from error

    async def replace(self, host: HostRow) -> None:
        """See Hosts."""
        await self.registry.joined([await self.create(slot_of(host.name))])

    async def dedicate(self, key: str) -> None:
        """See Hosts."""
        running = self._dedicating.get(key)
        if running is None:
            running = self._dedicating[key] = asyncio.create_task(self._dedicate(key))
            running.add_done_callback(lambda _: self._dedicating.pop(key, None))
        await running

    async def _dedicate(self, key: str) -> None:
        spec = self._app.spec(key.partition("/")[0])
        resources = dict(spec.options.resources)
        options: dict[str, Any] = {
            "max_restarts": -1, "num_cpus": resources.pop("CPU", 0), "num_gpus": resources.pop("GPU", 0), "resources": resources,
        }  # fmt: skip
        if "memory" in resources:
            options["memory"] = resources.pop("memory")
        await self.registry.joined([await self._create(entity_name(self._app.name, key), key, options)])

    async def kill(self, host: HostRow) -> bool:
        """See Hosts."""
        if host.machine == machine_identity() and host.started and started_s(host.pid) == host.started:
            os.kill(host.pid, signal.SIGKILL)
        handle = self._handles.pop(host.name, None)
        if handle is not None and not host.dedicated:
            ray.kill(handle, no_restart=True)
        return True  # killed here, or its lease was watched to its end

    async def stop_all(self) -> None:
        """Stop every host for good."""
        for task in list(self._watches):
            task.cancel()
        for row in self.registry.current.hosts.values():
            handle = self._handles.pop(row.name, None)
            if handle is not None:
                ray.kill(handle, no_restart=True)

    async def statuses(self) -> list[dict[str, Any]]:
        """Return the counters of all hosts that answer in time."""

        async def one(name: str, handle: ActorHandle[Any]) -> dict[str, Any]:
            try:
                async with asyncio.timeout(2.0):
                    found: dict[str, Any] = await handle.status.remote()
                    return found
            except (RayError, TimeoutError) as error:
                return {"name": name, "error": str(ours(error, name))}

        return list(await asyncio.gather(*(one(name, handle) for name, handle in self._handles.items())))


class RegistryActor:
    """One app's registry process; Ray restarts it, and it reads everything back from the store."""

    def __init__(self, app_path: str, store: str, hosts: int) -> None:
        self._app_path = app_path
        self._store_url = store
        self._hosts_wanted = hosts
        self._registry: Registry | None = None
        self._hosts: RayHosts
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Lead, find or start the hosts; returns when every shard has an owner."""
        async with self._starting:
            if self._registry is None:
                self._registry = await self._start()

    async def _start(self) -> Registry:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        app = load_app(self._app_path)
        store = open_store(self._store_url)
        await store.open(app.name, app.settings.shards)
        hosts = self._hosts = RayHosts(app, self._app_path, store.url)
        registry = hosts.registry = Registry(app, store, hosts, SystemClock())
        table = await registry.start()
        hosts.term = registry.term
        # Clients of this process must find it answering while hosts start: hosts are clients too.
        self._registry = registry
        lost = await hosts.attach(list(table.hosts.values()))
        for row in lost:
            await hosts.kill(row)
        await registry.gone([row.incarnation for row in lost], replace=False)
        taken = {slot_of(row.name) for row in registry.current.hosts.values() if not row.dedicated}
        wanted = [slot for slot in range(1, self._hosts_wanted + 1) if slot not in taken]
        if wanted:
            await registry.joined(list(await asyncio.gather(*(hosts.create(slot) for slot in wanted))))
        for key in registry.unplaced():
            await hosts.dedicate(key)
        return registry

    async def _ready(self) -> Registry:
        if self._registry is None:
            await self.start()
        if self._registry is None:
            msg = "the registry did not start"
            raise RuntimeError(msg)
        return self._registry

    async def table(self, after: int) -> bytes:
        """Return the shard table once it is newer than ``after``."""
        registry = await self._ready()
        return encode_table(await registry.table(after))

    async def place(self, key: str) -> bytes:
        """Place a dedicated entity."""
        await (await self._ready()).place(key)
        return b""

    async def refresh(self) -> None:
        """Read the table again after a host took a new incarnation."""
        await (await self._ready()).refresh()

    async def status(self) -> dict[str, Any]:
        """Return the table's summary and every host's counters."""
        registry = await self._ready()
        return {**await registry.status(), "live": await self._hosts.statuses()}

    async def stop(self) -> None:
        """Stop the hosts; what was acknowledged is in the store."""
        registry = await self._ready()
        await registry.close()
        await self._hosts.stop_all()
