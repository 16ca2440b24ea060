"""Failover and drain: 1,000 loaded entities, an open loop of 1,000 commands/s from another process, and a fault.

A figure is the time from the fault until every entity has answered a command that was sent after it. The
worst of the runs counts. The entities are those of the chaos (tests/chaos/app.py), and so is the judge: a
row fails if anything that was acknowledged is lost, doubled, swapped or stale.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from remora.cluster.transport import RayDirectory
from tests.bench.records import Record
from tests.chaos.app import app
from tests.chaos.client import Spec
from tests.chaos.judge import histories, judge
from tests.chaos.run import APP_PATH, ClientProcess, read_journal
from tests.chaos.stage import Stage, stage, stage_on_sqlite, until
from tests.chaos.witness import Log, read_logs
from tests.nodes import LABEL, Node, actor_process

ENTITIES = 1_000
RATE = 1_000.0
RUNS = 5
NODES = 3
HOSTS_ON_SQLITE = 2
WARM_S = 2.0
"""Of load before a fault, in seconds."""
LOOK_S = 0.1
"""Seconds between looks whether another registry leads."""
REGISTRIES = 4
"""Registries that are looked at for one beside a host: two, each of them perhaps just started elsewhere."""
CALM_P99_S = 0.1
"""Before a fault 99 of 100 commands are answered within this time, in seconds."""
CALM_WITHIN_S = 30.0
"""Longest wait for that, in seconds: new processes take a while under load."""
ANSWERED_S = 90.0
"""Longest wait for every entity's answer."""
RESTORED_S = 120.0
"""Longest wait until the platform is again what it was before a fault."""
PEER_S = 120.0
FROZEN_S = 8.0
"""How long a node stays frozen at least: several leases."""
AFTER_S = 3.0
"""Of load after a frozen node was resumed: time enough for its hosts to try to commit."""
RAW = "detached actor, max_restarts=-1"


class Peer:
    """A detached actor that Ray restarts by itself; what it knew is gone then."""

    async def answer(self) -> int:
        """Answer."""
        return os.getpid()


@dataclass
class Loaded:
    """A stage under load."""

    on: Stage
    client: ClientProcess
    runs: int
    say: Callable[[str], None]
    """Told of every run: only the worst of them stands in the results."""

    async def answered_after(self, at_ns: int) -> float:
        """Ask every entity at once; return the seconds from ``at_ns`` until the last has answered."""
        return (await self.client.probe(ANSWERED_S) - at_ns) / 1e9

    def owners(self) -> set[int]:
        """Return the incarnations that own shards."""
        return {row.owner for row in self.on.client.table.shards.values()}

    async def restored(self, *, instead_of: Node | None = None) -> None:
        """Wait until the platform is what it was before the fault, and under load for a while.

        Args:
            instead_of: A node that another one is to replace.
        """
        self.client.pause()  # processes start slowly beside a load that takes all of the machine
        if instead_of is not None:
            if not instead_of.dead:
                await asyncio.to_thread(instead_of.kill)
            await self.on.add_node()
        await until(self.on.balanced, RESTORED_S, "all nodes have their hosts and shards again")
        self.client.go_on()
        await asyncio.sleep(WARM_S)


def start_peer(node: Node) -> Any:  # noqa: ANN401 - Ray's handles have no type
    """Start the peer on a node; it may come back on any."""
    # By label: without CPUs of its own Ray would put it anywhere, whatever node it is given an affinity to.
    there = {"label_selector": {LABEL: node.name}, "fallback_strategy": [{"label_selector": {}}]}
    handle: Any = (
        ray.remote(Peer)
        .options(
            name=f"bench/peer-{time.monotonic_ns()}", namespace="bench", lifetime="detached", max_restarts=-1,
            max_task_retries=0, num_cpus=0, **there,
        )
        .remote()
    )  # fmt: skip
    if actor_process(handle)[1] != node.id:
        msg = f"the peer does not live on {node.name}"
        raise RuntimeError(msg)
    return handle


async def peer_back(handle: Any, at_ns: int) -> float:  # noqa: ANN401 - Ray's handles have no type
    """Return the seconds from ``at_ns`` until the peer answers a call sent after it, and end it."""
    async with asyncio.timeout(PEER_S):
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await handle.answer.remote()
            except (RayError, TimeoutError):
                await asyncio.sleep(0.01)
            else:
                break
    took_s = (time.monotonic_ns() - at_ns) / 1e9
    ray.kill(handle)
    return took_s


