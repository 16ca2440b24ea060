"""How the registry runs hosts on Ray: named detached actors that Ray does not restart."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from remora.app import App, AppSource
from remora.cluster.host_actor import BESIDE, BESIDE_CALLS_MAX, HostActor
from remora.cluster.host_calls import ASK_S, SHOWN_S, TELL_S, HostCalls, merged
from remora.cluster.names import NAMESPACE, app_prefix, entity_name, host_name, host_prefix, slot_of
from remora.cluster.ray_nodes import HOST_LABEL, NODE_LABEL, Node, choose, crowded, read_nodes, slots_of_nodes, usable
from remora.cluster.transport import Handle, actors, end_actor, find_actor, first_line, ours
from remora.errors import HostGone, NotLeader, RemoraError, StartError
from remora.options import HostGroup
from remora.process import machine_identity, started_s
from remora.runtime.blackbox import LastWords, last_words
from remora.runtime.quarantine import HEARD_S
from remora.runtime.readiness import Progress
from remora.runtime.registry import Registry
from remora.runtime.startup import TOGETHER_S, as_they_start
from remora.sharding.table import HostRow

START_S = 120.0
"""Longest wait for a host process to start, in seconds: image pulls and cold nodes included."""
START_ON_NODE_S = 30.0
"""The same where a node with room was chosen: one that does not start by then is tried elsewhere, since its node may be
gone without Ray knowing yet."""
DEDICATED_STARTS_MAX = 4
"""Dedicated entities that are started on one node at once: a start takes a second of CPU, and of fifty together none would
be done within its time."""
TAKEN_OVER_S = 1.5
"""Seconds that survivors have to themselves before a host that died is started anew: a process takes most of a second of
CPU to start, in which they bring back what they took over. Measured: docs/decisions/0014-what-a-failover-does-first.md."""
WORDS_AFTER_S = 0.5
"""The same before a process is started to read what a host left on a machine of which none of ours is reached: what a
failover takes. Nobody waits for it, since it takes a second."""
NEIGHBOURS_ASKED = 2
"""Hosts of a machine that are asked what took down another one there, one after the other, while its shards wait."""
WATCH_AGAIN_S = 0.2
"""Pause before a host is watched again after the watch broke and its death is not known, in seconds."""
ENDED_S = 5.0
"""Longest wait until Ray has seen the end of an actor that was ended, in seconds."""
WORKER_DIED = "worker process has died"
"""What Ray says of an actor whose raylet, which lives, reported the exit of its process; of a node that it lost it
says something else. Were this wording to change, deaths would be taken for unproven and leases waited for."""

_remote: Any = ray.remote  # its types know nothing of concurrency groups
# Made once: when one is first used Ray takes its code apart, which keeps the registry's loop for tens of milliseconds.
_HOST: Any = _remote(concurrency_groups={BESIDE: BESIDE_CALLS_MAX})(HostActor)
_LAST_WORDS: Any = _remote(last_words)


class RayHosts:
    """Runs hosts as Ray named detached actors.

    Args:
        app: The app.
        source: Where hosts get it from.
        store: Store URL as hosts get it.
        count: How many hosts of the default group; 0: as many as the nodes have CPUs, following the nodes.
    """

    def __init__(self, app: App, source: AppSource, store: str, count: int) -> None:
        self._app = app
        self._source = source
        self.store = store
        self._count = count
        self._calls = HostCalls()
        self._leads = True
        """Whether this registry does, until it steps down."""
        self._watches: set[asyncio.Task[None]] = set()
        self._dedicating: dict[str, asyncio.Task[None]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._dedicated_starts: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(DEDICATED_STARTS_MAX)
        )
        """Node → who may start a dedicated entity on it now."""
        self._lives = itertools.count(1)
        self._homes: dict[str, str] = {}
        """Slot, as ``HostRow.slot``, → node on which its host was last seen to run, or was to be started."""
        self._starting: list[str] = []
        """Nodes on which hosts are being started."""
        self._missing: set[str] = set()
        """Slots that are being filled because a look found them empty."""
        self._log = logging.getLogger("remora.registry")
        self.registry: Registry

    # -- taking over what runs ----------------------------------------------------------------------

    async def look(self, rows: Sequence[HostRow]) -> list[HostRow]:
        """Return those hosts of an earlier registry process that have no actor any more.

        Hosts that it began to start and never entered in the table are ended.
        """
        self._homes |= {row.slot: row.node for row in rows}
        there = await actors(app_prefix(self._app.name))
        for name in there - {row.name for row in rows}:
            if name.startswith(host_prefix(self._app.name)) and not self._is_mine(name):
                await end_actor(name)
        return [row for row in rows if row.name not in there]

    async def attach(self, rows: Sequence[HostRow]) -> None:
        """Find hosts of an earlier registry process again, and watch them.

        One that does not answer yet is not ended for that: it is suspected and asked again beside this, until it answers
        or is given up as any other, because its lease is over or nobody has reached it for ``unreachable_s``.
        """
        looking = [self.registry.spawn(self._find_again(row.name)) for row in rows]
        if looking:
            await asyncio.wait(looking, timeout=ASK_S)

    async def _find_again(self, name: str) -> None:
        detection, handle = self.registry.detection, None
        while (row := self._row(name)) is not None:
            try:
                async with asyncio.timeout(TELL_S):
                    handle = self._calls.handles[name] = await find_actor(name)
                    found: HostRow = await handle.start.remote()
            except (HostGone, ActorUnavailableError, TimeoutError) as error:
                await detection.reported(row.incarnation, f"it does not answer this registry yet ({first_line(error)})")
                await asyncio.sleep(WATCH_AGAIN_S)
                continue
            except RayError as error:
                because = first_line(error)
            else:
                if (found.pid, found.started) == (row.pid, row.started):
                    self._begin_watch(row)
                    return
                because = "Ray has restarted its process"
            await detection.died(row.incarnation, because, proven=False)
            return
        if self._calls.handles.get(name) is handle:  # it was given up meanwhile
            self._calls.handles.pop(name, None)

    def _row(self, name: str) -> HostRow | None:
        return next((row for row in self.registry.current.hosts.values() if row.name == name), None)

    def _is_mine(self, name: str) -> bool:
        """Return whether a shared host was started in this registry's term: see ``_create_shared``."""
        return name.rpartition("/")[2].startswith(f"{self.registry.term}-")

    @staticmethod
    async def _read_nodes() -> list[Node]:
        try:
            return await asyncio.to_thread(read_nodes)
        except RayError as error:
            raise ours(error, "Ray's table of nodes") from error

    # -- how many, and where --------------------------------------------------------------------------

    async def follow(self) -> None:
        """Look at Ray's nodes: empty those that leave, use those that are new, spread hosts over them.

        What is missing is started beside this, which goes on looking: a new host, and whatever was not
        started when it should have been.
        """
        registry = self.registry
        if registry.levels.halted:
            return
        nodes = await self._read_nodes()
        await registry.leave(node.id for node in nodes if node.draining)
        table = registry.current
        hosts = [row for row in table.hosts.values() if not row.dedicated]
        busy = registry.joining | self._shared(registry.levels.replacing)
        standing = {slot_of(row.name) for row in hosts}
        missing = self._slots_wanted(nodes) - standing - busy - self._shared(registry.levels.stopped) - self._missing
        if missing:
            registry.spawn(self._start_missing(missing))
        for key in registry.unplaced():
            if (
                key not in self._dedicating
                and entity_name(self._app.name, key) not in registry.levels.replacing | registry.levels.stopped.keys()
            ):
                registry.spawn(self._dedicate_again(key))
        quiet = not (missing or busy or table.draining or registry.rebalance.under_way)
        shared = [row for row in hosts if not row.group]
        host = crowded(self._usable(nodes), shared) if quiet and self._count else None
        if host is not None and not registry.levels.failing(host.slot):  # which is where it is on purpose
            self._log.info("host %s makes room: another node has fewer", host.name)
            await registry.set_draining([host.incarnation])

    async def _start_missing(self, slots: set[str]) -> None:
        self._missing |= slots
        try:
            await self.fill(slots)
        except RemoraError as error:  # the next look tries again, and `remora status` says why
            self._log.warning("hosts %s were not started: %s", sorted(slots), error)
        finally:
            self._missing -= slots

    async def _dedicate_again(self, key: str) -> None:
        try:
            await self.dedicate(key)
        except RemoraError as error:  # as above
            self._log.warning("the actor of %s was not started: %s", key, error)

    def _shared(self, slots: Iterable[str]) -> set[str]:
        """Return the short names of those that are of shared hosts."""
        return {slot_of(f"{slot}/") for slot in slots if slot.startswith(host_prefix(self._app.name))}

    def _usable(self, nodes: Sequence[Node]) -> list[Node]:
        return usable(nodes, self.registry.drained, self.registry.detection.doubted)

    def _slots_wanted(self, nodes: Sequence[Node]) -> set[str]:
        """Return the slots of all shared hosts that there are to be, now that those before them are ready."""
        may_start = self.registry.startup.may_start
        return {slot for slot in self._slots(nodes) if may_start(self._group(slot))}

    def _group(self, slot: str) -> str:
        return next((group for group in self._app.host_groups if slot.rpartition("-")[0] == group), "")

    def _slots(self, nodes: Sequence[Node]) -> set[str]:
        if self._count == 0:
            slots = set(slots_of_nodes(self._usable(nodes)))
        else:
            slots = {str(number) for number in range(1, self._count + 1)}
        groups = self._app.host_groups.items()
        return slots | {f"{name}-{number}" for name, group in groups for number in range(1, group.hosts + 1)}

    async def fill_all(self) -> None:
        """Start all hosts that there are to be and that do not run."""
        await self.fill(self._slots_wanted(await self._read_nodes()))

    async def fill(self, slots: Iterable[str]) -> None:
        """Start shared hosts in those slots that have none; those of a group share evenly, and wait for no other group's."""
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for slot in slots:
            groups[self._group(slot)].append(slot)
        filled = await asyncio.gather(*map(self._fill_group, groups.values()), return_exceptions=True)
        for failed in filled:
            if failed is not None:
                raise failed

    async def _fill_group(self, slots: Iterable[str]) -> None:
        held: set[str] = set()
        try:
            for slot in sorted(slots):
                await self._locks[slot].acquire()
                held.add(slot)
            taken = {slot_of(row.name) for row in self.registry.current.hosts.values() if not row.dedicated}
            starting = [asyncio.create_task(self._create_shared(slot)) for slot in sorted(held - taken)]
            async for rows in as_they_start(starting, TOGETHER_S if self._app.order.declared else None):
                await self.registry.joined(rows)
                for row in rows:  # whoever replaces it later does not wait for those that are not up yet
                    self._locks[slot_of(row.name)].release()
                    held.discard(slot_of(row.name))
        finally:
            for slot in held:
                self._locks[slot].release()

    async def _create_shared(self, slot: str) -> HostRow:
        """Start a shared host in a slot."""
        name = host_name(self._app.name, slot, f"{self.registry.term}-{next(self._lives)}")  # see _is_mine
        group = self._group(slot)
        wanted = self._app.host_groups.get(group, HostGroup())
        options: dict[str, Any] = {"max_restarts": 0, **_as_options(wanted.resources)}
        selector = dict(wanted.labels)
        nodes = self._usable(await self._read_nodes())
        if not selector and any(HOST_LABEL in node.labels for node in nodes):
            selector[HOST_LABEL] = "true"
        node = ("" if self._count else slots_of_nodes(nodes).get(slot, "")) or (
            "" if selector and group else self._choose(host_prefix(self._app.name) + slot, nodes, wanted)
        )
        with self.registry.starting(slot), ExitStack() as starting:
            if node:
                options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
                self._starting.append(node)
                starting.callback(self._starting.remove, node)
            else:
                options["scheduling_strategy"] = "SPREAD"
                if selector:
                    options["label_selector"] = selector
            return await self._create(name, "", options, group, node, slot=slot)

    def _choose(self, slot: str, nodes: Sequence[Node], wanted: HostGroup) -> str:
        homes = [row.node for row in self.registry.current.hosts.values() if not row.dedicated]
        return choose(nodes, homes, wanted.resources, self._starting, avoid=self._avoid(slot))

    def _avoid(self, slot: str) -> str:
        """Return the node on which a host failed last, if it has failed again and again; else nothing."""
        return self._homes.get(slot, "") if self.registry.levels.failing(slot) else ""

    async def _create(
        self, name: str, dedicated: str, options: dict[str, Any], group: str = "", node: str = "", *,
        slot: str = "", turn: AsyncExitStack | None = None,
    ) -> HostRow:  # fmt: skip
        actor = _HOST.options(
            name=name, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, max_task_retries=0,
            max_concurrency=10_000, enable_task_events=False, **options,
        )  # fmt: skip
        handle: Handle = actor.remote(self._source, self.store, name, dedicated, group, options.get("num_cpus", 1.0))
        within_s = START_ON_NODE_S if node else START_S
        if node:
            self._homes[name if dedicated else host_prefix(self._app.name) + slot] = node
        try:
            if self._app.order.declared:
                async with asyncio.timeout(within_s):
                    waits_for = await handle.prepare.remote("")
                await self._prepared(handle, slot or name, waits_for, turn)
            async with asyncio.timeout(within_s):
                row: HostRow = await handle.start.remote()
        except StartError:
            ray.kill(handle, no_restart=True)
            raise
        except (RayError, TimeoutError) as error:
            if node and isinstance(error, TimeoutError):
                self.registry.detection.doubt(node)
            ray.kill(handle, no_restart=True)
            raise ours(error, name) from error
        self._calls.handles[name] = handle
        self._homes[row.slot] = row.node
        self._begin_watch(row)
        return row

    async def _prepared(self, handle: Handle, slot: str, waits_for: str, turn: AsyncExitStack | None) -> None:
        """Wait, for as long as it takes, until a host whose process runs may join."""
        startup = self.registry.startup
        if turn is not None and waits_for:
            await turn.aclose()  # its process runs: others need not wait for what it waits for
        try:
            while waits_for:
                startup.held_up(slot, waits_for)
                async with asyncio.timeout(START_S):
                    waits_for = await handle.prepare.remote(waits_for)
        except TimeoutError:
            msg = (
                f"Host {slot} has not answered for {START_S:g} s while it waited for {waits_for}: a check that blocks "
                "must be a plain function, which runs in a thread."
            )
            raise StartError(msg) from None
        finally:
            startup.held_up(slot, "")

    # -- noticing deaths ------------------------------------------------------------------------------

    def step_down(self) -> None:
        """Take no more notice of hosts' deaths, and start none: another one leads."""
        self._leads = False
        for task in (*self._watches, *self._dedicating.values()):
            task.cancel()

    def _begin_watch(self, row: HostRow) -> None:
        task = asyncio.get_running_loop().create_task(self._watch(row))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _watch(self, row: HostRow) -> None:
        """Wait for the host's death, which Ray reports within milliseconds when it does not restart it."""
        detection = self.registry.detection
        while (handle := self._calls.handles.get(row.name)) is not None:
            try:
                await handle.watch.remote()
            except ActorDiedError as error:
                text = str(error)
                proven = WORKER_DIED in text and await asyncio.to_thread(_stands, row.node)
                await detection.died(
                    row.incarnation, "its process ended" if proven else first_line(error), proven=proven
                )
                return
            except RayActorError as error:
                because = f"Ray does not reach it ({first_line(error)})"
                await detection.reported(row.incarnation, because, doubt=True)
            if row.incarnation not in self.registry.current.hosts:
                return
            await asyncio.sleep(WATCH_AGAIN_S)

    # -- as Hosts of the registry --------------------------------------------------------------------

    async def own(self, host: HostRow, shards: dict[str, int]) -> None:
        """See Hosts."""
        await self._calls.tell(host, "own", host.incarnation, shards)

    async def release(self, host: HostRow, targets: Mapping[str, str]) -> None:
        """See Hosts."""
        await self._calls.tell(host, "release", dict(targets))

    async def missing(self, group: str) -> list[str]:
        """See OrderedHosts."""
        slots = {slot for slot in self._slots(await self._read_nodes()) if self._group(slot) == group}
        rows = self.registry.current.hosts.values()
        standing = {slot_of(row.name) for row in rows if not row.dedicated and row.group == group}
        refused = self.registry.refused.keys()
        unable = {*refused, *self._shared(refused)} if standing else set()
        return sorted(slots - standing - unable)

    async def start_missing(self) -> None:
        """See OrderedHosts."""
        levels = self.registry.levels
        busy = {*self.registry.joining, *self._shared(levels.replacing), *self._shared(levels.stopped)}
        await self.fill(self._slots_wanted(await self._read_nodes()) - busy)

    async def open_types(self, host: HostRow, progress: Progress) -> dict[str, str]:
        """See OrderedHosts."""
        left: dict[str, str] = await self._calls.tell(host, "open_types", progress)
        return left

    async def close_types(self, host: HostRow, types: Sequence[str]) -> None:
        """See OrderedHosts."""
        await self._calls.tell(host, "close_types", list(types), within_s=self._app.settings.hand_off_s + TELL_S)

    async def close_host(self, host: HostRow) -> None:
        """See OrderedHosts."""
        await self._calls.tell(host, "close")

    async def replace(self, host: HostRow) -> None:
        """See Hosts."""
        if any(row.group == host.group and not row.dedicated for row in self.registry.current.hosts.values()):
            await asyncio.sleep(TAKEN_OVER_S)
        await self._start_anew(host)

    async def _start_anew(self, host: HostRow) -> None:
        slot = slot_of(host.name)
        if slot in self._slots_wanted(await self._read_nodes()):  # its node may have gone with it
            await self.fill([slot])

    async def answers(self, host: HostRow) -> bool:
        """See Hosts."""
        return await self._calls.answers(host)

    async def retire(self, host: HostRow) -> None:
        """See Hosts."""
        self._calls.handles.pop(host.name, None)
        await end_actor(host.name)
        if host.dedicated:
            await self.dedicate(host.dedicated)
        else:
            await self._start_anew(host)

    async def dedicate(self, key: str) -> None:
        """See Hosts."""
        running = self._dedicating.get(key)
        if running is None and self._leads:
            running = self._dedicating[key] = asyncio.create_task(self._dedicate(key))
            running.add_done_callback(lambda _: self._dedicating.pop(key, None))
        if running is not None:
            await asyncio.wait([running])  # not by itself: who waits no longer must not end it for the others
        if running is None or running.cancelled():
            msg = f"Another registry of {self._app.name} leads, which starts {key}."
            raise NotLeader(msg)
        running.result()

    async def _dedicate(self, key: str) -> None:
        name = entity_name(self._app.name, key)
        if self._homes.get(name) in self.registry.detection.doubted:
            # Ray restarts it once it has found that its node is gone, which takes up to a minute: not waited for.
            await end_actor(name)
        resources = self._app.spec(key.partition("/")[0]).options.resources
        options: dict[str, Any] = {
            "max_restarts": self.registry.levels.restarts_at_once(name), **_as_options(resources)
        }  # fmt: skip
        nodes = self._usable(await self._read_nodes())
        homes = [row.node for row in self.registry.current.hosts.values() if row.dedicated]
        node = choose(nodes, homes, resources, avoid=self._avoid(name))
        if nodes:  # where Ray puts it, now and when it restarts it: of nodes that only we avoid it knows nothing
            anywhere = f"in({','.join(one.id for one in nodes)})"
            options["label_selector"] = {NODE_LABEL: node or anywhere}
            options["fallback_strategy"] = [{"label_selector": {NODE_LABEL: anywhere}}, {"label_selector": {}}]
        async with AsyncExitStack() as turn:
            await turn.enter_async_context(self._dedicated_starts[node])
            with self.registry.starting(name):
                row = await self._create(name, key, options, node=node, turn=turn)
        await self.registry.joined([row])

    async def kill(self, host: HostRow) -> bool:
        """See Hosts."""
        here = host.machine == machine_identity() and bool(host.started)
        if here and started_s(host.pid) == host.started:
            os.kill(host.pid, signal.SIGKILL)
        handle = self._calls.handles.pop(host.name, None)
        if handle is not None and not host.dedicated:
            ray.kill(handle, no_restart=True)
        return here

    async def end(self, host: HostRow) -> None:
        """See Hosts."""
        self._calls.handles.pop(host.name, None)
        await end_actor(host.name)
        # Its name is free once Ray has seen its end: until then it would be taken for what is started in its place.
        with suppress(HostGone, TimeoutError):
            async with asyncio.timeout(ENDED_S):
                while await find_actor(host.name):  # noqa: ASYNC110 - of another process, which sets no event of ours
                    await asyncio.sleep(WATCH_AGAIN_S)

    def dedicated_slot(self, key: str) -> str:
        """See Hosts."""
        return entity_name(self._app.name, key)

    async def ended(self, host: HostRow) -> bool:
        """See Hosts."""
        return host.machine == machine_identity() and bool(host.started) and started_s(host.pid) != host.started

    def near(self, host: HostRow) -> bool:
        """See Hosts."""
        return host.machine == machine_identity() or bool(self._neighbours(host))

    def _neighbours(self, host: HostRow) -> list[HostRow]:
        """Return other hosts of the same machine that nobody suspects."""
        watch, rows = self.registry.detection.watch, self.registry.current.hosts.items()
        return [
            row for number, row in rows
            if row.machine == host.machine and row.name != host.name
            and number not in watch.suspicions and number not in watch.held
        ]  # fmt: skip

    async def last_words(self, host: HostRow) -> LastWords | None:
        """See Hosts. Another machine's memory is read by a host there; where none is left a task has to start for that."""
        words: LastWords | None
        if host.machine == machine_identity():
            return await asyncio.to_thread(last_words, host.pid, host.started)
        asked = self._neighbours(host)[:NEIGHBOURS_ASKED]
        for neighbour in asked:
            within_s = HEARD_S / len(asked)
            try:
                words = await self._calls.tell(neighbour, "last_words", host.pid, host.started, within_s=within_s)
            except (RemoraError, AttributeError) as error:  # it is gone too, or of a release that does not know this
                self._log.info("%s was not asked what took down %s: %s", neighbour.name, host.name, error)
            else:
                return words
        await asyncio.sleep(WORDS_AFTER_S)
        there = _LAST_WORDS.options(
            num_cpus=0, max_retries=0, label_selector={NODE_LABEL: host.node}, enable_task_events=False,
        )  # fmt: skip
        reading: Any = there.remote(host.pid, host.started)
        try:
            async with asyncio.timeout(START_ON_NODE_S):
                words = await reading
                return words
        except (RayError, TimeoutError) as error:
            ray.cancel(reading, force=True)
            self._log.info("what took down %s is not known: %s", host.name, first_line(error))
            return None

    async def read_quarantine(self, host: HostRow) -> None:
        """See Hosts."""
        await self._calls.tell(host, "read_quarantine")

    async def live(self) -> dict[str, int]:
        """See Hosts."""
        return merged(await self._ask_all("live", SHOWN_S))

    async def loads(self) -> dict[str, int]:
        """See Hosts."""
        return merged(await self._ask_all("loads", ASK_S))

    async def statuses(self) -> list[dict[str, Any]]:
        """Return the counters of all hosts, or why one did not answer in time."""
        answers = await self._ask_all("status", SHOWN_S)
        return [answer if isinstance(answer, dict) else {"name": name, "error": answer} for name, answer in answers]

    async def _ask_all(self, method: str, within_s: float) -> list[tuple[str, dict[str, Any] | str]]:
        return await self._calls.ask_all(list(self.registry.current.hosts.values()), method, within_s)


def _as_options(resources: Mapping[str, float]) -> dict[str, Any]:
    """Return Ray resources as an actor's options."""
    custom = dict(resources)
    options: dict[str, Any] = {"num_cpus": custom.pop("CPU", 0), "num_gpus": custom.pop("GPU", 0)}
    if "memory" in custom:
        options["memory"] = custom.pop("memory")
    return {**options, "resources": custom}


def _stands(node: str) -> bool:
    """Return whether Ray takes a node for alive."""
    return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())
