"""Starting and stopping in order, for one registry: ``supervision.order`` says in which.

What has become ready stays so until the app is stopped: it is written down for whoever leads next, and hosts read it as they
start. What fails later is supervision's business, and closes nothing that depends on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from remora.errors import Fenced, RemoraError, StartError, Unavailable
from remora.runtime.readiness import COME_BACK_S, OPENED, STOPPING, Progress
from remora.sharding.hashing import group_of
from remora.supervision.order import Part, group_part, type_part
from remora.why import how_long

if TYPE_CHECKING:
    from remora.runtime.registry import Registry
    from remora.sharding.table import HostRow

TOGETHER_S = 5.0
"""How long hosts that are up wait for those started with them, in seconds, before they get shards without them: checks may
hold one up for ever, and what comes later is evened out."""
LOOK_MIN_S = 0.02
LOOK_MAX_S = 0.5
"""Shortest and longest pause between looks at what is ready, while something is waited for, in seconds."""
QUIET_S = 10.0
"""Longest pause between looks while nothing is, in seconds; a change of the table ends it."""


class OrderedHosts(Protocol):
    """What an order asks of those who run hosts; see ``runtime.registry.Hosts``."""

    async def missing(self, group: str) -> list[str]:
        """Return the slots of a group that are still to have a host, without those that cannot where others stand."""
        ...

    async def start_missing(self) -> None:
        """Start the hosts that there are to be and that do not run, of groups that may start."""
        ...

    async def open_types(self, host: HostRow, progress: Progress) -> dict[str, str]:
        """Tell a host what it may serve; return what it waits for, by type: see ``runtime.readiness.Gate.follow``."""
        ...

    async def close_types(self, host: HostRow, types: Sequence[str]) -> None:
        """Have a host serve types no more; returns when what they did is written."""
        ...

    async def close_host(self, host: HostRow) -> None:
        """Have a host write what it has and serve nothing any more; its process may go on."""
        ...


class Startup:
    """What of one app is ready, and what is waited for.

    Args:
        registry: The app's registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.order = registry.app.order
        self.reached: set[Part] = set()
        """What has become ready since the app started."""
        self.stopping = self.stopped = False
        """Whether the app is being stopped, and whether that has come to its end."""
        self._begun = False
        self._waits: dict[Part, str] = {}
        self._since_s: dict[str, float] = {}
        self._slots: dict[str, str] = {}
        self._told: set[int] = set()
        """Hosts that serve all that is open and theirs."""
        self._filled: set[str] = set()
        """Groups whose hosts were begun to be started."""
        self._failed: RemoraError | None = None
        self._ended = asyncio.Event()
        """Set once all is ready, or something cannot be started."""
        self._log = logging.getLogger("remora.registry")

    async def recall(self) -> None:
        """Read what is open since the former registry, if it left hosts: whoever asks this one next is told no less."""
        if not self.order.declared or not self._registry.current.hosts:
            return
        keys = await self._registry.noted(OPENED, list[str], [])
        self.reached = {part for part in self.order.after if part.key in keys}

    async def begin(self, *, fresh: bool) -> None:
        """Go on where the former registry was, and see to the rest beside this.

        Args:
            fresh: Whether no host stands: the app starts from the beginning.
        """
        if not self.order.declared:
            return
        registry = self._registry
        if fresh:
            self.reached = set()
            await self._write(())
        self._since_s = dict.fromkeys((part.key for part in self.order.after), registry.clock.monotonic_s())
        self._begun = True
        registry.spawn(self._run())

    def may_start(self, group: str) -> bool:
        """Return whether hosts of a group may be started."""
        if self.stopping or not self.order.declared:
            return not self.stopping
        part = group_part(group)
        return self._begun and (part in self.reached or not self.order.missing(part, self.reached))

    def is_open(self, name: str) -> bool:
        """Return whether a type is served."""
        return not self.stopping and (name not in self.order.gated or type_part(name) in self.reached)

    def admit(self, name: str) -> None:
        """Refuse to place an entity whose type is not ready.

        Raises:
            Unavailable: It is not.
        """
        if not self.is_open(name):
            msg = f"{name} is not served yet, it waits for: {self.waits_for(type_part(name))}."
            raise Unavailable(msg, retry_after_s=COME_BACK_S)

    async def ready(self) -> None:
        """Wait, no longer than ``Settings.ready_within_s``, until all is ready.

        Raises:
            StartError: It is not, or a host could not be started; the message says what is waited for.
        """
        if not self.order.declared or self.stopping:
            return
        within_s = self._registry.settings.ready_within_s
        try:
            async with asyncio.timeout(within_s):
                await self._ended.wait()
        except TimeoutError:
            waits = "; ".join(f"{one['what']} waits for {one['waits_for']}" for one in self.shown())
            msg = (
                f"{self._registry.app.name} is not ready after {how_long(within_s)}: {waits}. "
                "Mend that, or give it longer with Settings.ready_within_s."
            )
            raise StartError(msg) from None
        if self._failed is not None:
            self._ended.clear()  # it is tried again, and may become ready
            raise self._failed

    # -- what is shown -------------------------------------------------------------------------------

    def held_up(self, slot: str, waits_for: str) -> None:
        """Note what a host waits for before it joins; nothing any more if empty."""
        if self._slots.get(slot, "") == waits_for:
            return
        if waits_for:
            self._slots[slot] = waits_for
            self._since_s.setdefault(slot, self._registry.clock.monotonic_s())
            self._log.info("host %s waits for %s", slot, waits_for)
        else:
            del self._slots[slot]
            self._since_s.pop(slot, None)

    def waits_for(self, part: Part) -> str:
        """Return what a part waits for that is not ready."""
        if self.stopping:
            return STOPPING
        missing = self.order.missing(part, self.reached)
        return ", ".join(map(str, missing)) if missing else self._waits.get(part) or "its hosts to be asked"

    def shown(self) -> list[dict[str, Any]]:
        """Return what is waited for, in the order in which it starts: ``what``, ``waits_for``, ``for_s``."""
        if not self.order.declared or self.stopping:
            return []
        parts = [part for stage in self.order.stages for part in stage if part not in self.reached]
        found = [(str(part), self.waits_for(part), self._since_s.get(part.key)) for part in parts]
        found += [(f"host {slot}", text, self._since_s.get(slot)) for slot, text in sorted(self._slots.items())]
        now_s = self._registry.clock.monotonic_s()
        return [
            {"what": what, "waits_for": text, "for_s": 0.0 if since_s is None else round(now_s - since_s, 1)}
            for what, text, since_s in found
        ]

    def shard_waits_for(self, shard: str) -> str:
        """Return what the owner of a shard waits for before there is one; empty if nothing is known of that."""
        if not self.order.declared:
            return ""
        kind, _, ident = shard.partition("/")
        part = type_part(kind) if ident else group_part(group_of(shard))
        if part in self.order.after and part not in self.reached and not (ident and self.is_open(kind)):
            return self.waits_for(part)
        return next((text for slot, text in self._slots.items() if ident and slot.endswith(f"/{shard}")), "")

    # -- becoming ready ------------------------------------------------------------------------------

    async def _run(self) -> None:
        """See to it that what may become ready does, and that every host knows what is open, until stopped."""
        registry, pause_s = self._registry, LOOK_MIN_S
        while not self.stopping:
            version, before = registry.current.version, len(self.reached)
            try:
                await self._look()
            except Fenced:
                return  # another one leads, and reads what was reached so far
            except RemoraError as error:
                self._log.warning("what is ready was not found out: %s", error)
            if len(self.reached) == len(self.order.after) and self._unaware() == []:
                self._failed = None
                self._ended.set()
                if registry.current.version == version:
                    await registry.changed(within_s=QUIET_S)
                continue
            pause_s = LOOK_MIN_S if len(self.reached) > before else min(pause_s * 2, LOOK_MAX_S)
            await asyncio.sleep(pause_s)  # noqa: TID251 - growing, bounded pause between looks

    async def _look(self) -> None:
        """Look once at all that may become ready now."""
        self._fill()
        self._told &= self._registry.current.hosts.keys()
        due = self.order.due(self.reached)
        left = await self._ask_hosts(
            [part.name for part in due if part.kind == "type" and part.name in self.order.gated]
        )
        reached = []
        for part in due:
            text = await self._group_waits(part.name) if part.kind == "group" else self._type_waits(part.name, left)
            if not text:
                reached.append(part)
            elif self._waits.get(part) != text:
                self._waits[part] = text
                self._log.info("%s waits for %s", part, text)
        if reached and not self.stopping:
            # Written down before anybody is told: a host that reads it as it joins is told no more.
            await self._write({*self.reached, *reached})
            self.reached.update(reached)
            self._told.clear()
            self._log.info("ready: %s", ", ".join(map(str, reached)))

    def _fill(self) -> None:
        groups = {part.name for part in self.order.after if part.kind == "group" and self.may_start(part.name)}
        if groups - self._filled:
            self._filled |= groups
            self._registry.spawn(self._start_missing())

    async def _start_missing(self) -> None:
        try:
            await self._registry.hosts.start_missing()
        except RemoraError as error:
            self._log.warning("hosts were not started: %s", error)
            self._failed = self._failed or error
            self._ended.set()

    async def _write(self, parts: Iterable[Part]) -> None:
        keys = sorted(part.key for part in parts)
        await self._registry.patiently(lambda: self._registry.note(OPENED, keys))

    def _gated_on(self, row: HostRow) -> list[str]:
        return self.order.gated_on(row.group, row.dedicated.partition("/")[0])

    def _unaware(self) -> list[HostRow]:
        """Return the hosts that do not serve yet, as far as is known, all that is open and theirs."""
        hosts = self._registry.current.hosts.items()
        return [row for number, row in hosts if number not in self._told and self._gated_on(row)]

    async def _ask_hosts(self, due: list[str]) -> dict[str, dict[str, str]]:
        """Tell hosts what is open and due; return what is left to wait for: type → host → what."""
        unaware = {row.incarnation for row in self._unaware()}
        rows = [
            row for number, row in self._registry.current.hosts.items()
            if number in unaware or not set(due).isdisjoint(self._gated_on(row))
        ]  # fmt: skip
        left: dict[str, dict[str, str]] = {}
        for row, said in zip(rows, await asyncio.gather(*(self._ask(row, due) for row in rows)), strict=True):
            for name, text in said.items():
                left.setdefault(name, {})[row.name] = text
        return left

    async def _ask(self, row: HostRow, due: list[str]) -> dict[str, str]:
        opened = tuple(name for name in self.order.gated if self.is_open(name))
        waits = {
            name: self.waits_for(type_part(name))
            for name in self._gated_on(row)
            if name not in opened and name not in due
        }
        try:
            said = await self._registry.hosts.open_types(row, Progress(opened, tuple(due), waits))
        except RemoraError as error:
            return dict.fromkeys(due, error.message)
        if said.keys().isdisjoint(opened):
            self._told.add(row.incarnation)
        return said

    async def _group_waits(self, group: str) -> str:
        """Return which hosts of a group are waited for."""
        missing = await self._registry.hosts.missing(group)
        if missing:
            return ", ".join(
                f"host {slot}" + (f" ({self._slots[slot]})" if slot in self._slots else "") for slot in missing
            )
        hosts = self._registry.current.hosts.values()
        return "" if any(row.group == group and not row.dedicated for row in hosts) else "a host"

    def _type_waits(self, name: str, left: dict[str, dict[str, str]]) -> str:
        """Return what a type waits for on which hosts; entities with hosts of their own wait as each is started."""
        if name not in self.order.gated:
            return ""
        group = self.order.gated[name]
        hosts = self._registry.current.hosts.values()
        if group is not None and not any(row.group == group and not row.dedicated for row in hosts):
            return "a host"
        return "; ".join(f"{text} on {host}" for host, text in sorted(left.get(name, {}).items()))