class FailoverRows:
    """``failover.*`` and ``drain.p99``.

    Args:
        loaded: What they are measured on.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._on = loaded.on
        self._log = Log(
            loaded.client.log
        )  # read as it grows: read anew it would take a core from what is measured next

    async def host(self, name: str) -> AsyncIterator[Record]:
        """Kill one host after the other."""
        took_s: list[float] = []
        peer_s = 0.0
        for number in range(self._loaded.runs):
            row = self._on.hosts()[number % len(self._on.hosts())]
            node = self._on.nodes.of(row)
            assert node is not None
            peer = start_peer(node)
            peer_pid = actor_process(peer)[0]
            at_ns = time.monotonic_ns()
            os.kill(row.pid, signal.SIGKILL)
            took_s.append(await self._loaded.answered_after(at_ns))
            # Not in the same moment: the peer's new process would take a core of the two that are measured.
            at_ns = time.monotonic_ns()
            os.kill(peer_pid, signal.SIGKILL)
            peer_s = max(peer_s, await peer_back(peer, at_ns))
            self._loaded.say(f"{name}: {took_s[-1]:.2f} s")
            await self._restored()
        yield Record(name, max(took_s), "s", RAW, peer_s)

    async def node(self, name: str, *, with_registry: bool = False) -> AsyncIterator[Record]:
        """Kill one node after the other; a new one takes the place of each."""
        took_s: list[float] = []
        peer_s = 0.0
        for _ in range(1 if with_registry else self._loaded.runs):
            node = await self._node(with_registry=with_registry)
            peer = start_peer(node)
            at_ns = time.monotonic_ns()
            await asyncio.to_thread(node.kill)
            back = asyncio.create_task(peer_back(peer, at_ns))
            took_s.append(await self._loaded.answered_after(at_ns))
            peer_s = max(peer_s, await back)
            self._loaded.say(f"{name}: {took_s[-1]:.2f} s")
            await self._restored(instead_of=node)
        yield Record(name, max(took_s), "s", RAW, peer_s)

    async def frozen(self) -> AsyncIterator[Record]:
        """Freeze one node after the other and resume it: its hosts must commit nothing more."""
        took_s: list[float] = []
        peer_s: float | None = None
        for _ in range(self._loaded.runs):
            node = await self._node(with_registry=False)
            pids = {row.pid for row in self._on.hosts(node)}
            peer = start_peer(node) if peer_s is None else None
            at_ns = time.monotonic_ns()
            await asyncio.to_thread(node.freeze)
            took_s.append(await self._loaded.answered_after(at_ns))
            self._loaded.say(f"failover.frozen: {took_s[-1]:.2f} s")
            if peer is not None:  # a minute: once is enough
                peer_s = await peer_back(peer, at_ns)
            else:
                await asyncio.sleep(FROZEN_S)
            before = await self._entries_by(pids)
            await asyncio.to_thread(node.resume)
            await asyncio.sleep(AFTER_S)
            after = await self._entries_by(pids)
            if after != before:
                msg = f"hosts of the frozen node committed {after - before} entries after it was resumed"
                raise RuntimeError(msg)
            # Ray may have given it up by now, as it does after a minute.
            await self._restored(instead_of=node)
        yield Record("failover.frozen", max(took_s), "s", RAW, peer_s)

    async def registry(self) -> AsyncIterator[Record]:
        """Kill the registry: no command may notice."""
        slowest: list[float] = []
        for _ in range(self._loaded.runs):
            pid, _ = await self._registry()
            at_ns = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(4 * WARM_S)
            slowest.append(max(self._latencies(at_ns)))
            self._loaded.say(f"failover.registry: {slowest[-1]:.2f} s")
            await self._restored()
        await self._no_errors("failover.registry")
        yield Record("failover.registry", max(slowest), "s")

    async def drain(self) -> AsyncIterator[Record]:
        """Empty one node after the other: nobody may get an error."""
        p99_ms: list[float] = []
        calm_ms: list[float] = []
        took_s = 0.0
        for _ in range(self._loaded.runs):
            node = await self._node(with_registry=False)
            at_ns = time.monotonic_ns()
            found = await RayDirectory(app.name).ask("drain", node.id, within_s=RESTORED_S)
            ended_ns = time.monotonic_ns()
            if found["left"]:
                msg = f"the drained node still has the shards {found['left']}"
                raise RuntimeError(msg)
            took_s = max(took_s, (ended_ns - at_ns) / 1e9)
            await asyncio.sleep(WARM_S)
            p99_ms.append(self._slow(at_ns, ended_ns) * 1e3)
            calm_ms.append(self._slow(at_ns - 10**9, at_ns) * 1e3)
            self._loaded.say(
                f"drain.p99: {p99_ms[-1]:.0f} ms while it took {took_s:.1f} s; {calm_ms[-1]:.0f} ms before"
            )
            await self._restored(instead_of=node)
        await self._no_errors("drain.p99")
        yield Record("drain.p99", max(p99_ms), "ms")
        yield Record("drain.p99.undisturbed", max(calm_ms), "ms")
        yield Record("drain.took", took_s, "s")

    # -- what they need ------------------------------------------------------------------------------

    async def _restored(self, *, instead_of: Node | None = None) -> None:
        """Wait until the platform is what it was, and answers as it did: what is measured is a fault, not a start."""
        await self._loaded.restored(instead_of=instead_of)
        began_s = time.monotonic()
        while (slow_s := self._slow(time.monotonic_ns() - 10**9)) > CALM_P99_S:
            if time.monotonic() - began_s > CALM_WITHIN_S:
                self._loaded.say(f"not calm: the slowest of a hundred commands takes {slow_s * 1e3:.0f} ms")
                return
            await asyncio.sleep(1.0)

    def _slow(self, from_ns: int, until_ns: int = 1 << 62) -> float:
        """Return the 99th percentile of the seconds that commands took."""
        latencies = sorted(self._latencies(from_ns, until_ns))
        return latencies[int(len(latencies) * 0.99)] if latencies else float("inf")

    async def _node(self, *, with_registry: bool) -> Node:
        """Return a node that serves, with the active registry on it or without."""
        for _ in range(REGISTRIES):
            pid, home = await self._registry()
            owners = self._loaded.owners()
            for node in self._on.nodes.alive:
                serves = any(row.incarnation in owners for row in self._on.hosts(node))
                if serves and (node is home) is with_registry:
                    return node
            # It is on the head, or on a node that has no host yet: have the other one lead.
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(RESTORED_S):
                while (found := await self._on.registry()) is None or found[0] == pid:  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(LOOK_S)
        msg = f"no node serves {'with' if with_registry else 'without'} the active registry on it"
        raise RuntimeError(msg)

    async def _registry(self) -> tuple[int, Node | None]:
        found = await self._on.registry()
        if found is None:
            msg = "no registry leads"
            raise RuntimeError(msg)
        return found

    async def _entries_by(self, pids: set[int]) -> int:
        """Return how many entries processes have committed: the token of an entry begins with its process."""
        begins = tuple(f"{pid}-" for pid in pids)
        return sum(entry.token.startswith(begins) for entry in await read_journal(self._on))

    def _latencies(self, from_ns: int, until_ns: int = 1 << 62) -> list[float]:
        """Return the seconds that commands took which were sent in that time, or were under way when it began."""
        return [
            one.took_s
            for one in self._log.operations()
            if one.took_s is not None and one.sent_ns < until_ns and (one.answered_ns or 0) > from_ns
        ]

    async def _no_errors(self, row: str) -> None:
        errors = [error for one in self._log.operations() for error in (*one.errors, one.refused) if error]
        if errors:
            msg = f"{row}: {len(errors)} errors, the first: {errors[0]}"
            raise RuntimeError(msg)


@asynccontextmanager
async def staged(
    store: str, folder: Path, runs: int, say: Callable[[str], None]
) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[FailoverRows]]]:
    """Start a stage; give what puts it under load for one row, and judges that in the end.

    Args:
        store: ``sqlite`` or ``postgres``.
        folder: For the witness's logs, and the store if it is a file.
        runs: How often each row is measured.
        say: Told of every run.
    """
    if store == "postgres":
        staging = stage(app, APP_PATH, NODES, 1, durable=True, proxied=False)
    else:
        staging = stage_on_sqlite(app, APP_PATH, HOSTS_ON_SQLITE, folder)
    async with staging as on:
        logs: list[Path] = []
        yield lambda: _under_load(on, folder, runs, logs, say)


@asynccontextmanager
async def _under_load(
    on: Stage, folder: Path, runs: int, logs: list[Path], say: Callable[[str], None]
) -> AsyncIterator[FailoverRows]:
    caller = f"load-{time.monotonic_ns()}"
    spec = Spec(
        on.nodes.address, str(folder / f"{caller}.log"), caller, 1, ENTITIES, RATE,
        deadlines_s=(30.0, 30.0), queries=0.0, refusals=0.0, hot=0.0,
    )  # fmt: skip
    client = await ClientProcess.start(spec)
    try:
        await client.probe(ANSWERED_S)  # every entity is in memory then
        on_load = Loaded(on, client, runs, say)
        await on_load.restored()
        yield FailoverRows(on_load)
        client.stop_sending()
        if trouble := await client.finish(ANSWERED_S):
            raise RuntimeError(trouble)
    finally:
        await client.kill()
    # With the logs of the rows before: the entities are the same.
    logs.append(client.log)
    findings = judge(read_logs(logs), histories(await read_journal(on)))
    if findings:
        msg = f"{len(findings)} promises were broken, the first: {findings[0]}"
        raise RuntimeError(msg)
