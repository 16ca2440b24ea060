"""A whole platform in this process: several hosts, a registry, a store, without Ray.

The same code as on a cluster minus the network; batches are encoded and decoded all the same.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from remora.app import App
from remora.client import Client
from remora.clock import Clock, SystemClock
from remora.errors import HostGone, NotOwner
from remora.journal import Store
from remora.process import machine_identity, started_s
from remora.runtime import registry_status
from remora.runtime.admission import admit
from remora.runtime.blackbox import LastWords
from remora.runtime.host import Host
from remora.runtime.readiness import Progress
from remora.runtime.registry import Registry
from remora.runtime.startup import TOGETHER_S, as_they_start, stop_in_order
from remora.runtime.supervisor import SupervisorProcess
from remora.schema.describe import release_of
from remora.sharding.table import HostRow, Table
from remora.storage.open import open_store
from remora.supervisor import Supervisor
from remora.why import Glance

_sessions = itertools.count(1)


class LocalPlatform:
    """Hosts and registry in this process.

    Args:
        app: The app.
        store: The app's store.
        clock: Time.
        seed: Seeds all jitter.
    """

    def __init__(self, app: App, store: Store, clock: Clock, seed: int = 0) -> None:
        self.app = app
        self.store = store
        self.clock = clock
        self.hosts: dict[str, Host] = {}
        self.supervisors: dict[str, SupervisorProcess] = {}
        """The supervisors that run, by name."""
        self.registry = Registry(app, store, self, clock, name="local")
        self._seed = seed
        self._slots = itertools.count(1)
        self._clients: list[Client] = []
        self._dedicating: dict[str, asyncio.Task[None]] = {}
        self._wanted: dict[str, list[str]] = {}
        """Host group → names of the hosts that it is to have."""

    async def start(self, hosts: int) -> None:
        """Open the store, start the registry and that many hosts, in order and with what they wait for.

        Raises:
            StartError: What the app waits for has not become ready within ``Settings.ready_within_s``.
        """
        await self.store.open(self.app.name, self.app.settings.shards)
        await admit(self.app, self.store)
        former = await self.registry.start()
        # Whoever held this store before is gone, or was in this process and is closed, or is ended by this.
        await self.registry.gone(list(former.hosts), replace=False)
        if any(_may_run(row) for row in former.hosts.values()):
            # It renews its lease no more; while that lasts it answers queries, which must not miss what is written here.
            await asyncio.sleep(self.app.settings.lease_ttl_s)  # noqa: TID251 - the end of a lease, which nothing tells
        self._wanted = {"": [f"host-{next(self._slots)}" for _ in range(hosts)]}
        for group, wanted in self.app.host_groups.items():
            self._wanted[group] = [f"{group}-{number + 1}" for number in range(wanted.hosts)]
        if self.app.order.declared:
            await self.registry.startup.begin(fresh=True)
            await self.registry.startup.ready()
            return
        started = [await self._new_host(name, group=group) for group, names in self._wanted.items() for name in names]
        await self.registry.joined(started)
        for cls in dict.fromkeys(self.app.supervisors.values()):
            await self.start_supervisor(cls)

    async def start_supervisor(self, cls: type[Supervisor]) -> None:
        """Run one of the app's supervisors."""
        process = SupervisorProcess(self.app, cls, self.store, await self.client().start())
        await process.start()
        self.supervisors[cls.name] = process

    async def ask_supervisor(self, name: str, data: bytes) -> str:
        """Ask a supervisor about a failure."""
        if name not in self.supervisors:
            msg = f"Supervisor {name} does not run."
            raise HostGone(msg)
        return await self.supervisors[name].answer(data)

    async def close(self) -> None:
        """Stop everything, in the reverse of the order it started in; the store keeps what was committed."""
        if self.app.order.declared:
            await stop_in_order(self.registry)
        for supervisor in self.supervisors.values():
            await supervisor.close()
        for client in self._clients:
            await client.close()
        await self.registry.close()
        for host in list(self.hosts.values()):
            await host.close()
        await self.store.close()

    def client(self) -> Client:
        """Return a new client, not started yet."""
        session = f"local-{os.getpid()}-{next(_sessions)}"
        client = Client(self, self, self.clock, self.app.settings, session, self._seed)
        self._clients.append(client)
        return client

    async def add_host(self, name: str = "", dedicated: str = "", *, node: str = "local", group: str = "") -> None:
        """Start one more host.

        Args:
            name: Its name; the next free one if empty.
            dedicated: Key of the entity it is for.
            node: The node it is to be taken for a host of.
            group: Its host group.
        """
        chosen = name or f"host-{next(self._slots)}"
        with self.registry.starting(chosen):
            host = await self._new_host(chosen, dedicated, node=node, group=group)
        await self.registry.joined([host])

    async def _new_host(self, name: str, dedicated: str = "", *, node: str = "local", group: str = "") -> HostRow:
        pid = os.getpid()
        row = HostRow(
            0, name, node, machine_identity(), pid, started_s(pid), dedicated, group, release=release_of(self.app)
        )
        client = await self.client().start()
        host = Host(
            self.app, self.store, self.clock, row, client, seed=self._seed + len(self.hosts),
            on_reincarnated=self.registry.refresh, hand_over=self.hand_over, ask_supervisor=self.ask_supervisor,
            escalate=self.registry.levels.escalated,
        )  # fmt: skip
        try:
            if self.app.order.declared:
                await self._prepared(host)
            joined = await host.start()
        except BaseException:
            host.abandon()
            raise
        finally:
            self.registry.startup.held_up(name, "")
        self.hosts[name] = host
        return joined

    async def _prepared(self, host: Host) -> None:
        waits_for = ""
        while waits_for := await host.gate.prepare(waits_for):
            self.registry.startup.held_up(host.name, waits_for)

    async def crash(self, name: str) -> None:
        """Lose a host with everything in its memory, as a killed process would; it is replaced."""
        host = self.hosts.pop(name)
        host.abandon()
        await host.client.close()
        await self.registry.gone([host.incarnation])

    # -- as Directory and Transport of clients, as Hosts of the registry --------------------------------

    async def table(self, after: int) -> Table:
        """See Directory."""
        return await self.registry.table(after)

    async def place(self, key: str) -> None:
        """See Directory."""
        await self.registry.place(key)

    async def about(self, shard: str) -> dict[str, Any]:
        """See Directory."""
        return registry_status.about(self.registry, shard)

    async def glance(self, host: str) -> Glance:
        """See Transport; all hosts share this loop, which turns as this is called."""
        return self.hosts[host].watchdog.glance() if host in self.hosts else Glance()

    async def exchange(self, host: str, data: bytes) -> bytes:
        """See Transport."""
        return await self._named(host).exchange(data)

    async def hand_over(self, host: str, data: bytes) -> None:
        """Give a host what another one knows of shards that move to it."""
        self._named(host).take(data)

    def _named(self, name: str) -> Host:
        found = self.hosts.get(name)
        if found is None:
            msg = f"{name} is gone."
            raise HostGone(msg)
        return found

    async def own(self, host: HostRow, shards: dict[str, int]) -> None:
        """See Hosts."""
        await self._host(host).own(host.incarnation, shards)

    async def suspect(self, host: str) -> None:
        """See Directory."""
        await self.registry.suspect(host)

    async def leave(self) -> None:
        """See Directory: nobody here waits for a table."""

    async def release(self, host: HostRow, targets: Mapping[str, str]) -> None:
        """See Hosts."""
        await self._host(host).release(targets)

    async def replace(self, host: HostRow) -> None:
        """See Hosts."""
        await self.add_host(host.name, node=host.node, group=host.group)

    async def dedicate(self, key: str) -> None:
        """See Hosts."""
        running = self._dedicating.get(key)
        if running is None and not any(host.row.dedicated == key for host in self.hosts.values()):
            running = self._dedicating[key] = asyncio.create_task(self._dedicate(key))
        if running is not None:
            await running

    async def _dedicate(self, key: str) -> None:
        try:
            await self.add_host(f"entity/{key}", key)
        finally:
            del self._dedicating[key]

    async def kill(self, host: HostRow) -> bool:
        """See Hosts. A host of another process is not ended by this one."""
        running = self.hosts.pop(host.name, None)
        if running is not None:
            running.abandon()
        return not _may_run(host)

    async def end(self, host: HostRow) -> None:
        """See Hosts."""
        await self.kill(host)

    def dedicated_slot(self, key: str) -> str:
        """See Hosts."""
        return f"entity/{key}"

    async def ended(self, host: HostRow) -> bool:
        """See Hosts."""
        return host.name not in self.hosts and not _may_run(host)

    async def answers(self, host: HostRow) -> bool:
        """See Hosts."""
        return host.name in self.hosts

    async def retire(self, host: HostRow) -> None:
        """See Hosts."""
        running = self.hosts.pop(host.name, None)
        if running is not None:
            await running.close()
            await running.client.close()
        if host.dedicated:
            await self.dedicate(host.dedicated)

    def near(self, host: HostRow) -> bool:
        """See Hosts. All are in this process."""
        del host
        return True

    async def last_words(self, host: HostRow) -> LastWords | None:
        """See Hosts. All hosts share this process: none of them goes down by itself."""
        del host
        return None

    async def read_quarantine(self, host: HostRow) -> None:
        """See Hosts."""
        await self._host(host).read_quarantine()

    async def missing(self, group: str) -> list[str]:
        """See OrderedHosts."""
        standing = {row.name for row in self.registry.current.hosts.values()}
        return [name for name in self._wanted.get(group, []) if name not in standing]

    async def start_missing(self) -> None:
        """See OrderedHosts."""
        groups = [group for group in self._wanted if self.registry.startup.may_start(group)]
        await asyncio.gather(*map(self._start_group, groups))

    async def _start_group(self, group: str) -> None:
        levels = self.registry.levels
        busy = self.registry.joining | levels.replacing | levels.stopped.keys()
        names = [name for name in await self.missing(group) if name not in busy]
        with ExitStack() as joining:
            for name in names:
                joining.enter_context(self.registry.starting(name))
            starting = [asyncio.create_task(self._new_host(name, group=group)) for name in names]
            async for rows in as_they_start(starting, TOGETHER_S):
                await self.registry.joined(rows)

    async def open_types(self, host: HostRow, progress: Progress) -> dict[str, str]:
        """See OrderedHosts."""
        return self._host(host).gate.follow(progress)

    async def close_types(self, host: HostRow, types: Sequence[str]) -> None:
        """See OrderedHosts."""
        await self._host(host).gate.close(types)

    async def close_host(self, host: HostRow) -> None:
        """See OrderedHosts."""
        running = self._host(host)
        del self.hosts[host.name]
        await running.close()
        await running.client.close()

    async def live(self) -> dict[str, int]:
        """See Hosts."""
        counted = [await host.live() for host in list(self.hosts.values())]
        return {shard: count for host in counted for shard, count in host.items()}

    async def loads(self) -> dict[str, int]:
        """See Hosts."""
        return {shard: count for host in self.hosts.values() for shard, count in host.loads().items()}

    def _host(self, row: HostRow) -> Host:
        found = self.hosts.get(row.name)
        if found is None:
            msg = f"{row.name} is gone."
            raise NotOwner(msg)
        return found


def _may_run(row: HostRow) -> bool:
    """Return whether a host may still run in another process: its exit is not proven."""
    if row.machine != machine_identity():
        return True
    return row.pid != os.getpid() and started_s(row.pid) == row.started


@asynccontextmanager
async def local(
    app: App, *, hosts: int = 2, store: str | Store = "memory://", clock: Clock | None = None
) -> AsyncIterator[Client]:
    """Run an app in this process and give a client to it.

    Args:
        app: The app.
        hosts: How many hosts, at least 1.
        store: A store URL (``memory://``, ``sqlite:///bank.db``, ``postgresql://…``) or a store.
        clock: Time; the machine's by default.

    Raises:
        StoreMismatch: The store cannot be opened, belongs to another app, or holds what this one cannot read.
    """
    if hosts < 1:
        msg = f"local(hosts={hosts}): an app needs at least one host."
        raise ValueError(msg)
    platform = LocalPlatform(app, open_store(store) if isinstance(store, str) else store, clock or SystemClock())
    try:
        await platform.start(hosts)
        client = await platform.client().start()
        yield client
    finally:
        await platform.close()
