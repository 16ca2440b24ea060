"""Finds handlers that wait for each other across call chains: A waits for B while B waits for A.

A chain that comes back to itself is refused at once (``CallCycle``). Waits that cross chains are
looked for only once a call has taken a while: from the waiting entity along the calls that are
open, asking each entity's host what its running handler waits for. A way that comes back is
walked a second time: calls that are open both times were open together in between, so that what
is found is a deadlock and not two moments put together. The youngest of its handlers fails; whoever finds a
deadlock of which another is the youngest has that one look at once, however long ago it began to wait.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from remora.errors import CallCycle, RemoraError
from remora.why import OpenCall

if TYPE_CHECKING:
    from remora.entity import Turn
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

LOOK_AFTER_S = 0.1
"""Seconds a call may take before anybody looks."""
LOOK_AGAIN_MAX_S = 2.0
"""Longest pause between looks, in seconds; each is twice as long as the one before."""
VISITED_MAX = 64
"""Entities that one look asks."""
CHAIN_S = 0.3
"""Seconds that following a chain for ``why`` may take: its asker waits for ``remora.why.HOST_S``."""
ASK_S = 1.0
"""Seconds a host has to say what an entity waits for."""


class Waits(msgspec.Struct, array_like=True):
    """What an entity's running handler waits for."""

    turn: str
    """Tells this run of the handler from every other."""
    began_ms: int
    calls: list[tuple[int, str]]
    """Open calls: (ordinal, entity)."""
    method: str = ""
    for_s: float = 0.0
    """Seconds since the first of the open calls began, without one since the handler did."""


class Step(NamedTuple):
    """One wait on the way: this run of that entity's handler waits, in this call, for the next entity."""

    entity: str
    turn: str
    began_ms: int
    ordinal: int
    following: str


_decode = msgspec.json.Decoder(Waits | None).decode


def waits_of(cell: Cell | None) -> Waits | None:
    """Return what a cell's running handler waits for; None if none runs."""
    if cell is None or cell.turn is None:
        return None
    _, handler, turn = cell.turn
    calls = [(ordinal, entity) for ordinal, (entity, _) in turn.waits.items()]
    since_s = min((since_s for _, since_s in turn.waits.values()), default=cell.busy_since_s)
    for_s = round(cell.host.clock.monotonic_s() - since_s, 3)
    return Waits(f"{turn.command_id}@{cell.busy_since_s}", turn.now_ms, calls, handler.name, for_s)


def youngest(way: list[Step]) -> str:
    """Return which entity of a deadlock gives up: the one whose handler began last."""
    return max(way, key=lambda step: (step.began_ms, step.entity)).entity


class Deadlocks:
    """Looks for deadlocks that this host's entities are part of."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._looking: dict[int, asyncio.Event] = {}
        """Handlers that look → set to have them look again at once."""
        self.found = 0
        """Deadlocks in which an entity of this host gave up."""

    def look(self, turn: Turn) -> None:
        """Look for a deadlock that a handler may be part of, as long as it waits."""
        if id(turn) not in self._looking:
            again = self._looking[id(turn)] = asyncio.Event()
            self._host.spawn(self._look(turn, again))

    def look_now(self, cell: Cell | None) -> None:
        """Have an entity's handler look at once, if it looks at all: one that has just begun to wait will soon."""
        if cell is not None and cell.turn is not None and (again := self._looking.get(id(cell.turn[2]))) is not None:
            again.set()

    async def _look(self, turn: Turn, again: asyncio.Event) -> None:
        key, pause_s = turn.chain[-1], LOOK_AFTER_S
        try:
            while (cell := self._waiting(key, turn)) is not None:
                way = await self._way_back(key)
                if way and youngest(way) == key and await self._stands(way) and self._waiting(key, turn) is cell:
                    self._give_up(cell, turn, way)
                    return
                if way and youngest(way) != key:
                    await self._have_look(youngest(way))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):  # growing, bounded pause between looks
                        await again.wait()
                again.clear()
                pause_s = min(pause_s * 2, LOOK_AGAIN_MAX_S)
        finally:
            del self._looking[id(turn)]

    async def _have_look(self, entity: str) -> None:
        host = self._host
        if entity in host.cells:
            self.look_now(host.cells[entity])
            return
        kind, _, ident = entity.partition("/")
        with suppress(RemoraError):  # it looks by itself, if later
            await host.client.call(host.app.spec(kind), "$look", ident, b"{}", deadline_s=ASK_S)

    def _waiting(self, key: str, turn: Turn) -> Cell | None:
        cell = self._host.cells.get(key)
        return cell if cell is not None and cell.turn is not None and cell.turn[2] is turn and turn.waits else None

    def _give_up(self, cell: Cell, turn: Turn, way: list[Step]) -> None:
        self.found += 1
        chain = " → ".join([*(step.entity for step in way), way[0].entity])
        msg = (
            f"{cell.key} would wait for ever: {chain}, each in a call of its own. It gave up, and the others go on. "
            "Ask again with the same id, or use self.send for one of the calls."
        )
        turn.broken = CallCycle(msg, entity=cell.key, command_id=turn.command_id)
        if cell.task is not None:
            cell.task.cancel()

    async def _way_back(self, start: str) -> list[Step] | None:
        """Return the first way found from an entity along open calls back to it."""
        ways: list[list[Step]] = [[]]
        visited: set[str] = set()
        while ways and len(visited) < VISITED_MAX:
            way = ways.pop()
            entity = way[-1].following if way else start
            if entity in visited:
                continue
            visited.add(entity)
            for step in await self._steps(entity):
                if step.following == start:
                    return [*way, step]
                ways.append([*way, step])
        return None

    async def _stands(self, way: list[Step]) -> bool:
        """Return whether every wait of a way is still the same one."""
        for step in way:
            if step not in await self._steps(step.entity):
                return False
        return True

    async def _steps(self, entity: str) -> list[Step]:
        waits = await self._waits(entity)
        if waits is None:
            return []
        return [Step(entity, waits.turn, waits.began_ms, ordinal, to) for ordinal, to in waits.calls]

    async def _waits(self, entity: str) -> Waits | None:
        host = self._host
        cell = host.cells.get(entity)
        if cell is not None:
            return waits_of(cell)
        kind, _, ident = entity.partition("/")
        try:
            _, payload = await host.client.call(host.app.spec(kind), "$waits", ident, b"{}", deadline_s=ASK_S)
        except RemoraError:
            return None  # nobody knows now: the next look asks again
        waits: Waits | None = _decode(payload)
        return waits

    async def chain(self, entity: str) -> list[OpenCall]:
        """Return the chain of calls an entity waits on, itself first, as far as it is told in ``CHAIN_S``."""
        links: list[OpenCall] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(CHAIN_S):
                following = entity
                while following and following not in {link.entity for link in links}:
                    waits = await self._waits(following)
                    if waits is None:
                        break
                    entity, following = following, waits.calls[0][1] if waits.calls else ""
                    links.append(OpenCall(entity=entity, method=waits.method, waits_for=following, for_s=waits.for_s))
        return links
