"""The Ray actor around the sharding registry. An app has two: one leads, the other stands by on another node."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

import msgspec
import ray
from ray.exceptions import RayActorError, RayError

from remora.app import App, AppSource
from remora.clock import SystemClock
from remora.cluster.metrics import Publisher
from remora.cluster.names import NAMESPACE, registry_name, registry_names
from remora.cluster.ray_hosts import RayHosts
from remora.cluster.ray_nodes import NODE_LABEL
from remora.cluster.ray_supervisors import RaySupervisors
from remora.cluster.transport import Handle, end_actor, find_actor
from remora.errors import HostGone, NotLeader, RemoraError, StartError, StoreMismatch
from remora.journal import Store
from remora.runtime import registry_status
from remora.runtime.admission import admit
from remora.runtime.measures import OF_REGISTRY
from remora.runtime.registry import POLL_S, Registry
from remora.runtime.startup import stop_in_order
from remora.runtime.upkeep import Upkeep
from remora.sharding.table import HostRow, encode_table
from remora.storage.open import open_store
from remora.supervision.levels import REGISTRY_DIED, REGISTRY_RULES
from remora.supervision.restarts import restarts_at_once

AGAIN_S = 0.5
"""Pause before a standby is started again, or a registry that failed to lead tries again, in seconds."""
STANDBY_LOOK_S = 5.0
"""Seconds between looks for another node while both registries are on one."""
ASK_S = 5.0
"""Longest wait for the other registry to say whether it leads, in seconds."""


def registry_options(name: str, node: str = "") -> dict[str, Any]:
    """Return the options of a registry's actor.

    Args:
        name: Which of the two.
        node: Where it should be, if there is room.
    """
    options: dict[str, Any] = {
        "name": name, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True,
        "max_restarts": restarts_at_once(REGISTRY_RULES, REGISTRY_DIED, {}, 0.0), "max_task_retries": 0, "num_cpus": 0, "max_concurrency": 10_000, "enable_task_events": False,
    }  # fmt: skip
    if node:
        # Not by node affinity, which Ray 2.60 ignores for actors that claim no CPU.
        options["label_selector"] = {NODE_LABEL: node}
        options["fallback_strategy"] = [{"label_selector": {}}]
    return options


async def _others(here: str, registry: Registry) -> list[str]:
    """Return the other nodes that may have a registry."""
    nodes = await asyncio.to_thread(ray.nodes)
    return sorted({one["NodeID"] for one in nodes if one["Alive"]} - {here} - registry.detection.doubted)


async def room_elsewhere(here: str, registry: Registry, tried: set[str], standing: asyncio.Future[Any]) -> str:
    """Wait until the standby, which is on this node, may be on another; return that.

    Args:
        here: This node.
        registry: The registry that leads.
        tried: Nodes that were aimed at before.
        standing: Its standing by, which ends with its process.

    Raises:
        RayError: Its process has ended.
    """
    while not (untried := [node for node in await _others(here, registry) if node not in tried]):
        await asyncio.wait({standing}, timeout=STANDBY_LOOK_S)
        if standing.done():
            standing.result()
    return untried[0]


class RegistryActor:
    """One registry process. Ray restarts it; what it has to know it reads back from the store.

    Args:
        source: Where its processes get the app from.
        store: Store URL.
        hosts: How many shared hosts; 0: one per CPU of each node, following the nodes.
        name: Name of this actor.
    """

    def __init__(self, source: AppSource, store: str, hosts: int, name: str = "") -> None:
        self._source = source
        self._store_url = store
        self._hosts_wanted = hosts
        self._name = name
        self._app: App
        self._store: Store | None = None
        self._registry: Registry | None = None
        """Set while this one leads."""
        self._hosts: RayHosts
        self._leads = asyncio.Event()
        self._deposed = asyncio.Event()
        self._starts = 0
        """Calls of ``start`` that have not ended."""
        self._starting = asyncio.Lock()
        """Held by whoever begins to lead."""
        self._opening = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._upkeep: list[Upkeep] = []
        """Of the app's supervisors, while this one leads."""
        self._publisher: Publisher[Registry] | None = None
        self._log = logging.getLogger("remora.registry")

    # -- who leads ----------------------------------------------------------------------------------

    async def start(self, store: str = "", anew: bool = True) -> None:  # noqa: FBT001, FBT002 - travels by place in an actor call
        """Lead, unless the other registry does; returns when every shard has an owner, or will have one in the app's order.

        Args:
            store: The store that the caller means; empty if it does not care.
            anew: Whether what the rules have stopped is started again; else an app that is stopped stays so.

        Raises:
            StartError: Something keeps it from starting, or the app runs on another store.
        """
        if store and store != self._store_url:
            msg = f"The app of {self._source.path} runs in this Ray cluster already, on another store: stop it first."
            raise StoreMismatch(msg)
        self._starts += 1
        try:
            await self._open()
            # The other one is asked while this one is free to follow it: it may be lost without anybody knowing yet.
            other = await self._other_leader() if self._registry is None else None
            if other is None or not await self._started_by(other, store, anew=anew):
                async with self._starting:
                    await self._start_here(anew=anew)
        finally:
            self._starts -= 1

    async def _started_by(self, other: Handle, store: str, *, anew: bool) -> bool:
        """Have the registry that leads start the app; return whether it did, and not this one leads by now."""
        self._run()
        leads: asyncio.Future[Any] = asyncio.ensure_future(self._leads.wait())
        asked: asyncio.Future[Any] = asyncio.ensure_future(other.start.remote(store, anew))
        try:
            await asyncio.wait([leads, asked], return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                asked.result()
        except RayActorError as error:
            self._log.info("the registry that led is lost: %s", type(error).__name__)
            return False
        else:
            return asked.done()
        finally:
            leads.cancel()
            asked.cancel()

    async def _start_here(self, *, anew: bool) -> None:
        """Lead, unless this one does."""
        if anew and self._registry is not None and self._registry.levels.halted:
            await self._end_leading()  # somebody starts anew what the rules have stopped
        if self._registry is not None:
            if self._registry.startup.stopping and not self._registry.levels.halted:
                msg = f"{self._registry.app.name} is being stopped: let `remora down` come to its end, then start it."
                raise StartError(msg)
            if not (self._app.order.declared or self._registry.current.hosts):
                await self._hosts.start_missing()  # it leads since a client asked it: nobody has seen to its hosts
            return
        if self._running is not None:  # begun by a client that asked before this
            self._running.cancel()
            await asyncio.wait([self._running])
        try:
            await self._lead(self._candidate(), 0, anew=anew)
        except BaseException:
            await self._step_down()
            raise
        self._run()

    async def stand_by(self) -> None:
        """Lead when nobody else does. Never returns: the call fails when this process ends."""
        await self._open()
        self._run()
        await asyncio.Event().wait()

    async def node(self) -> str:
        """Return the id of the node it is on."""
        return str(ray.get_runtime_context().get_node_id())

    async def leads(self) -> bool:
        """Return whether this registry leads."""
        return self._registry is not None

    async def _open(self) -> None:
        async with self._opening:
            if self._store is None:
                self._store = await self._open_store()

    async def _open_store(self) -> Store:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        self._app = self._source.load()
        self._name = self._name or registry_name(self._app.name)
        store = open_store(self._store_url)
        if store.url.startswith("memory:"):
            msg = "memory:// holds state in one process, and hosts are several: use sqlite:///PATH, or remora.local without Ray."
            raise StoreMismatch(msg)
        await store.open(self._app.name, self._app.settings.shards)
        await admit(self._app, store)
        return store

    async def _end_leading(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._step_down()

    async def _other_leader(self) -> Handle | None:
        """Return the other registry if that leads."""
        for name in registry_names(self._app.name):
            if name != self._name:
                try:
                    other = await find_actor(name)
                    async with asyncio.timeout(ASK_S):
                        return other if await other.leads.remote() else None
                except (HostGone, RayError, TimeoutError):
                    return None
        return None

    def _run(self) -> None:
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._take_turns())

    async def _take_turns(self) -> None:
        """Stand by, lead, stand by again when another one leads: for ever."""
        while True:
            failed = False
            try:
                if self._registry is None:
                    registry = self._candidate()
                    term = await registry.stand_by()
                    async with self._starting:  # who wants to start the app meanwhile waits for how this ends
                        await self._lead(registry, term, anew=False)
                await self._deposed.wait()
            except (RemoraError, RayError) as error:
                self._log.warning("%s does not lead: %s", self._name, error)
                failed = True
            await self._step_down()
            self._log.info("%s stands by", self._name)
            if failed:
                await asyncio.sleep(AGAIN_S)

    def _candidate(self) -> Registry:
        store = self._opened()
        # A path as this process resolved it; any other as it was given, since what a store shows has no password.
        url = store.url if store.url.startswith("sqlite:") else self._store_url
        self._hosts = RayHosts(self._app, self._source, url, self._hosts_wanted)
        self._deposed = asyncio.Event()
        registry = Registry(
            self._app, store, self._hosts, SystemClock(), name=self._name, on_deposed=self._deposed.set, seed=os.getpid()
        )  # fmt: skip
        self._hosts.registry = registry
        return registry

    def _opened(self) -> Store:
        if self._store is None:
            msg = "the store is not open"
            raise RuntimeError(msg)
        return self._store

    async def _lead(self, registry: Registry, term: int, *, anew: bool) -> None:
        hosts = self._hosts
        self._registry = registry
        rows = list((await registry.start(term, anew=anew)).hosts.values())
        self._log.info("%s leads in term %d", self._name, registry.term)
        self._upkeep = [
            Upkeep(self._app, cls.name, RaySupervisors(self._app, self._source, hosts.store), SystemClock(), seed=os.getpid())
            for cls in dict.fromkeys(self._app.supervisors.values())
        ]  # fmt: skip
        # Whoever starts the app needs Ray anyway, and what was open in a former run is not open now.
        lost = None if term else await self._look(registry, rows)
        # Clients of this process must find it answering while hosts start, hosts being clients too. One that follows another
        # answers while it asks Ray which hosts there are: Ray's own head may be what failed.
        self._leads.set()
        self._publisher = Publisher(OF_REGISTRY, registry, {"app": self._app.name})
        self._publisher.start()
        if lost is None:
            lost = await self._look(registry, rows)
        await hosts.attach([row for row in rows if row not in lost])
        for row in lost:
            await registry.detection.died(row.incarnation, "its actor is not found", proven=False)
        if registry.levels.halted:
            registry.spawn(registry.levels.end_all())
        elif not term:  # somebody waits to hear whether it started; else what is missing is started while it leads
            if not registry.startup.order.declared:  # else they are started in their order, beside this
                await hosts.fill_all()
            for key in registry.unplaced():
                await hosts.dedicate(key)
        for one in self._upkeep:
            registry.spawn(one.run())
        if registry.levels.halted or not registry.startup.stopping:  # one that rules have stopped still tells why
            beside = [self._follow_nodes(), self._keep_standby()]
            self._beside = [asyncio.get_running_loop().create_task(work) for work in beside]

    async def _look(self, registry: Registry, rows: Sequence[HostRow]) -> list[HostRow]:
        """Begin the app's order, from its beginning if no host stands; return the hosts that are lost."""
        lost = await self._hosts.look(rows)
        await registry.startup.begin(fresh=len(lost) == len(rows))
        return lost

    async def _step_down(self) -> None:
        """Forget what was begun: another one leads, or the next try begins anew and finds what stands."""
        registry, self._registry = self._registry, None
        self._leads.clear()
        if self._publisher is not None:
            self._publisher.stop()
            self._publisher = None
        for task in self._beside:
            task.cancel()
        self._beside, self._upkeep = [], []
        if registry is not None:
            self._hosts.step_down()
            await registry.close()

    async def _follow_nodes(self) -> None:
        while True:
            await asyncio.sleep(self._app.settings.node_look_s)
            try:
                await self._hosts.follow()
            except (RemoraError, RayError) as error:
                self._log.warning("hosts do not follow the nodes: %s", error)

    async def _keep_standby(self) -> None:
        """See to it that the other registry runs, on another node if there is one."""
        here = ray.get_runtime_context().get_node_id()
        (name,) = (one for one in registry_names(self._app.name) if one != self._name)
        where, tried = "", set[str]()
        while (registry := self._registry) is not None:
            try:
                if where in registry.detection.doubted:
                    # Ray restarts it once it has found that its node is gone, which takes up to a minute: not waited for.
                    await end_actor(name)
                others = await _others(here, registry)
                where = next(iter([node for node in others if node not in tried] or others), "")
                actor = ray.remote(RegistryActor).options(**registry_options(name, where))
                other: Handle = actor.remote(self._source, self._store_url, self._hosts_wanted, name)
                where = await other.node.remote()
                standing = asyncio.ensure_future(other.stand_by.remote())
                if where != here:
                    await standing
                # One that led before, or that Ray restarted where it liked: one node's end must not be both of theirs.
                tried.add(await room_elsewhere(here, registry, tried, standing))
                standing.cancel()
                self._log.info("%s stands by on this node: it is started again on another", name)
                await end_actor(name)
            except RayError as error:
                self._log.info("the standby registry is started again: %s", type(error).__name__)
            await asyncio.sleep(AGAIN_S)

    async def _leading(self, within_s: float = 0.0) -> Registry:
        """Return the registry if this one leads, or does within that time.

        Raises:
            NotLeader: It does not.
        """
        if self._registry is None or not self._leads.is_set():
            if not self._starts:  # what is being started leads by itself, and must not be raced
                await self._open()
                self._run()
            try:
                async with asyncio.timeout(within_s):
                    await self._leads.wait()
            except TimeoutError:
                pass  # told below
        if self._registry is None or not self._leads.is_set():
            msg = f"{self._name} stands by: ask the other registry of {self._app.name}."
            raise NotLeader(msg)
        return self._registry

    # -- what clients and hosts ask -------------------------------------------------------------------

    async def table(self, after: int) -> bytes:
        """Return the shard table once it is newer than ``after``; one that stands by waits to lead."""
        registry = await self._leading(within_s=POLL_S)
        return encode_table(await registry.table(after))

    async def place(self, key: str) -> None:
        """Place a dedicated entity."""
        await (await self._leading()).place(key)

    async def suspect(self, host: str) -> None:
        """Take note that a client got no answer from a host."""
        await (await self._leading()).suspect(host)

    async def escalated(self, failure: bytes) -> None:
        """Decide about a failure that a shard's rules left to the level above."""
        await (await self._leading()).levels.escalated(failure)

    async def about(self, shard: str) -> dict[str, Any]:
        """Return what is known of a shard and its owner."""
        return registry_status.about(await self._leading(), shard)

    async def refresh(self) -> None:
        """Read the table again after a host took a new incarnation."""
        await (await self._leading()).refresh()

    async def waiting(self) -> list[dict[str, Any]]:
        """Return what is waited for before all is ready: ``what``, ``waits_for``, ``for_s``."""
        return (await self._leading()).startup.shown()

    async def ready(self) -> None:
        """Wait until all is ready that the app has declared to be waited for; see ``Startup.ready``."""
        await (await self._leading(within_s=POLL_S)).startup.ready()

    async def stops_within_s(self) -> float:
        """Return how long a stop in order may take; 0 if the app declares none: what was acknowledged is written anyway."""
        registry = await self._leading()
        return registry.settings.stop_s if registry.startup.order.declared else 0.0

    async def stop(self) -> list[str]:
        """Start no other registry and no host any more; close types and hosts in order, if the app declares one.

        Returns:
            What could not be closed. No process ends by this.
        """
        registry = await self._leading()
        registry.startup.stopping = True
        for task in self._beside:
            task.cancel()
        return await stop_in_order(registry) if registry.startup.order.declared else []

    # -- what operators ask -----------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Return the table's summary and every host's counters."""
        registry = await self._leading()
        supervisors = [one.told() for one in self._upkeep]
        return {
            **await registry_status.status(registry), "live": await self._hosts.statuses(), "supervisors": supervisors
        }  # fmt: skip

    async def shards(self) -> list[dict[str, Any]]:
        """Return every shard with its owner and state."""
        return await registry_status.shards(await self._leading())

    async def failures(self, limit: int, of: str) -> list[dict[str, Any]]:
        """Return what failed, the latest first."""
        return await registry_status.failures(await self._leading(), limit, of)

    async def quarantine(self) -> list[dict[str, Any]]:
        """Return what is held back or apart."""
        return registry_status.quarantine(await self._leading())

    async def release_from_quarantine(self, entity: str, command: str) -> dict[str, Any]:
        """Let something run again."""
        return msgspec.structs.asdict(await (await self._leading()).inquest.release(entity, command))

    async def drain(self, node: str) -> dict[str, Any]:
        """Empty a node's hosts, or one host, and let them go."""
        return await (await self._leading()).drain(node)

    async def undrain(self, node: str) -> dict[str, Any]:
        """Let a drained node have hosts again."""
        return await (await self._leading()).undrain(node)

    async def rebalance(self, dry_run: bool) -> list[dict[str, Any]]:  # noqa: FBT001 - travels by place in an actor call
        """Return what the next round moves, and begin it now unless it is only asked for."""
        registry = await self._leading()
        moves = registry.rebalance.explain()
        if not dry_run:
            registry.rebalance.wake()
        return moves

    async def locate(self, locations: dict[str, str]) -> None:
        """Say where shards are wanted, for the allocation ``External``."""
        await (await self._leading()).locate(locations)
