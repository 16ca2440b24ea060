"""Moving shards while hosts stand: emptying those that leave, evening out the others.

One round after the other, never two at once. What to move is decided in ``sharding.registry``; here
it is carried out: the source releases, the store knows, the target is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from remora.errors import CannotDrain, RemoraError
from remora.sharding import registry as decisions
from remora.sharding.allocation import Move

if TYPE_CHECKING:
    from remora.runtime.registry import Registry

LOAD_MIN = 100.0
"""Commands/s in all below which load is not looked at: of so few the differences are chance."""
LOAD_S = 5.0
"""Seconds over which commands are counted for the load of shards."""
LOAD_KEPT = 0.5
"""Share of the former rate in the next one: one burst is no reason to move."""


class Rebalance:
    """Moves shards of one registry.

    Args:
        registry: Whose shards these are.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.load: dict[str, float] = {}
        """Shard → commands/s."""
        self.locations: dict[str, str] = {}
        """Shard → where somebody outside wants it."""
        self.under_way: dict[str, Move] = {}
        """Moves being carried out."""
        self.since_s: dict[str, float] = {}
        """Shard → when its move under way began."""
        self.moved = 0
        """Shards moved so far."""
        self._counted: dict[str, int] = {}
        self._counted_s = 0.0
        self._wake = asyncio.Event()
        self._log = logging.getLogger("remora.registry")

    def wake(self) -> None:
        """Begin the next round now."""
        self._wake.set()

    async def run(self) -> None:
        """Round after round."""
        while True:
            await self._pause()
            try:
                await self.round()
            except RemoraError as error:
                self._log.warning("a rebalance round was not finished: %s", error)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._registry.settings.rebalance_s):
                await self._wake.wait()
        except TimeoutError:
            pass  # the period is over: nobody had to wake it
        self._wake.clear()

    async def round(self) -> None:
        """Move what is to be moved now, and let go of hosts that have been emptied."""
        registry = self._registry
        await registry.refresh()  # finds shards whose hand-over was cut short
        await registry.tell_again()
        await self._measure()
        moves = self.plan()
        if moves:
            await registry.move(moves)
        for number in sorted(registry.current.draining):
            await self._empty(number)
        if registry.current.draining and moves:
            self.wake()  # who is to leave is emptied without pauses

    def plan(self) -> dict[str, Move]:
        """Return what the next round moves."""
        registry, settings = self._registry, self._registry.settings
        return decisions.next_moves(
            registry.current, registry.layout, moves_max=settings.rebalance_max,
            share_max=settings.rebalance_share_max, joining=bool(registry.joining) or registry.startup.stopping,
        )  # fmt: skip

    def explain(self) -> list[dict[str, Any]]:
        """Return the next round for people: what would move, and why."""
        registry = self._registry
        table = registry.current
        return [
            {
                "shard": shard,
                "source": table.hosts[move.source].name,
                "target": table.hosts[move.target].name,
                "because": self._because(move),
            }
            for shard, move in self.plan().items()
        ]

    def _because(self, move: Move) -> str:
        table = self._registry.current
        if move.source in table.draining:
            return f"{table.hosts[move.source].name} is being emptied"
        counts = {number: table.owned_by(number) for number in move}
        said = [
            f"{len(owned)} shards, {sum(self.load.get(one, 0.0) for one in owned):.0f} commands/s"
            for owned in counts.values()
        ]
        return f"source has {said[0]}; target has {said[1]}"

    async def _measure(self) -> None:
        """Count commands per shard, every few seconds."""
        now_s = self._registry.clock.monotonic_s()
        elapsed_s = now_s - self._counted_s
        if elapsed_s < LOAD_S:
            return
        counted = await self._registry.hosts.loads()
        self.load = rates(self.load, self._counted, counted, elapsed_s)
        self._counted, self._counted_s = counted, now_s

    async def _empty(self, number: int) -> None:
        """Let go of a host that is being emptied and has nothing left but, perhaps, its dedicated entity."""
        registry = self._registry
        row = registry.current.hosts.get(number)
        owned = registry.current.owned_by(number)
        if row is None or (owned and not row.dedicated):
            return
        if owned:
            await registry.hosts.release(row, dict.fromkeys(owned, ""))
        await registry.retire(number)

    async def drain(self, numbers: list[int]) -> list[str]:
        """Empty hosts and let them go; return what they have left when the time for that is over.

        Args:
            numbers: Their incarnations.
        """
        registry = self._registry
        names = [registry.current.hosts[number].name for number in numbers]
        await registry.set_draining([*registry.current.draining, *numbers])
        self.wake()
        until_s = registry.clock.monotonic_s() + registry.settings.drain_s
        while registry.clock.monotonic_s() < until_s:
            standing = [number for number, row in registry.current.hosts.items() if row.name in names]
            if not standing:
                return []
            await registry.changed(within_s=until_s - registry.clock.monotonic_s())
        left = [
            shard for number, row in registry.current.hosts.items() if row.name in names
            for shard in registry.current.owned_by(number)
        ]  # fmt: skip
        self._log.error("hosts %s were not emptied in time and keep %d shards", names, len(left))
        return left


def check_drain(registry: Registry, numbers: list[int]) -> None:
    """Refuse to empty the last hosts of a group.

    Raises:
        CannotDrain: Nobody else may have what they own.
    """
    table = registry.current
    leaving = {*numbers, *table.draining}
    for group in registry.layout.groups:
        hosts = {number for number, row in table.hosts.items() if not row.dedicated and row.group == group}
        if hosts and hosts <= leaving:
            what = f"host group {group!r}" if group else "the app"
            msg = f"These are the last hosts of {what}: start others first (a node, or `remora up` with more hosts)."
            raise CannotDrain(msg)


def rates(
    before: Mapping[str, float], counted_before: Mapping[str, int], counted: Mapping[str, int], elapsed_s: float
) -> dict[str, float]:
    """Return commands/s per shard, smoothed; empty while there is too little to tell.

    Args:
        before: The rates of before.
        counted_before: Commands per shard so far, as counted then.
        counted: As counted now; a shard that another host counts from anew is lower.
        elapsed_s: Seconds in between.
    """
    fresh = {
        shard: max(count - counted_before.get(shard, 0), 0) / elapsed_s
        for shard, count in counted.items()
        if shard in counted_before
    }
    if sum(fresh.values()) < LOAD_MIN:
        return {}
    smooth = {shard: LOAD_KEPT * before.get(shard, rate) + (1 - LOAD_KEPT) * rate for shard, rate in fresh.items()}
    return {shard: rate for shard, rate in smooth.items() if rate > 0}
