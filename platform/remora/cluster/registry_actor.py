"""The Ray actor around the sharding registry, and how that registry runs hosts on Ray."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util import list_named_actors

from remora.app import App, load_app
from remora.clock import SystemClock
from remora.cluster.host_actor import BESIDE, BESIDE_CALLS_MAX, HostActor
from remora.cluster.names import NAMESPACE, entity_name, host_name, host_prefix, slot_of
from remora.cluster.transport import Handle, find_actor, ours
from remora.errors import HostGone, StoreMismatch
from remora.process import machine_identity, started_s
from remora.runtime import registry_status
from remora.runtime.admission import admit
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
        self._handles: dict[str, Handle] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._dedicating: dict[str, asyncio.Task[None]] = {}
        self._slots: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._lives = itertools.count(1)
        self.registry: Registry

    async def attach(self, rows: Sequence[HostRow]) -> list[HostRow]:
        """Find hosts of an earlier registry process again; return those that are gone."""

        async def stands(row: HostRow) -> bool:
            try:
                async with asyncio.timeout(TELL_S):
                    handle = self._handles[row.name] = await find_actor(row.name)
                    current: HostRow = await handle.start.remote()
            except (HostGone, RayError, TimeoutError):
                return False
            return current.incarnation == row.incarnation

        # All at once: a frozen one answers only when the end of its lease has had it killed.
        standing = await asyncio.gather(*map(stands, rows))
        for row, stood in zip(rows, standing, strict=True):
            if stood:
                self._begin_watch(row)
        return [row for row, stood in zip(rows, standing, strict=True) if not stood]

    async def kill_strays(self, rows: Sequence[HostRow]) -> None:
        """End hosts that an earlier registry process began to start and never entered in the table."""
        for name in await self._actors(host_prefix(self._app.name)) - {row.name for row in rows}:
            await self._kill_actor(name)

    async def fill(self, slots: Iterable[int]) -> None:
        """Start shared hosts in those slots that have none; those started together share evenly."""
        async with AsyncExitStack() as locked:
            for slot in sorted(slots):
                await locked.enter_async_context(self._slots[slot])
            taken = {slot_of(row.name) for row in self.registry.current.hosts.values() if not row.dedicated}
            wanted = sorted(set(slots) - taken)
            created = await asyncio.gather(*(self.create(slot) for slot in wanted), return_exceptions=True)
            rows = [row for row in created if isinstance(row, HostRow)]
            if rows:
                await self.registry.joined(rows)
            for failed in created:
                if isinstance(failed, BaseException):
                    raise failed

    async def create(self, slot: int) -> HostRow:
        """Start a shared host in a slot."""
        name = host_name(self._app.name, slot, f"{self.registry.term}-{next(self._lives)}")
        options: dict[str, Any] = {"max_restarts": 0, "num_cpus": 1, "scheduling_strategy": "SPREAD"}
        if any(HOST_LABEL in node.get("Labels", {}) for node in ray.nodes()):
            options["label_selector"] = {HOST_LABEL: "true"}
        return await self._create(name, "", options)

    async def _create(self, name: str, dedicated: str, options: dict[str, Any]) -> HostRow:
        remote: Any = ray.remote  # its types know nothing of concurrency groups
        actor = remote(concurrency_groups={BESIDE: BESIDE_CALLS_MAX})(HostActor).options(
            name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, max_task_retries=0,
            max_concurrency=10_000, enable_task_events=False, **options,
        )  # fmt: skip
        handle: Handle = actor.remote(self._app_path, self._store, name, dedicated)
        try:
            async with asyncio.timeout(START_S):
                row: HostRow = await handle.start.remote()
        except (RayError, TimeoutError) as error:
            ray.kill(handle, no_restart=True)
            raise ours(error, name) from error
        self._handles[name] = handle
        self._begin_watch(row)
        return row

    def stop_watching(self) -> None:
        """Take no more notice of hosts' deaths."""
        for task in list(self._watches):
            task.cancel()

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
        await self._tell(host, "own", host.incarnation, shards)

    async def release(self, host: HostRow, shards: Sequence[str]) -> None:
        """See Hosts."""
        await self._tell(host, "release", list(shards))

    async def _tell(self, host: HostRow, method: str, *arguments: object) -> None:
        handle = self._handles.get(host.name)
        if handle is None:
            msg = f"{host.name} is gone."
            raise HostGone(msg)
        try:
            async with asyncio.timeout(TELL_S):
                await getattr(handle, method).remote(*arguments)
        except (RayError, TimeoutError) as error:
            raise ours(error, host.name) from error

    async def replace(self, host: HostRow) -> None:
        """See Hosts."""
        await self.fill([slot_of(host.name)])

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
        # By name and not by the table: those that are just being started are not in it.
        for prefix in (host_prefix(self._app.name), entity_name(self._app.name, "")):
            for name in await self._actors(prefix):
                await self._kill_actor(name)

    async def _actors(self, prefix: str) -> set[str]:
        named: list[Any] = await asyncio.to_thread(list_named_actors, all_namespaces=True)
        return {one["name"] for one in named if one["namespace"] == NAMESPACE and one["name"].startswith(prefix)}

    async def _kill_actor(self, name: str) -> None:
        self._handles.pop(name, None)
        try:
            ray.kill(await find_actor(name), no_restart=True)
        except (HostGone, RayError) as error:
            logging.getLogger("remora.registry").info("%s was gone before it was ended: %s", name, error)

    async def statuses(self) -> list[dict[str, Any]]:
        """Return the counters of all hosts that answer in time."""

        async def one(name: str, handle: Handle) -> dict[str, Any]:
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
        self._started = False

    async def start(self, store: str = "") -> None:
        """Lead, find or start the hosts; returns when every shard has an owner.

        Args:
            store: The store that the caller means; empty if it does not care.

        Raises:
            StartError: Something keeps it from starting, or the app runs on another store.
        """
        if store and store != self._store_url:
            msg = f"The app of {self._app_path} runs in this Ray cluster already, on another store: stop it first."
            raise StoreMismatch(msg)
        async with self._starting:
            if self._started:
                return
            try:
                await self._start()
            except BaseException:
                await self._undo()
                raise
            self._started = True

    async def _undo(self) -> None:
        """Forget a start that failed half way: the next call begins anew and finds what stands."""
        registry, self._registry = self._registry, None
        if registry is not None:
            self._hosts.stop_watching()
            await registry.close()

    async def _start(self) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        app = load_app(self._app_path)
        store = open_store(self._store_url)
        if store.url.startswith("memory:"):
            msg = "memory:// holds state in one process, and hosts are several: use sqlite:///PATH, or remora.local without Ray."
            raise StoreMismatch(msg)
        await store.open(app.name, app.settings.shards)
        await admit(app, store)
        # A path as this process resolved it; any other as it was given, since what a store shows has no password.
        url = store.url if store.url.startswith("sqlite:") else self._store_url
        hosts = self._hosts = RayHosts(app, self._app_path, url)
        registry = hosts.registry = Registry(app, store, hosts, SystemClock())
        table = await registry.start()
        # Clients of this process must find it answering while hosts start: hosts are clients too.
        self._registry = registry
        await hosts.kill_strays(list(table.hosts.values()))
        lost = await hosts.attach(list(table.hosts.values()))
        for row in lost:
            await hosts.kill(row)
        await registry.gone([row.incarnation for row in lost], replace=False)
        await hosts.fill(range(1, self._hosts_wanted + 1))
        for key in registry.unplaced():
            await hosts.dedicate(key)

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

    async def about(self, shard: str) -> dict[str, Any]:
        """Return what is known of a shard and its owner."""
        return registry_status.about(await self._ready(), shard)

    async def refresh(self) -> None:
        """Read the table again after a host took a new incarnation."""
        await (await self._ready()).refresh()

    async def status(self) -> dict[str, Any]:
        """Return the table's summary and every host's counters."""
        registry = await self._ready()
        return {**await registry.status(), "live": await self._hosts.statuses()}

    async def stop(self) -> None:
        """Stop the hosts; what was acknowledged is in the store."""
        if self._registry is not None:
            self._hosts.stop_watching()
            await self._registry.close()
        # Also those that an earlier process of this registry started, and when this one could not start.
        await RayHosts(load_app(self._app_path), self._app_path, self._store_url).stop_all()
