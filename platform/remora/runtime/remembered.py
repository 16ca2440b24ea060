"""Entities that are activated without being asked, when their host comes to own their shard.

Those of types with ``EntityOptions(remember=True)``. That one was in use is a row in the store, written in the commit of its
first command since it was activated, so that no command waits for it; the commit of the command that asks to
leave with ``self.passivate()`` deletes it. They come back a few at a time, behind all that commands wait for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remora.runtime.host import Host

TICK_S = 0.1
"""Seconds between two portions."""
JITTER_S = 0.5
"""Longest wait before the first, in seconds, drawn at random: hosts that get shards together do not read together."""
PAGE = 1_000
"""Keys read at a time."""


class Remembered:
    """Activates remembered entities of shards that a host was given.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._shards: list[str] = []
        """Those that were taken over and not looked at yet."""
        self._task: asyncio.Task[None] | None = None
        self.count = 0
        """Entities activated so far."""

    def take_over(self, shards: list[str]) -> None:
        """Activate what is remembered of shards, soon and little by little."""
        if not any(spec.options.remember for spec in self._host.app.specs.values()):
            return
        self._shards += shards
        if self._task is None:
            self._task = self._host.spawn(self._run())

    async def _run(self) -> None:
        try:
            await asyncio.sleep(JITTER_S * self._host.rng.random())  # noqa: TID251 - drawn, bounded
            while self._shards:
                shards, self._shards = self._shards, []
                await self._of(shards)
        finally:
            self._task = None

    async def _of(self, shards: list[str]) -> None:
        host, after = self._host, ""
        portion = max(1, int(host.settings.remembered_per_s * TICK_S))
        pause_s = portion / host.settings.remembered_per_s
        while True:
            keys = await host.patiently(lambda: host.store.remembered(shards, PAGE, after))  # noqa: B023 - awaited at once
            for start in range(0, len(keys), portion):
                if host.passivation.full:
                    host.log.warning(
                        "%s has no room for all remembered entities: those behind %s come back when they are asked for.",
                        host.name,
                        keys[start],
                    )
                    return
                if sum(map(self._activate, keys[start : start + portion])):
                    await asyncio.sleep(pause_s)  # noqa: TID251 - the period of portions
            if len(keys) < PAGE:
                return
            after = keys[-1]

    def _activate(self, key: str) -> bool:
        """Activate an entity unless it lives already, has left with its shard, or is remembered no more."""
        host = self._host
        kind, _, ident = key.partition("/")
        spec = host.app.specs.get(kind)
        if spec is None or not spec.options.remember or kind in host.closed or key in host.cells:
            return False
        shard = host.shards.get(host.shard_name(key))
        if shard is None or not shard.accepting:
            return False
        host.recovery.activate(spec, shard, ident, key)
        self.count += 1
        return True
