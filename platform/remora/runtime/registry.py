"""The sharding registry at work: carries out the plans of ``sharding.registry``.

It keeps the table in the store, watches hosts in two ways (whoever runs them reports an exit;
their leases in the store), and publishes the table to clients by long poll. The data path never
needs it alive: clients keep their table, hosts keep their shards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from remora.app import App
from remora.clock import Clock
from remora.errors import RemoraError, StoreUnavailable, UnknownEntity
from remora.journal import Store
from remora.sharding import registry as decisions
from remora.sharding.registry import Plan
from remora.sharding.table import HostRow, Table

POLL_S = 10.0
"""Seconds a long poll for the table is kept open."""
BACKOFF_MAX_S = 5.0
"""Longest pause before a host that keeps failing is started again, in seconds."""

PATIENCE_MIN_S = 0.05
PATIENCE_MAX_S = 1.0
"""Shortest and longest pause between tries while the store is away, in seconds."""
PARKED_SHOWN = 50
"""Parked entries that a status lists."""
TELL_S = 1.0
"""Longest the table waits for hosts to be told of their shards, in seconds."""
FAILURE_WINDOW_S = 60.0
"""Failures of a host's slot within this time make the next start wait longer."""


class Hosts(Protocol):
    """How the registry reaches and runs hosts; Ray or this process behind it."""

    async def own(self, host: HostRow, shards: dict[str, int]) -> None:
        """Tell a host which shards it owns now."""
        ...

    async def release(self, host: HostRow, targets: Mapping[str, str]) -> None:
        """Have a host give up shards (→ name of the host that gets each); returns when the store knows."""
        ...

    async def replace(self, host: HostRow) -> None:
        """Start a host in the place of one that is gone."""
        ...

    async def dedicate(self, key: str) -> None:
        """Start the actor of a dedicated entity, if it does not run."""
        ...

    async def kill(self, host: HostRow) -> bool:
        """Make sure a host's process runs no more; return whether that is proven."""
        ...


