"""Makes things fail, for real: carries out the steps of a plan."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from remora.cluster.transport import RayDirectory
from remora.errors import RemoraError
from remora.sharding.table import HostRow
from tests.chaos.plan import Fault, Step
from tests.chaos.stage import Stage, until
from tests.nodes import Node

T = TypeVar("T")
NODES_MIN = 2
"""Nodes that serve beside the one that is taken away: to lose everything at once is not what a plan means."""
TURN_S = 180.0
"""Longest wait for enough nodes to serve."""
DRAIN_S = 60.0


class Skipped(Exception):  # noqa: N818 - it is no error
    """There is nothing to do the fault to."""


@dataclass
class Done:
    """A step as it was carried out."""

    step: Step
    at_ns: int
    """When, on the clock of the witnesses."""
    target: str
    note: str = ""


class Faults:
    """Carries out steps on a stage.

    Args:
        stage: What is to fail.
        say: Told of everything that is done.
    """

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._say = say
        self._beside: set[asyncio.Task[None]] = set()
        self._draining: set[str] = set()
        self.done: list[Done] = []
        self._do: dict[Fault, Callable[[Step], Awaitable[str]]] = {
            Fault.HOST_KILL: self._kill_host,
            Fault.HOST_FREEZE: self._freeze_host,
            Fault.NODE_KILL: self._kill_node,
            Fault.NODE_FREEZE: self._freeze_node,
            Fault.REGISTRY_KILL: self._kill_registry,
            Fault.STORE_CUT: self._cut_store,
            Fault.STORE_CUT_NODE: self._cut_node_off,
            Fault.STORE_RESET: self._break_connections,
            Fault.DRAIN: self._drain,
        }

    async def carry_out(self, step: Step) -> None:
        """Do one step; undoing it goes on beside."""
        self._check()
        done = Done(step, time.monotonic_ns(), "")  # noqa: TID251 - the witnesses' clock
        try:
            done.target = await self._do[step.fault](step)
        except Skipped as why:
            done.target, done.note = "nothing", str(why)
        self.done.append(done)
        lasts = f" for {step.lasts_s:g} s" if step.lasts_s else ""
        self._say(f"{step.at_s:6.1f} s  {step.fault}{lasts}: {done.target}{done.note and f' ({done.note})'}")

    async def mend(self) -> None:
        """Wait until everything that lasts is undone and the new nodes are up."""
        while running := {task for task in self._beside if not task.done()}:
            await asyncio.wait(running)
        self._check()

    def _check(self) -> None:
        """Raise what went wrong beside."""
        for task in self._beside:
            if task.done():
                task.result()

    def release(self) -> None:
        """Undo what lasts at once, whatever happened: nothing is left frozen."""
        for task in self._beside:
            task.cancel()
        for node in self._stage.nodes.alive:
            if node.frozen:
                node.resume()

    # -- hosts -----------------------------------------------------------------------------------------

    async def _kill_host(self, step: Step) -> str:
        row = self._pick(step, self._running_hosts(), "no host runs")
        os.kill(row.pid, signal.SIGKILL)
        return self._name(row)

    async def _freeze_host(self, step: Step) -> str:
        row = self._pick(step, self._running_hosts(), "no host runs")
        os.kill(row.pid, signal.SIGSTOP)

        def resume() -> None:
            with contextlib.suppress(ProcessLookupError):  # somebody may have ended it: a frozen host is taken over
                os.kill(row.pid, signal.SIGCONT)

        self._later(step.lasts_s, resume)
        return self._name(row)

    # -- nodes -----------------------------------------------------------------------------------------

    async def _kill_node(self, step: Step) -> str:
        node = await self._node(step)
        where = await self._registry_node()
        await asyncio.to_thread(node.kill)
        self._spawn(self._add_node())
        return node.name + (", with the registry" if where is node else "")

    async def _freeze_node(self, step: Step) -> str:
        node = await self._node(step)
        where = await self._registry_node()
        await asyncio.to_thread(node.freeze)

        def resume() -> None:
            if not node.dead:
                node.resume()
                self._say(f"          {node.name} resumed")

        self._later(step.lasts_s, resume)
        return node.name + (", with the registry" if where is node else "")

    async def _drain(self, step: Step) -> str:
        node = await self._node(step)
        self._draining.add(node.id)
        self._spawn(self._drain_node(node))
        return node.name

    async def _drain_node(self, node: Node) -> None:
        """Empty a node beside other faults, put another in its place, and take it away."""
        directory = RayDirectory(self._stage.app.name)
        began_s = time.perf_counter()
        while True:
            try:
                found = await directory.ask("drain", node.id, within_s=DRAIN_S)
            except RemoraError as error:
                # A registry that was killed in between is asked again: a drain is an intention, not a promise.
                if time.perf_counter() - began_s > DRAIN_S:
                    self._say(f"          {node.name} was not emptied: {error}")
                    break
                await asyncio.sleep(0.2)  # noqa: TID251 - until another registry answers
            else:
                took_s = time.perf_counter() - began_s
                self._say(f"          {node.name} emptied after {took_s:.1f} s, {len(found['left'])} shards left")
                break
        await self._add_node()
        if not node.dead:
            await asyncio.to_thread(node.kill)
        self._draining.discard(node.id)

    async def _add_node(self) -> None:
        began_s = time.perf_counter()
        node = await self._stage.add_node()
        self._say(f"          {node.name} added after {time.perf_counter() - began_s:.1f} s")

    # -- registry and store ------------------------------------------------------------------------------

    async def _kill_registry(self, step: Step) -> str:
        del step
        where = await self._stage.registry()
        if where is None:
            why = "none leads"
            raise Skipped(why)
        pid, node = where
        os.kill(pid, signal.SIGKILL)
        return f"process {pid} on {node.name if node else 'the head'}"

    async def _cut_store(self, step: Step) -> str:
        for proxy in self._stage.proxies.all:
            self._stage.proxies.do(proxy.hold)

        def mend() -> None:
            for proxy in self._stage.proxies.all:
                self._stage.proxies.do(proxy.let_go)

        self._later(step.lasts_s, mend)
        return "everybody"

    async def _cut_node_off(self, step: Step) -> str:
        node = self._pick(step, self._up(), "no node is up")
        proxy = self._stage.proxy_of[node.name]
        self._stage.proxies.do(proxy.hold)
        self._later(step.lasts_s, lambda: self._stage.proxies.do(proxy.let_go))
        return node.name

    async def _break_connections(self, step: Step) -> str:
        del step
        for proxy in self._stage.proxies.all:
            self._stage.proxies.do(proxy.reset)
        return "everybody's"

    # -- who there is ------------------------------------------------------------------------------------

    def _up(self) -> list[Node]:
        nodes = [node for node in self._stage.nodes.alive if node.name in self._stage.proxy_of]  # the others only start
        return [node for node in nodes if not node.frozen and node.id not in self._draining]

    def _serving(self) -> list[Node]:
        table = self._stage.client.table
        owners = {row.owner for row in table.shards.values()}
        serving = {row.node for row in self._stage.hosts() if row.incarnation in owners}
        return [node for node in self._up() if node.id in serving]

    def _running_hosts(self) -> list[HostRow]:
        up = {node.id for node in self._up()}
        return [row for row in self._stage.hosts() if row.node in up]

    async def _node(self, step: Step) -> Node:
        """Return a node to take away, once enough are up."""

        def enough() -> bool:
            self._check()
            return len(self._serving()) > NODES_MIN

        await until(enough, TURN_S, "enough nodes serve to take one away")
        return self._pick(step, self._serving(), "no node serves")

    async def _registry_node(self) -> Node | None:
        where = await self._stage.registry()
        return where[1] if where else None

    def _name(self, row: HostRow) -> str:
        node = self._stage.nodes.of(row)
        return f"{row.name} (incarnation {row.incarnation}) on {node.name if node else row.node[:8]}"

    @staticmethod
    def _pick(step: Step, those: Sequence[T], none: str) -> T:
        if not those:
            raise Skipped(none)
        return those[int(step.pick * len(those))]

    def _later(self, after_s: float, undo: Callable[[], None]) -> None:
        async def wait() -> None:
            try:
                await asyncio.sleep(after_s)  # noqa: TID251 - as long as the fault lasts
            finally:
                undo()

        self._spawn(wait())

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        self._beside.add(asyncio.create_task(work))
