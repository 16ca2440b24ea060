"""What is held back or apart because it keeps taking its process down: found by the registry, kept from running by hosts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from remora.errors import Quarantined, RemoraError, UnknownEntity
from remora.journal import FailureRow
from remora.lifecycle import Phase
from remora.process import machine_identity
from remora.supervision.blame import CRASHES_KEPT, Crash, Quarantine, judged
from remora.supervision.failure import Failure

if TYPE_CHECKING:
    from remora.runtime.blackbox import LastWords
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host
    from remora.runtime.registry import Registry
    from remora.sharding.table import HostRow

CRASHES, QUARANTINED = "crashes", "quarantined"
"""Notes of the registry in the store."""
CRASHED = "remora.Crashed"
"""The kind that a crash is noted under, among failures."""
HEARD_S = 0.2
"""Longest that shards wait, before they are given to others, for what took their host down to be found, in seconds: where
the registry, or another host, is on its machine that takes milliseconds. Elsewhere a process has to start there, and no
shard waits for that: it is found out later, and others may meet it meanwhile."""
TOLD_S = 2.0
"""Longest that they wait, where something was found, for it to be written down and told to the hosts that get them, in
seconds: given to them before, what took down one host would take down the next."""

AGAIN_S = 0.5
"""Seconds before a host that could not be told is told again."""

_encode = msgspec.json.Encoder().encode
_decode_crashes = msgspec.json.Decoder(list[Crash]).decode
_decode_quarantined = msgspec.json.Decoder(list[Quarantine]).decode
Key = tuple[str, str]
"""(entity, command, or empty for all of them)"""


def _named(entity: str, command: str) -> str:
    return f"{entity}.{command}" if command else entity


class Inquest:
    """Finds what took hosts down, for one registry.

    Args:
        registry: Whose hosts these are.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.crashes: list[Crash] = []
        self.held: dict[Key, Quarantine] = {}
        self.turn = asyncio.Lock()
        """Of who changes what is held, and of hosts that join: none of them may miss a change."""
        self._begun = asyncio.Event()
        self.ever_held = False
        """Whether anything has been, so that a host which read that as it started may have missed what came next."""
        self.found = 0
        """Crashes with a culprit, so far."""
        self._log = logging.getLogger("remora.registry")

    async def begin(self) -> None:
        """Read what earlier leaders noted."""
        store = self._registry.store
        crashes, held = await store.note(CRASHES), await store.note(QUARANTINED)
        self.crashes = [] if crashes is None else _decode_crashes(crashes)
        self.held = {(one.entity, one.command): one for one in ([] if held is None else _decode_quarantined(held))}
        self.ever_held = bool(self.held)
        self._begun.set()

    async def hear(self, rows: list[HostRow]) -> None:
        """Find what took hosts down, of those at hand before their shards are given away; of others a little later."""
        doubted, here = self._registry.detection.doubted, machine_identity()
        near = {row.incarnation for row in rows if self._registry.hosts.near(row)}
        found = {self._registry.spawn(self._one(row, event := asyncio.Event())): (row, event) for row in rows}
        # A node that may be gone itself will not say anything in that time: its shards do not wait for it.
        hearing = [
            task for task, (row, _) in found.items()
            if row.incarnation in near and (row.machine == here or row.node not in doubted)
        ]  # fmt: skip
        if not hearing:
            return
        _, slow = await asyncio.wait(hearing, timeout=HEARD_S)
        judging = [task for task in slow if found[task][1].is_set()]
        if judging:
            await asyncio.wait(judging, timeout=TOLD_S)

    async def _one(self, row: HostRow, found: asyncio.Event) -> None:
        words = await self._registry.hosts.last_words(row)
        if words is None or not words.cause:
            return  # ended from outside: whatever ran in it is not to blame
        if words.culprit is None:
            self._log.error("host %s went down by itself (%s), and ran nothing of an entity's", row.name, words.cause)
            return
        found.set()
        await self._begun.wait()  # what earlier leaders noted is read
        async with self.turn:
            await self._blame(
                row, words, Crash(*words.culprit, words.cause, row.name, row.incarnation, self._registry.clock.now_ms())
            )

    async def _blame(self, row: HostRow, words: LastWords, crash: Crash) -> None:
        registry = self._registry
        if any(one.incarnation == crash.incarnation for one in self.crashes):
            return  # whoever watched it and whoever called it have both reported it
        self.found += 1
        self._log.error("host %s was taken down by %s: %s", row.name, _named(crash.entity, crash.command), words.cause)
        held = judged(self.crashes, crash, registry.app.supervision.crashes)
        crashes = [*self.crashes, crash][-CRASHES_KEPT:]
        # First in the store, then in memory: whoever asks again after a failure finds what there was.
        await registry.patiently(lambda: registry.note(CRASHES, crashes))
        self.crashes = crashes
        before = self.held.get((crash.entity, ""))
        if held is not None and (
            before is None or before.until_ms
        ):  # what is apart stays so until somebody releases it
            pause = "it is held back for a while" if held.until_ms else "it is in quarantine"
            self._log.error("%s: %s", held.because, pause)
            others = {key: one for key, one in self.held.items() if one.holds(crash.at_ms)}
            await self._hold({**others, (held.entity, held.command): held})
        noted = _noted(crash, row, held, supervised=crash.entity.partition("/")[0] in registry.app.supervisors)
        await registry.patiently(lambda: registry.store.add_failures([noted]))

    def listed(self) -> list[Quarantine]:
        """Return what is held back or apart now, the latest first."""
        now_ms = self._registry.clock.now_ms()
        return sorted((one for one in self.held.values() if one.holds(now_ms)), key=lambda one: -one.since_ms)

    async def release(self, entity: str, command: str) -> Quarantine:
        """Let something run again; the crashes that it was held for are forgotten.

        Raises:
            StoreUnavailable: It could not be written down, and nothing has changed.
            UnknownEntity: It is not in quarantine.
        """
        async with self.turn:
            held = self.held.get((entity, command))
            if held is None:
                known = ", ".join(_named(one.entity, one.command) for one in self.listed())
                msg = f"{_named(entity, command)} is not in quarantine; in quarantine: {known or 'nothing'}."
                raise UnknownEntity(msg)
            crashes = [one for one in self.crashes if one.entity != entity or (command and one.command != command)]
            await self._registry.note(CRASHES, crashes)
            self.crashes = crashes
            await self._hold({key: one for key, one in self.held.items() if key != (entity, command)})
        return held

    async def _hold(self, held: dict[Key, Quarantine]) -> None:
        registry = self._registry
        await registry.patiently(lambda: registry.note(QUARANTINED, list(held.values())))
        self.held, self.ever_held = held, True
        await self.tell(registry.current.hosts.values())

    async def tell(self, rows: Iterable[HostRow]) -> None:
        """Have hosts read what is in quarantine."""
        telling = [self._registry.spawn(self._tell_or_retry(row)) for row in rows]
        if telling:
            await asyncio.wait(telling, timeout=TOLD_S)  # the others go on being told

    async def _tell_or_retry(self, row: HostRow) -> None:
        if not await self._told(row):
            self._registry.spawn(self._tell_again(row))

    async def _told(self, row: HostRow) -> bool:
        try:
            await self._registry.hosts.read_quarantine(row)
        except RemoraError as error:
            self._log.info("host %s was not told of a quarantine: %s", row.name, error)
            return False
        return True

    async def _tell_again(self, row: HostRow) -> None:
        """Again and again as long as there is that host: its successor reads it as it starts."""
        while True:
            await asyncio.sleep(AGAIN_S)  # noqa: TID251 - a pause before the next try
            if row.incarnation not in self._registry.current.hosts or await self._told(row):
                return