class Registry:
    """One app's registry.

    Args:
        app: The app.
        store: The app's store, opened.
        hosts: Reaches and runs hosts.
        clock: Time.
    """

    def __init__(self, app: App, store: Store, hosts: Hosts, clock: Clock) -> None:
        self.app = app
        self._store = store
        self._hosts = hosts
        self._clock = clock
        self._settings = app.settings
        self._term = 0
        self._table = Table()
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures: dict[str, list[float]] = {}
        self._renewed: dict[int, tuple[float, float]] = {}
        """incarnation → (renewal last seen, when it was seen to change)"""
        self._leases_read_s = 0.0
        self._ending: set[int] = set()
        """Hosts whose lease is over and whose shards are being given to others."""
        self._untold: set[int] = set()
        """Hosts that could not be told of shards they own."""
        self._log = logging.getLogger("remora.registry")

    @property
    def term(self) -> int:
        """The leader term this registry writes under."""
        return self._term

    def unplaced(self) -> list[str]:
        """Return dedicated entities that have a shard row and no host."""
        return decisions.unplaced_dedicated(self._table)

    @property
    def current(self) -> Table:
        """The table now."""
        return self._table

    async def start(self) -> Table:
        """Lead: begin a new term and read the table; return it."""
        async with self._lock:
            self._table = await self._store.read_table()
            # Watching begins before leading: a host that is frozen in a commit keeps everybody from writing.
            self._spawn(self._watch_leases())
            self._term = await self._store.lead()
            self._table = await self._store.read_table()
        self._spawn(self._rebalance())
        return self._table

    async def close(self) -> None:
        """Stop."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - any coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("work of the registry failed", exc_info=task.exception())

    # -- what happens to hosts ---------------------------------------------------------------------

    async def joined(self, hosts: Sequence[HostRow]) -> None:
        """Take in hosts that entered the store; those given together share evenly."""
        async with self._lock:
            await self._change(lambda table: decisions.joined(table, hosts, self._settings.shards))
        for host in hosts:
            self._log.info("host %s joined as incarnation %d", host.name, host.incarnation)

    async def gone(self, incarnations: Sequence[int], *, replace: bool = True) -> None:
        """Hosts are proven gone: their shards go to survivors at once, then they are replaced."""
        async with self._lock:
            # Told of by an incarnation that the store has ended meanwhile, a host is gone under its latest one.
            names = {row.name for number in incarnations if (row := self._table.hosts.get(number)) is not None}

            def without(table: Table) -> Plan:
                here = [number for number, row in table.hosts.items() if number in incarnations or row.name in names]
                return decisions.gone(table, here, self._settings.shards)

            await self._change(without, replace=replace)

    async def refresh(self) -> None:
        """Read the table again: a host took a new incarnation in the store, or released shards."""
        async with self._lock:
            await self._change(lambda table: decisions.settled(table, self._settings.shards))

    async def _change(self, decide: Callable[[Table], Plan], *, replace: bool = True) -> None:
        """Read the table, decide, write; from the start again until the store has confirmed that.

        Hosts that leave the table by that are ended for certain and replaced: those that the plan
        fences, and those that somebody else has fenced in the store.

        What was decided on is never written twice: in between a host may have gone on under a new
        incarnation, and an answer that was lost may have been a yes.
        """
        pause = PATIENCE_MIN_S
        while True:
            try:
                plan = decide(decisions.known(self._table, await self._store.read_table()))
                if (plan.table.hosts, plan.table.shards) == (self._table.hosts, self._table.shards) and not plan.fence:
                    return
                await self._store.write_table(self._term, plan.table.version, plan.fence, plan.assign)
                break
            except StoreUnavailable as error:
                self._log.warning("the registry waits for the store: %s", error)
                await asyncio.sleep(pause)  # noqa: TID251 - growing, bounded pause while the store is away
                pause = min(pause * 2, PATIENCE_MAX_S)
        news = decisions.news(self._table, plan.table)
        left = decisions.left(self._table, plan.table)
        self._table = plan.table
        told = [self._spawn(self._tell(plan.table.hosts[number], shards)) for number, shards in news.items()]
        if told:
            # One that does not listen must not keep the others from being known.
            await asyncio.wait(told, timeout=TELL_S)
        self._changed.set()
        self._changed = asyncio.Event()
        for row in left:
            self._log.warning("host %s (incarnation %d) is gone", row.name, row.incarnation)
            self._renewed.pop(row.incarnation, None)
            await self._hosts.kill(row)
            if replace:
                self._spawn(self._replace(row))

    async def _tell(self, host: HostRow, shards: dict[str, int]) -> None:
        try:
            await self._hosts.own(host, shards)
        except RemoraError as error:
            # It died in between: its exit will be reported, and these shards move on then.
            self._log.warning("host %s could not be told of %d shards: %s", host.name, len(shards), error)
            self._untold.add(host.incarnation)

    async def _replace(self, row: HostRow) -> None:
        while True:
            now_s = self._clock.monotonic_s()
            recent = [at for at in self._failures.get(row.slot, []) if now_s - at < FAILURE_WINDOW_S]
            self._failures[row.slot] = [*recent, now_s]
            if recent:
                pause = min(0.1 * 2 ** len(recent), BACKOFF_MAX_S)
                await asyncio.sleep(pause)  # noqa: TID251 - growing, bounded backoff of a host that keeps failing
            try:
                if row.dedicated:
                    await self._hosts.dedicate(row.dedicated)
                else:
                    await self._hosts.replace(row)
            except RemoraError as error:
                self._log.warning("host %s could not be replaced: %s", row.slot, error)
            else:
                return

    async def place(self, key: str) -> None:
        """Give a dedicated entity a shard row and an actor, unless it has them.

        Raises:
            UnknownEntity: The app has no dedicated type of that name.
        """
        kind = key.partition("/")[0]
        if not self.app.spec(kind).dedicated:
            msg = f"{kind!r} is not dedicated: its entities live in shared hosts."
            raise UnknownEntity(msg)
        async with self._lock:
            await self._change(lambda table: decisions.want_dedicated(table, key))
        row = self._table.shards[key]
        if row.owner not in self._table.hosts:
            await self._hosts.dedicate(key)

    # -- the table ---------------------------------------------------------------------------------

    async def table(self, after: int) -> Table:
        """Return the table as soon as it is newer than ``after``, or after ten seconds as it is."""
        if self._table.version <= after:
            changed = self._changed
            try:
                async with asyncio.timeout(POLL_S):
                    await changed.wait()
            except TimeoutError:
                return self._table
        return self._table

    # -- watching ------------------------------------------------------------------------------------

    async def _watch_leases(self) -> None:
        ttl = self._settings.lease_ttl_s
        while True:
            await asyncio.sleep(ttl / 4)  # noqa: TID251 - the period of looking at leases
            try:
                leases = await self._store.leases()
            except StoreUnavailable as error:
                self._log.warning("leases cannot be read: %s", error)
                continue
            for incarnation in self.leases_over(leases, self._clock.monotonic_s()):
                row = self._table.hosts.get(incarnation)
                if row is not None and await self._hosts.kill(row) and incarnation not in self._ending:
                    self._ending.add(incarnation)
                    self._spawn(self._end(incarnation))

    async def _end(self, incarnation: int) -> None:
        # Beside the watch, which goes on: this write may have to wait until another frozen host is killed.
        try:
            await self.gone([incarnation])
        except RemoraError as error:
            self._log.warning("host %s cannot be given up yet: %s", incarnation, error)
        finally:
            self._ending.discard(incarnation)

    def leases_over(self, leases: dict[int, float], now_s: float) -> list[int]:
        """Return hosts whose lease is over by what this registry itself has seen.

        A gap in the registry's own view of the store starts the count anew: it may be its own fault.
        """
        ttl = self._settings.lease_ttl_s
        gap = now_s - self._leases_read_s > ttl / 2
        self._leases_read_s = now_s
        over = []
        for incarnation in self._table.hosts:
            renewed = leases.get(incarnation, 0.0)
            seen, since = self._renewed.get(incarnation, (-1.0, now_s))
            if renewed != seen or gap:
                self._renewed[incarnation] = (renewed, now_s)
            elif now_s - since > ttl:
                over.append(incarnation)
        return over

    async def _rebalance(self) -> None:
        while True:
            await asyncio.sleep(self._settings.rebalance_s)  # noqa: TID251 - the period of rebalancing
            try:
                await self.refresh()  # finds shards whose hand-over was cut short
                await self._tell_again()
                moves = decisions.moves(self._table, self._settings.rebalance_max)
                if moves:
                    await self._move(moves)
            except RemoraError as error:
                self._log.warning("a rebalance round was not finished: %s", error)

    async def _tell_again(self) -> None:
        """Tell hosts all that is theirs that could not be told before."""
        again, self._untold = self._untold, set()
        for incarnation in again & self._table.hosts.keys():
            owned = {name: self._table.shards[name].epoch for name in self._table.owned_by(incarnation)}
            await self._tell(self._table.hosts[incarnation], owned)

    async def _move(self, moves: dict[str, tuple[int, int]]) -> None:
        for source in sorted({source for source, _ in moves.values()}):
            host = self._table.hosts.get(source)
            if host is None:
                continue
            targets = {name: target for name, (start, target) in moves.items() if start == source}
            # Few at a time: nobody serves them between the first that is let go and the last that is taken.
            for first in range(0, len(targets), self._settings.hand_off_shards):
                group = list(targets)[first : first + self._settings.hand_off_shards]
                hosts = self._table.hosts
                names = {name: hosts[targets[name]].name if targets[name] in hosts else "" for name in group}
                # Not under the lock: a host that is slow to let go must not hold up the failover of another.
                await self._hosts.release(host, names)
                async with self._lock:
                    await self._change(partial(decisions.settled, shards=self._settings.shards, targets=targets))
            self._log.info("moved %d shards from %s", len(targets), host.name)

    async def status(self) -> dict[str, Any]:
        """Return the table's summary and the state of the outboxes."""
        undelivered, parked = await self._store.outbox_counts()
        return {
            "app": self.app.name,
            "store": self._store.url,
            "term": self._term,
            "version": self._table.version,
            "shards": self._settings.shards,
            "hosts": [
                {
                    "name": row.name,
                    "incarnation": row.incarnation,
                    "node": row.node,
                    "pid": row.pid,
                    "dedicated": row.dedicated,
                    "shards": len(self._table.owned_by(row.incarnation)),
                }
                for row in self._table.hosts.values()
            ],
            "outbox": {"undelivered": undelivered, "parked": parked},
            "parked": [
                {"entity": row.entity, "sends": _readable(row.sends), "reason": row.reason}
                for row in (await self._store.parked(PARKED_SHOWN) if parked else [])
            ],
        }


def _readable(sends: str) -> list[Any]:
    try:
        return msgspec.json.decode(sends, type=list[Any])
    except ValueError:
        return []  # parked because nobody can read it: the reason says so