async def as_they_start(
    starting: Iterable[asyncio.Task[HostRow]], within_s: float | None
) -> AsyncIterator[list[HostRow]]:
    """Yield hosts as they are up, those together that follow the first of them soon.

    Args:
        starting: Tasks that start hosts; those that still run are cancelled if nobody waits for them any more.
        within_s: How long the others are waited for after the first; None: for all of them.

    Raises:
        Exception: What the first of those that failed raised, after all others are up.
    """
    left, failed = set(starting), list[BaseException]()
    try:
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            if left:
                more, left = await asyncio.wait(left, timeout=within_s)
                done |= more
            errors = [error for task in done if (error := task.exception()) is not None]
            failed += errors
            if rows := [task.result() for task in done if task.exception() is None]:
                yield rows
    finally:
        for task in left:
            task.cancel()
    if failed:
        raise failed[0]


async def stop_in_order(registry: Registry) -> list[str]:
    """Close an app's types and hosts in the reverse of the order in which they start, everything written.

    Handlers that run may end and commands get ``Unavailable`` from then on. No longer than ``Settings.stop_s``; what is
    left is for the caller to end, as is everything that was closed: no process ends by this.

    Args:
        registry: The registry that leads; it starts, moves and gives up nothing any more.

    Returns:
        What could not be closed, in words; empty if all was.
    """
    startup, log = registry.startup, logging.getLogger("remora.registry")
    if startup.stopped:
        return []
    startup.stopping = True
    registry.detection.acting = False
    open_still = list(reversed(startup.order.stages))
    failed: list[str] = []
    try:
        async with asyncio.timeout(registry.settings.stop_s):
            while open_still:
                failed += await _close_stage(registry, open_still[0])
                log.info("stopped: %s", ", ".join(map(str, open_still[0])))
                del open_still[0]
    except TimeoutError:
        failed += [f"{part}: no time was left" for stage in open_still for part in stage]
    startup.stopped = True
    for one in failed:
        log.warning("not stopped cleanly: %s", one)
    return failed


async def _close_stage(registry: Registry, stage: Iterable[Part]) -> list[str]:
    """Close what lives on hosts before the hosts themselves."""
    types = [part.name for part in stage if part.kind == "type"]
    groups = {part.name for part in stage if part.kind == "group"}
    rows = list(registry.current.hosts.values())
    living = {row.incarnation: _living(registry, row, types) for row in rows}
    closing = [registry.hosts.close_types(row, living[row.incarnation]) for row in rows if living[row.incarnation]]
    failed = await _all(closing)
    ending = [row for row in rows if (living[row.incarnation] if row.dedicated else row.group in groups)]
    return failed + await _all([registry.hosts.close_host(row) for row in ending])


def _living(registry: Registry, row: HostRow, types: Iterable[str]) -> list[str]:
    """Return which of some types live on a host."""
    if row.dedicated:
        return [name for name in types if name == row.dedicated.partition("/")[0]]
    specs = registry.app.specs
    return [name for name in types if not specs[name].dedicated and specs[name].group == row.group]


async def _all(work: Iterable[Any]) -> list[str]:
    done = await asyncio.gather(*work, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException) and not isinstance(one, RemoraError):
            raise one
    return [one.message for one in done if isinstance(one, RemoraError)]