def _noted(crash: Crash, row: HostRow, held: Quarantine | None, *, supervised: bool) -> FailureRow:
    apart = held is not None and not held.until_ms
    value = Failure(
        crash.entity, crash.command, CRASHED, crash.cause, (CRASHED,), directive="quarantine" if apart else "restart",
        after_s=(held.until_ms - held.since_ms) / 1000 if held is not None and held.until_ms else 0.0,
        count=1 if held is None else held.crashes, host=row.name, node=row.node, incarnation=row.incarnation,
        at_ms=crash.at_ms,
    )  # fmt: skip
    text = _encode(value).decode()
    return FailureRow(crash.entity, crash.command, CRASHED, crash.at_ms, crash.at_ms, 1, text, int(supervised))


class Held:
    """What one host may not run, or not yet.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.entities: dict[str, Quarantine] = {}
        self.commands: dict[Key, Quarantine] = {}

    async def read(self) -> None:
        """Read it from the store.

        Raises:
            StoreUnavailable: It does not answer; what was known stays so, and whoever asked for this asks again.
        """
        host = self._host
        text = await host.store.note(QUARANTINED)
        held = [] if text is None else _decode_quarantined(text)
        before = self.entities
        self.entities = {one.entity: one for one in held if not one.command}
        self.commands = {(one.entity, one.command): one for one in held if one.command}
        for key in self.entities.keys() | before.keys():
            cell = host.cells.get(key)
            if cell is None:
                continue
            if key in self.entities:
                self.keep(cell)
            elif cell.phase is Phase.STOPPED and isinstance(cell.reason, Quarantined):
                host.ownership.leave([cell], f"{key} was released from quarantine.")  # who asks again activates it

    def keep(self, cell: Cell) -> bool:
        """Hold a cell back or apart if it is to be; return whether it is."""
        held = self.entities.get(cell.key)
        now_ms = self._host.clock.now_ms()
        if held is None or not held.holds(now_ms):
            return False
        if held.until_ms:
            cell.restart((held.until_ms - now_ms) / 1000, held.because)
        else:
            cell.stop(refusal(held))
        return True

    def check(self, key: str, command: str) -> None:
        """Refuse a command that is in quarantine.

        Raises:
            Quarantined: It is.
        """
        held = self.commands.get((key, command))
        if held is not None:
            raise refusal(held)


def refusal(held: Quarantine) -> Quarantined:
    """Return what callers of what is in quarantine are told."""
    what = _named(held.entity, held.command)
    msg = f"{what} is in quarantine: {held.because}. Release it with `remora quarantine release` once it is mended."
    return Quarantined(msg, entity=held.entity)
