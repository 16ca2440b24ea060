"""Carries out what the levels above entities and shards decide: about hosts, groups of them, and the whole app.

::

                         process ended, did not start,            give up those concerned that stand
                         or one of its shards escalated                        │
    host up ────────────────────────▶ judged ──restart──▶ (pause) ──▶ started, one after the other ──▶ host up
                                        │  ▲                                   │
                                        │  └────────── did not start ──────────┘
                                        ├──stop──▶ stopped, until the app is started anew
                                        └──stop of the app──▶ halted: all closed in order, everything written

Which level decides, and what, is ``supervision.climbing``. What is stopped is written down for whoever leads next.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from remora.errors import Stopped, Unavailable
from remora.runtime.startup import stop_in_order
from remora.sharding.table import slot_order
from remora.supervision.climbing import DEDICATED, Histories, Verdict, climb, concerned
from remora.supervision.decisions import is_failing
from remora.supervision.failure import Failure, described
from remora.supervision.levels import HOST_DIED
from remora.supervision.order import SHARED
from remora.supervision.restarts import restarts_at_once
from remora.supervision.rules import Directive, kinds_of

if TYPE_CHECKING:
    from remora.runtime.registry import Registry
    from remora.sharding.table import HostRow

AGAIN_S = 0.5
"""When to ask again for a dedicated entity whose host is held back, in seconds."""
STOPPED, HALTED = "stopped", "halted"
"""Notes in the store: slots that are not filled again, each with why, and why the app was stopped."""
_decode_failure = msgspec.json.Decoder(Failure).decode


class Levels:
    """The levels of one app above its shards.

    Args:
        registry: The app's registry.
        seed: Seeds the jitter of pauses.
    """

    def __init__(self, registry: Registry, seed: int) -> None:
        self._registry = registry
        self._histories: Histories = {}
        self._rng = random.Random(seed)
        self._turn = asyncio.Lock()
        """One verdict at a time: those that fail together are seen as given up by the first."""
        self.stopped: dict[str, str] = {}
        """Slot that is not filled again → why."""
        self.replacing: set[str] = set()
        """Slots whose host is gone and is being started anew, or waits for its next try."""
        self.halted = ""
        """Why the app was stopped; empty while it runs."""
        self._log = logging.getLogger("remora.registry")

    async def begin(self, *, anew: bool) -> None:
        """Begin to lead: know what is stopped, or forget it where somebody starts the app anew."""
        registry = self._registry
        halted = await registry.noted(HALTED, str, "")
        stopped = await registry.noted(STOPPED, dict[str, str], {})
        if not anew:
            self.halted, self.stopped = halted, stopped
            registry.startup.stopping = bool(halted)
            registry.refused |= stopped
        elif halted or stopped:
            await registry.note(HALTED, "")
            await registry.note(STOPPED, {})

    def admit(self, key: str) -> None:
        """Refuse to start a dedicated entity's host that the rules have stopped, or hold back.

        Raises:
            Stopped: They have stopped it, or the app.
            Unavailable: It is being started again, after its pause.
        """
        slot = self._registry.hosts.dedicated_slot(key)
        if self.halted or slot in self.stopped:
            raise Stopped(self.halted or f"The host of {key} is gone: {self.stopped[slot]}", entity=key)
        if slot in self.replacing:
            msg = f"The host of {key} is started again when its supervision rules say so."
            raise Unavailable(msg, entity=key, retry_after_s=AGAIN_S)

    def restarts_at_once(self, slot: str) -> int:
        """Return Ray's ``max_restarts`` for the actor of a dedicated entity; see ``supervision.restarts``."""
        registry = self._registry
        history = self._histories.get(f"host:{slot}", {})
        return restarts_at_once(registry.app.supervision.host_rules, HOST_DIED, history, registry.clock.monotonic_s())

    def failing(self, slot: str) -> bool:
        """Return whether what runs in a slot has failed more than once in a row of late: another node may do better."""
        registry = self._registry
        history = self._histories.get(f"host:{slot}", {})
        return is_failing(registry.app.supervision.host_rules, history, registry.clock.monotonic_s())

    # -- what happens ------------------------------------------------------------------------------

    async def died(self, row: HostRow) -> None:
        """A host's process has ended; its shards are with others already."""
        self.replacing.add(row.slot)
        await self._judge(row, (HOST_DIED,), "")

    async def escalated(self, failure: bytes) -> None:
        """A shard's rules left a ``Failure``, as JSON, to the level above.

        Nothing happens if its host has gone meanwhile: it has had a new beginning.
        """
        # Not by whoever tells of it: that is the host which is to end by what is decided, and its call may end with it.
        await asyncio.shield(self._registry.spawn(self._judge_escalated(_decode_failure(failure))))

    async def _judge_escalated(self, value: Failure) -> None:
        async with self._turn:
            row = self._registry.current.hosts.get(value.incarnation)
            if row is not None and not self.halted:
                because = f"{value.entity}.{value.command} failed and its shard escalated: {value.kind}"
                await self._decide(row, value.kinds, because)

    async def _judge(self, row: HostRow, kinds: Sequence[str], because: str) -> None:
        async with self._turn:
            await self._decide(row, kinds, because or kinds[0])

    async def _decide(self, row: HostRow, kinds: Sequence[str], because: str) -> None:
        registry = self._registry
        if self.halted:
            self.replacing.discard(row.slot)
            return
        verdict, self._histories = climb(
            registry.app.supervision, row.slot, group_of(row), kinds, self._histories, registry.clock.monotonic_s(),
            self._rng,
        )  # fmt: skip
        if verdict.level == "app" and verdict.directive is Directive.STOP:
            self.replacing.discard(row.slot)
            registry.spawn(self.halt(because))
            return
        rows = self._concerned(verdict, row)
        if len(rows) > 1 or verdict.level != "host":
            names = ", ".join(one.name for one in rows)
            self._log.error("rules of the %s say %s for %s: %s", verdict.level, verdict.directive.value, names, because)
        self.replacing |= {one.slot for one in rows}  # nobody else fills them from here on
        await self._give_up(rows, because)
        if verdict.directive is Directive.STOP:
            await self._stop(rows, because)
        else:
            registry.spawn(self._start(rows, verdict.after_s))

    def _concerned(self, verdict: Verdict, failed: HostRow) -> list[HostRow]:
        """Return the hosts that a verdict is about, in the order in which they start; what is being started is left to that."""
        if verdict.level == "host":
            return [failed]
        standing = [row for row in self._registry.current.hosts.values() if row.slot not in self.replacing]
        rows = {row.slot: row for row in [*standing, failed]}
        groups = [group_of(failed)]
        if verdict.level == "app":
            groups = concerned(verdict.strategy, groups[0], self._groups())
        found: list[HostRow] = []
        for group in groups:
            slots = sorted((slot for slot, row in rows.items() if group_of(row) == group), key=slot_order)
            if verdict.level == "group":
                slots = concerned(verdict.strategy, failed.slot, slots)
            found += [rows[slot] for slot in slots]
        return found

    def _groups(self) -> list[str]:
        """Return the app's groups in the order in which they start."""
        stages = self._registry.app.order.stages
        return [*(part.name or SHARED for stage in stages for part in stage if part.kind == "group"), DEDICATED]

    # -- what follows ------------------------------------------------------------------------------

    async def _give_up(self, rows: Iterable[HostRow], because: str) -> None:
        current = self._registry.current.hosts
        standing = [row for row in rows if row.incarnation in current]
        if standing:
            numbers = [row.incarnation for row in standing]
            await self._registry.gone(numbers, replace=False, because=f"its supervision rules: {because}")
            await self._end_dedicated(standing)

    async def _stop(self, rows: Sequence[HostRow], because: str) -> None:
        registry = self._registry
        for row in rows:
            self.stopped[row.slot] = registry.refused[row.slot] = f"its supervision rules say stop, after: {because}"
            self.replacing.discard(row.slot)
            self._log.error("host %s is not started again: %s", row.slot, self.stopped[row.slot])
        await registry.patiently(lambda: registry.note(STOPPED, self.stopped))

    async def _start(self, rows: Sequence[HostRow], after_s: float) -> None:
        """Start hosts anew after a pause, those of one group side by side, one group after the other."""
        await asyncio.sleep(after_s)  # noqa: TID251 - the pause that is declared
        groups: dict[str, list[HostRow]] = {}
        for row in rows:
            groups.setdefault(group_of(row), []).append(row)
        for several in groups.values():
            failed = await asyncio.gather(*map(self._start_one, several))
            for row, error in zip(several, failed, strict=True):
                if error is not None:
                    await self._judge(row, kinds_of(error), described(error))

    async def _start_one(self, row: HostRow) -> Exception | None:
        """Start a host in the place of one; return why that failed, for which it stays among those that are replaced."""
        hosts = self._registry.hosts
        try:
            if row.dedicated:
                await hosts.dedicate(row.dedicated)
            else:
                await hosts.replace(row)
        except Exception as error:  # noqa: BLE001 - whatever keeps it from starting, the rules decide what follows
            self._log.warning("host %s could not be replaced: %r", row.slot, error)
            return error
        self.replacing.discard(row.slot)
        return None

    async def halt(self, because: str) -> None:
        """Stop the app: everything closed in order and written, no host left, until somebody starts it anew."""
        registry = self._registry
        if self.halted:
            return
        self.halted = f"App {registry.app.name} was stopped by its supervision rules, after: {because}"
        self._log.critical("%s", self.halted)
        await registry.patiently(lambda: registry.note(HALTED, self.halted))
        await self.end_all()

    async def end_all(self) -> None:
        """End all that stands of an app that is stopped; a former leader may not have come to the end of that."""
        registry = self._registry
        await stop_in_order(registry)
        rows = list(registry.current.hosts.values())
        await registry.gone([row.incarnation for row in rows], replace=False, because=self.halted)
        await self._end_dedicated(rows)
        await registry.announce()

    async def _end_dedicated(self, rows: Iterable[HostRow]) -> None:
        """End the processes of dedicated entities, which outlive that they were given up: Ray restarts them."""
        await asyncio.gather(*(self._registry.hosts.end(row) for row in rows if row.dedicated))


def group_of(row: HostRow) -> str:
    """Return what rules call a host's group."""
    return DEDICATED if row.dedicated else row.group or SHARED
