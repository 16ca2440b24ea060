"""The sharding registry at work: carries out the plans of ``sharding.registry``.

It keeps the table in the store, notices hosts that are gone (``runtime.detection``), moves shards
(``runtime.rebalance``), and publishes the table to clients by long poll. Of several registries one
leads (``runtime.leadership``). The data path never needs it alive: clients keep their table, hosts
keep their shards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import msgspec

from remora.app import App
from remora.clock import Clock
from remora.errors import Fenced, HostGone, RemoraError, StoreUnavailable, UnknownEntity, UnknownNode
from remora.journal import Store
from remora.runtime.background import Background
from remora.runtime.detection import Detection
from remora.runtime.hosts import Hosts
from remora.runtime.leadership import Leadership
from remora.runtime.levels import Levels
from remora.runtime.quarantine import Inquest
from remora.runtime.rebalance import Rebalance, check_drain
from remora.runtime.startup import Startup
from remora.sharding import registry as decisions
from remora.sharding.about import note_unowned
from remora.sharding.allocation import Move
from remora.sharding.registry import Layout, Plan
from remora.sharding.table import HostRow, Table

T = TypeVar("T")
POLL_S = 10.0
"""Seconds a long poll for the table is kept open."""
PATIENCE_MIN_S = 0.05
PATIENCE_MAX_S = 1.0
"""Shortest and longest pause between tries while the store is away, in seconds."""
TELL_S = 1.0
"""Longest the table waits for hosts to be told of their shards, in seconds."""
YIELD_MAX_S = 0.25
"""Longest pause after some shards have moved, in seconds; it lasts as long as their move did: two dozen times what one
takes where nothing is slow, and short beside ``Settings.drain_s``, within which hundreds of them have to fit."""
STANDBY_READS_S = 1.0
"""Seconds between reads of the table by a registry that stands by."""
GONE_SHOWN = 20
"""Hosts that are gone and of which a status tells why."""
DRAINED, DRAINING, LOCATIONS = "drained", "draining", "locations"
"""Notes in the store: nodes and single hosts that were asked to be emptied, and where shards are wanted."""


class Registry:
    """One app's registry.

    Args:
        app: The app.
        store: The app's store, opened.
        hosts: Reaches and runs hosts.
        clock: Time.
        name: Who this is, for those that ask who leads.
        on_deposed: Called when another registry leads: what this one decides is written no more.
        seed: Seeds the jitter of pauses.
    """

    def __init__(
        self, app: App, store: Store, hosts: Hosts, clock: Clock, *, name: str = "registry",
        on_deposed: Callable[[], None] | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.app = app
        self.store = store
        self.hosts = hosts
        self.clock = clock
        self.settings = app.settings
        self.name = name
        self.detection = Detection(self)
        self.rebalance = Rebalance(self)
        self.inquest = Inquest(self)
        self.levels = Levels(self, seed)
        self.startup = Startup(self)
        self.leadership = Leadership(store, clock, app.settings.leader_ttl_s)
        self.joining: set[str] = set()
        """Slots in which hosts are being started."""
        self.refused: dict[str, str] = {}
        """Slot → why its host could not be started, as last tried."""
        self.gone_lately: list[tuple[str, str, float]] = []
        """(host, why, when) of the last hosts that were given up."""
        self.given_up = 0
        """Hosts given up so far."""
        self.unowned: dict[str, float] = {}
        """Shard without an owner → since when."""
        self._on_deposed = on_deposed
        self._term = 0
        self._table = Table()
        self._layout = app.layout
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._standing: AbstractSet[int] = frozenset()
        """Incarnations that stood in the store when that was read last."""
        self._untold: set[int] = set()
        """Hosts that could not be told of shards they own."""
        self._drained: set[str] = set()
        """Nodes that were asked to be emptied, and get no hosts until that is taken back."""
        self._log = logging.getLogger("remora.registry")
        self._background = Background(self._log, name)

    @property
    def term(self) -> int:
        """The leader term this registry writes under; 0 while it does not lead."""
        return self._term

    @property
    def layout(self) -> Layout:
        """The app's shards, with what bears on where they go at the moment."""
        held = self.detection.watch.held
        return replace(self._layout, load=self.rebalance.load, locations=self.rebalance.locations, held=held)

    @property
    def drained(self) -> frozenset[str]:
        """Nodes that are to have no hosts."""
        return frozenset(self._drained)

    @property
    def current(self) -> Table:
        """The table now."""
        return self._table

    def unplaced(self) -> list[str]:
        """Return dedicated entities that have a shard row and no host."""
        return [key for key in decisions.unplaced_dedicated(self._table) if self.startup.is_open(key.partition("/")[0])]

    async def stand_by(self) -> int:
        """Wait until nobody leads, looking at hosts meanwhile as the leader does; return the term that begins."""
        looking = [self.spawn(self.detection.run()), self.spawn(self._read_along())]

        def vacant() -> None:
            self.detection.unblocking = True

        try:
            return await self.leadership.follow(vacant)
        finally:
            for task in looking:
                task.cancel()

    async def _read_along(self) -> None:
        while True:
            try:
                self._table = await self.store.read_table()
            except StoreUnavailable as error:
                self._log.warning("the table cannot be read: %s", error)
            await asyncio.sleep(STANDBY_READS_S)  # noqa: TID251 - the period of reading along

    async def start(self, term: int = 0, *, anew: bool = True) -> Table:
        """Lead: begin a new term, unless one was begun, and read the table; return it.

        Args:
            term: The term that ``stand_by`` began.
            anew: Whether somebody starts the app: what the rules have stopped is started again.
        """
        async with self._lock:
            self._table = await self.store.read_table()
            # Watching begins before leading: a host that is frozen in a commit keeps everybody from writing.
            self.detection.acting = True
            self.spawn(self.detection.run())
            self._term = term or await self.leadership.take()
            self.spawn(self._lead())
            self._table = await self.store.read_table()
            if decisions.left_to_expire(self._table):
                # Fenced by a leader that did not live to see their leases end: they may still answer from memory.
                await asyncio.sleep(self.settings.lease_ttl_s)  # noqa: TID251 - the end of a lease, which nothing tells
            self._drained = set(await self.noted(DRAINED, list[str], []))
            leaving = await self.noted(DRAINING, list[str], [])
            numbers = [number for number, row in self._table.hosts.items() if row.name in leaving]
            self._table = decisions.draining(self._table, numbers) if numbers else self._table
            await self.inquest.begin()
            await self.levels.begin(anew=anew)
            await self.startup.recall()
            self.rebalance.locations = await self.noted(LOCATIONS, dict[str, str], {})
        self.spawn(self.rebalance.run())
        return self._table

    async def noted(self, name: str, kind: Any, default: Any) -> Any:  # noqa: ANN401 - what stands under the name
        """Return what a registry wrote down under a name; ``default`` if nothing."""
        text = await self.store.note(name)
        return default if text is None else msgspec.json.decode(text, type=kind)

    async def note(self, name: str, value: object) -> None:
        """Write something down for whoever leads next.

        Raises:
            Fenced: This registry's term has ended.
        """
        await self.store.set_note(self._term, name, msgspec.json.encode(value).decode())

    async def _lead(self) -> None:
        await self.leadership.keep(self._term)
        self._deposed()

    def _deposed(self) -> None:
        self.detection.acting = False
        if self._on_deposed is not None:
            self._on_deposed()

    async def close(self) -> None:
        """Stop."""
        self.detection.acting = False
        await self._background.close()

    def spawn(self, work: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - any coroutine
        """Run something in the background of this registry; what it raises is logged."""
        return self._background.spawn(work)

    # -- what happens to hosts ---------------------------------------------------------------------

    @contextmanager
    def starting(self, slot: str) -> Iterator[None]:
        """While a host is being started: nothing is moved to even hosts out; why it failed is kept and shown."""
        self.joining.add(slot)
        try:
            yield
        except RemoraError as error:
            self.refused[slot] = error.message
            raise
        else:
            self.refused.pop(slot, None)
        finally:
            self.joining.discard(slot)

    async def joined(self, hosts: Sequence[HostRow]) -> None:
        """Take in hosts that entered the store; those given together share evenly.

        Raises:
            HostGone: Some are ended: they were fenced meanwhile, or the app is being stopped. The others are taken in.
        """
        if self.startup.stopping:
            await self._turn_away(hosts, "the app is being stopped")

        def join(table: Table) -> Plan:
            return decisions.joined(table, [host for host in hosts if host.incarnation in self._standing], self.layout)

        async with self.inquest.turn:
            if self.inquest.ever_held:
                await self.inquest.tell(hosts)
            async with self._lock:
                await self._change(join)
        for host in hosts:
            if host.incarnation in self._table.hosts:
                self._log.info("host %s joined as incarnation %d", host.name, host.incarnation)
        if ended := [host for host in hosts if host.incarnation not in self._standing]:
            await self._turn_away(ended, "its incarnation was ended before it could join")

    async def _turn_away(self, hosts: Sequence[HostRow], because: str) -> None:
        for host in hosts:
            await self.hosts.end(host)
        msg = f"{', '.join(host.name for host in hosts)}: {because}."
        raise HostGone(msg)

    async def gone(self, incarnations: Sequence[int], *, replace: bool = True, because: str = "") -> None:
        """Hosts are gone for certain: their shards go to survivors at once, then they are replaced."""
        if replace:  # and not because they were emptied
            hosts = self._table.hosts
            await self.inquest.hear([hosts[number] for number in incarnations if number in hosts])
        async with self._lock:
            # Told of by an incarnation that the store has ended meanwhile, a host is gone under its latest one.
            numbers = set(incarnations)
            names = {row.name for number in numbers if (row := self._table.hosts.get(number)) is not None}

            def without(table: Table) -> Plan:
                here = [number for number, row in table.hosts.items() if number in numbers or row.name in names]
                return decisions.gone(table, here, self.layout)

            await self._change(without, replace=replace, because=because)

    async def retire(self, number: int) -> None:
        """Let go of a host that owns nothing any more."""
        row = self._table.hosts.get(number)
        if row is None:
            return
        await self.gone([number], replace=False, because="it was emptied")
        self.spawn(self.hosts.retire(row))

    async def fence(self, numbers: Iterable[int]) -> None:
        """End incarnations in the store whose leases may still be running; they keep their shards until those are over.

        Again and again until the store has confirmed it: whether a lost answer was a yes is not known.
        """
        wanted = list(numbers)
        async with self._lock:
            await self.patiently(lambda: self.store.write_table(self._term, self._table.version, wanted, {}))

    async def refresh(self) -> None:
        """Read the table again: a host took a new incarnation in the store, or released shards."""
        async with self._lock:
            await self._change(lambda table: decisions.settled(table, self.layout))

    async def announce(self) -> None:
        """Have everybody hear of the table again."""
        async with self._lock:
            table = msgspec.structs.replace(self._table, version=self._table.version + 1)
            # In the store too: who leads next counts from there, and nobody takes a table that is no newer.
            await self.patiently(lambda: self.store.write_table(self._term, table.version, (), {}))
            await self._publish(table, replace=False, because="")

    async def set_draining(self, numbers: Iterable[int]) -> None:
        """Have exactly these hosts emptied."""
        wanted = frozenset(numbers)
        async with self._lock:
            await self._change(lambda table: Plan(decisions.draining(table, wanted)))
        self.rebalance.wake()

    async def _change(self, decide: Callable[[Table], Plan], *, replace: bool = True, because: str = "") -> None:
        """Read the table, decide, write; from the start again until the store has confirmed that.

        Hosts that leave the table by that are ended for certain and replaced: those that the plan
        fences, and those that somebody else has fenced in the store.

        What was decided on is never written twice: in between a host may have gone on under a new
        incarnation, and an answer that was lost may have been a yes.
        """

        async def once() -> Table | None:
            stored = await self.store.read_table()
            self._standing = stored.hosts.keys()
            before = self._table
            plan = decide(decisions.known(before, stored, self.detection.watch.held))
            after = plan.table
            same = (after.hosts, after.shards, after.draining) == (before.hosts, before.shards, before.draining)
            if same and not plan.fence:
                return None
            await self.store.write_table(self._term, after.version, plan.fence, plan.assign)
            return after

        changed = await self.patiently(once)
        if changed is not None:
            await self._publish(changed, replace=replace, because=because)

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store until it answers.

        Raises:
            Fenced: This registry's term has ended.
        """
        pause = PATIENCE_MIN_S
        while True:
            try:
                return await work()
            except Fenced:
                self._deposed()
                raise
            except StoreUnavailable as error:
                self._log.warning("the registry waits for the store: %s", error)
                await asyncio.sleep(pause)  # noqa: TID251 - growing, bounded pause while the store is away
                pause = min(pause * 2, PATIENCE_MAX_S)

    async def _publish(self, table: Table, *, replace: bool, because: str) -> None:
        news = decisions.news(self._table, table)
        left = decisions.left(self._table, table)
        if replace:  # before anybody can see that their slots are empty
            self.levels.replacing |= {row.slot for row in left}
        self._table = table
        self.given_up += len(left)
        why = because or "it was fenced"
        gone = [(row.name, why, self.clock.monotonic_s()) for row in left]
        self.gone_lately = [*self.gone_lately, *gone][-GONE_SHOWN:]
        note_unowned(self.unowned, table, self.layout.names(), self.clock.monotonic_s())
        told = [self.spawn(self._tell(table.hosts[number], shards)) for number, shards in news.items()]
        if told:
            # One that does not listen must not keep the others from being known.
            await asyncio.wait(told, timeout=TELL_S)
        self._changed.set()
        self._changed = asyncio.Event()
        for row in left:
            self._log.warning("host %s (incarnation %d) is gone: %s", row.name, row.incarnation, why)
            await self.hosts.kill(row)
            if replace:
                self.spawn(self.levels.died(row))

    async def _tell(self, host: HostRow, shards: dict[str, int]) -> None:
        try:
            await self.hosts.own(host, shards)
        except RemoraError as error:
            # It died in between: its exit will be reported, and these shards move on then.
            self._log.warning("host %s could not be told of %d shards: %s", host.name, len(shards), error)
            self._untold.add(host.incarnation)
            self.detection.suspect(host.incarnation, f"it could not be told of its shards: {error.message}")

    async def tell_again(self) -> None:
        """Tell hosts all that is theirs that could not be told before."""
        again, self._untold = self._untold, set()
        for incarnation in again & self._table.hosts.keys():
            owned = {name: self._table.shards[name].epoch for name in self._table.owned_by(incarnation)}
            await self._tell(self._table.hosts[incarnation], owned)

    async def place(self, key: str) -> None:
        """Give a dedicated entity a shard row and an actor, unless it has them.

        Raises:
            UnknownEntity: The app has no dedicated type of that name.
        """
        kind = key.partition("/")[0]
        if not self.app.spec(kind).dedicated:
            msg = f"{kind!r} is not dedicated: its entities live in shared hosts."
            raise UnknownEntity(msg)
        self.levels.admit(key)
        self.startup.admit(kind)
        async with self._lock:
            await self._change(lambda table: decisions.want_dedicated(table, key))
        row = self._table.shards[key]
        if row.owner not in self._table.hosts:
            await self.hosts.dedicate(key)

    async def suspect(self, name: str) -> None:
        """A client got no answer from a host of that name."""
        for number, row in self._table.hosts.items():
            if row.name == name:
                await self.detection.reported(number, "a client got no answer from it")

    # -- the table ---------------------------------------------------------------------------------

    async def table(self, after: int) -> Table:
        """Return the table as soon as it is newer than ``after``, or after ten seconds as it is."""
        if self._table.version <= after:
            await self.changed(within_s=POLL_S)
        halted = self.levels.halted
        return msgspec.structs.replace(self._table, halted=halted) if halted else self._table

    async def changed(self, *, within_s: float) -> bool:
        """Wait until the table changes; return whether it did in time."""
        changed = self._changed
        try:
            async with asyncio.timeout(within_s):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    # -- moving ------------------------------------------------------------------------------------

    async def move(self, moves: Mapping[str, Move]) -> None:
        """Move shards whose owners stand: each is released, then given to its target."""
        for source in sorted({move.source for move in moves.values()}):
            host = self._table.hosts.get(source)
            if host is None:
                continue
            targets = {name: move.target for name, move in moves.items() if move.source == source}
            for some in decisions.few_at_a_time(targets, len(self.layout.names()), self.settings):
                if self.startup.stopping:
                    return
                began_s = self.clock.monotonic_s()
                await self._hand_over(host, some)
                # Half of the time is the load's: what moves takes processor time from what is served.
                pause_s = min(self.clock.monotonic_s() - began_s, YIELD_MAX_S)
                await asyncio.sleep(pause_s)  # noqa: TID251 - bounded, and no wait for anything
            self._log.info("moved %d shards from %s", len(targets), host.name)

    async def _hand_over(self, host: HostRow, targets: Mapping[str, int]) -> None:
        hosts = self._table.hosts
        names = {name: hosts[target].name if target in hosts else "" for name, target in targets.items()}
        moves = {name: Move(host.incarnation, target) for name, target in targets.items()}
        self.rebalance.under_way |= moves
        self.rebalance.since_s |= dict.fromkeys(moves, self.clock.monotonic_s())
        try:
            # Not under the lock: a host that is slow to let go must not hold up the failover of another.
            await self.hosts.release(host, names)
        except RemoraError as error:
            self.detection.suspect(host.incarnation, f"it could not be asked to let go of shards: {error.message}")
            raise
        finally:
            for name in moves:
                self.rebalance.under_way.pop(name, None)
                self.rebalance.since_s.pop(name, None)
            async with self._lock:
                await self._change(partial(decisions.settled, layout=self.layout, targets=targets))
        self.rebalance.moved += len(targets)

    async def drain(self, what: str) -> dict[str, Any]:
        """Empty a node's hosts, or one host, and let them go; the node gets no hosts until ``undrain``.

        Args:
            what: A node id, the beginning of one, or a host's name or slot.

        Returns:
            ``node``, the names of its ``hosts``, and the shards that are ``left`` when the time for it is over.

        Raises:
            UnknownNode: There is no such node or host.
            CannotDrain: They are the last hosts.
        """
        node, numbers = self._meant(what)
        check_drain(self, numbers)
        if node:
            await self.note(DRAINED, sorted({*self._drained, node}))
            self._drained.add(node)
        names = [self._table.hosts[number].name for number in numbers]
        leaving = {self._table.hosts[number].name for number in self._table.draining}
        await self.note(DRAINING, sorted({*leaving, *names}))  # whoever leads next goes on with them
        left = await self.rebalance.drain(numbers)
        return {"node": node or what, "hosts": names, "left": left}

    async def undrain(self, what: str) -> dict[str, Any]:
        """Let a node have hosts again.

        Raises:
            UnknownNode: No such node was drained.
        """
        nodes = {node for node in self._drained if node.startswith(what)}
        if not nodes:
            msg = f"{what!r} was not drained; drained are: {', '.join(sorted(self._drained)) or 'none'}."
            raise UnknownNode(msg)
        self._drained -= nodes
        await self.note(DRAINED, sorted(self._drained))
        hosts = self._table.hosts
        await self.set_draining(number for number in self._table.draining if hosts[number].node not in nodes)
        return {"nodes": sorted(nodes)}

    async def leave(self, nodes: Iterable[str]) -> None:
        """Nodes are about to go, or were asked to be emptied: have their hosts emptied."""
        leaving = {*nodes, *self._drained}
        wanted = self._table.draining | {number for number, row in self._table.hosts.items() if row.node in leaving}
        if wanted != self._table.draining:
            await self.set_draining(wanted)

    def _meant(self, what: str) -> tuple[str, list[int]]:
        """Return the node that is meant, if one is, and the hosts."""
        hosts = self._table.hosts
        named = [number for number, row in hosts.items() if what in {row.name, row.slot}]
        if named:
            return "", named
        nodes = sorted({row.node for row in hosts.values() if what and row.node.startswith(what)})
        if len(nodes) != 1:
            known = ", ".join(sorted({row.node for row in hosts.values()}))
            msg = f"{what!r} is {'more than one node' if nodes else 'no node or host'}; nodes with hosts are: {known}."
            raise UnknownNode(msg)
        return nodes[0], [number for number, row in hosts.items() if row.node == nodes[0]]

    async def locate(self, locations: Mapping[str, str]) -> None:
        """Say where shards are wanted, for the allocation ``External``; an empty place takes that back."""
        wanted = {shard: place for shard, place in {**self.rebalance.locations, **locations}.items() if place}
        await self.note(LOCATIONS, wanted)
        self.rebalance.locations = wanted
        self.rebalance.wake()
