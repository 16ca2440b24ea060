"""How the registry notices that a host is gone: what is seen, suspected and proven.

Two ways lead to the end of a host, whichever comes first: whoever runs it proves its exit, or its
lease is over. Everything else (a call that failed, a client that got no answer) is a suspicion.
The rules are ``sharding.membership``'s; this carries them out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from remora.errors import RemoraError, StoreUnavailable
from remora.sharding import membership
from remora.sharding.membership import HostState, Watch

if TYPE_CHECKING:
    from remora.runtime.registry import Registry

DOUBT_S = 75.0
"""Seconds for which a node is not given new hosts after one was lost without its word: Ray takes up to 65 s to find that
a node is gone, and an actor that it places there meanwhile does not start."""
LOOKS = 16
"""Looks at leases per time to live: how much later than it was made a renewal counts, since it does from the look that saw
it. Each is one small read. The end of a lease is looked at in its moment."""


class Detection:
    """Watches the hosts of one registry.

    Args:
        registry: Whose hosts these are; it is told of those that are gone.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.watch = Watch()
        self.acting = False
        """Whether this registry leads: one that stands by looks, so as to know when it takes over, and does nothing."""
        self.unblocking = False
        """Whether to end processes whose lease is over also while this registry does not lead yet: one that is frozen
        in a commit may keep it from leading."""
        self.store_away_since_s: float | None = None
        """Since when leases cannot be read."""
        self._doubted: dict[str, float] = {}
        """Node → when a host of it was last lost without the node's word."""
        self._fenced: set[int] = set()
        """Hosts that have been fenced, and are still waited for."""
        self._ending: set[int] = set()
        """Hosts whose shards are being given to others."""
        self._log = logging.getLogger("remora.registry")

    async def run(self) -> None:
        """Look at leases, again and again."""
        clock, ttl_s = self._registry.clock, self._registry.settings.lease_ttl_s
        while True:
            pause_s = membership.pause_s(self.watch, ttl_s / LOOKS, clock.monotonic_s(), ttl_s)
            await asyncio.sleep(pause_s)  # noqa: TID251 - the period of looking at leases
            try:
                await self.look()
            except StoreUnavailable as error:
                self._log.warning("leases cannot be read: %s", error)
                self.store_away_since_s = self.store_away_since_s or self._registry.clock.monotonic_s()
            else:
                self.store_away_since_s = None

    async def look(self) -> None:
        """Read all leases, and end hosts whose lease is over.

        Raises:
            StoreUnavailable: They could not be read.
        """
        registry, settings = self._registry, self._registry.settings
        fenced = frozenset(self._fenced)  # before leases are read
        leases = await registry.store.leases()
        now_s, hosts = registry.clock.monotonic_s(), registry.current.hosts
        self.watch = membership.looked(self.watch, hosts, leases, now_s, settings.lease_ttl_s, fenced)
        if not self.acting and not self.unblocking:
            return
        certain: set[int] = set()
        asked: set[int] = set()
        for number in membership.over(self.watch, settings.lease_ttl_s):
            row = registry.current.hosts.get(number)
            if row is not None and number not in self._ending:
                # Before anything is written: on SQLite a frozen host may hold the turn to write.
                proven = await registry.hosts.kill(row)
                if self.acting:
                    self.doubt(row.node)
                (certain if proven or number in fenced else asked).add(number)
        if not self.acting:
            return
        if certain or asked:
            # Beside the watch, which goes on: this write may have to wait until another frozen host is killed.
            self._ending.update(certain, asked)
            registry.spawn(self._expired(certain, asked))
        for number in membership.unreachable(self.watch, settings.unreachable_s):
            self.watch = membership.held(self.watch, [number])
            registry.spawn(self._fence_unreachable(number))

    def suspect(self, number: int, because: str) -> None:
        """Note that somebody got no answer from a host."""
        if number in self._registry.current.hosts:
            if number not in self.watch.suspicions:
                self._log.warning("host %d is suspected: %s", number, because)
            now_s = self._registry.clock.monotonic_s()
            self.watch = membership.suspected(self.watch, number, because, now_s)

    async def reported(self, number: int, because: str, *, doubt: bool = False) -> None:
        """Somebody got no answer from a host: if its process has ended for certain it is gone, else suspected.

        Args:
            number: Its incarnation.
            because: What was seen.
            doubt: Whether its node may be gone with it.
        """
        row = self._registry.current.hosts.get(number)
        if row is None or number in self._ending:
            return
        if doubt:
            self.doubt(row.node)
        if self.acting and await self._registry.hosts.ended(row):
            self._registry.spawn(self._gone(number, because))
        else:
            self.suspect(number, because)

    async def died(self, number: int, because: str, *, proven: bool) -> None:
        """Whoever runs a host says that it died; where that is not proven, it is killed or its lease is waited for."""
        row = self._registry.current.hosts.get(number)
        if row is None or number in self._ending:
            return
        if not proven:
            self.doubt(row.node)
        if proven or await self._registry.hosts.kill(row):
            await self._gone(number, because)
        else:
            self.suspect(number, because)

    def doubt(self, node: str) -> None:
        """A host is gone without its node having said so: perhaps the node is, and Ray does not know yet."""
        now_s = self._registry.clock.monotonic_s()
        self._doubted = {name: at_s for name, at_s in self._doubted.items() if now_s - at_s < DOUBT_S} | {node: now_s}

    @property
    def doubted(self) -> frozenset[str]:
        """Nodes that are better not given new hosts while there are others."""
        now_s = self._registry.clock.monotonic_s()
        return frozenset(name for name, at_s in self._doubted.items() if now_s - at_s < DOUBT_S)

    def state(self, number: int) -> HostState:
        """Return where a host is in its life."""
        return membership.state_of(self._registry.current, self.watch, number)

    async def _gone(self, number: int, because: str) -> None:
        if number in self._ending:
            return
        self._ending.add(number)
        try:
            await self._registry.gone([number], because=because)
        except RemoraError as error:
            self._log.warning("host %d cannot be given up yet: %s", number, error)
        finally:
            self._ending.discard(number)

    async def _expired(self, certain: Collection[int], asked: Collection[int]) -> None:
        """Give up hosts whose leases are over.

        One that was frozen may run again and renew its lease after that was looked at, and answers from memory then. So who
        may run is fenced first, which ends renewals, and if there was one until then its time is waited for.

        Args:
            certain: Those that answer nothing any more.
            asked: Those that may.
        """
        registry = self._registry
        try:
            waits = await self._fence(asked) if asked else set()
            for number in waits:
                self._log.warning("host %d renewed its lease while it was given up: that is waited for", number)
            if over := sorted({*certain, *asked} - waits):
                await registry.gone(over, because="its lease is over")
        except RemoraError as error:
            self._log.warning("hosts %s cannot be given up yet: %s", sorted({*certain, *asked}), error)
        finally:
            self._ending.difference_update(certain, asked)

    async def _fence(self, numbers: Collection[int]) -> set[int]:
        """End hosts in the store; they keep their shards until their leases are over.

        A host writes its renewal, then reads whether it is fenced; here it is fenced, then its renewal is read: one sees the other.

        Returns:
            Those that have renewed since that was looked at last, or have gone on under another incarnation, which counts.
        """
        registry, seen = self._registry, self.watch.sights
        self.watch = membership.held(self.watch, numbers)
        await registry.fence(numbers)
        leases = await registry.patiently(registry.store.leases)
        self.watch = membership.last_renewed(self.watch, numbers, leases, registry.clock.monotonic_s())
        self._fenced = {*self._fenced & registry.current.hosts.keys(), *numbers}
        renewed = {
            number for number in numbers if number not in seen or seen[number].renewed != leases.get(number, 0.0)
        }
        stored = await registry.patiently(registry.store.read_table)
        names, hosts = {row.name for row in stored.hosts.values()}, registry.current.hosts
        gone_on = {number for number in numbers if number in hosts and hosts[number].name in names}
        if gone_on:
            self.watch = membership.let_go(self.watch, gone_on)
            await registry.refresh()
        return renewed | gone_on

    async def _fence_unreachable(self, number: int) -> None:
        """End a host that renews and that nobody reaches: fenced it renews no more, and its lease is waited for."""
        row = self._registry.current.hosts.get(number)
        if row is None:
            return
        answers = await self._registry.hosts.answers(row)
        if number in self._fenced or number in self._ending:
            return  # its lease was over meanwhile
        if answers:
            # Whoever reported it is cut off from it, and nobody else: ending it would help nobody.
            self._log.warning("host %d is reported and answers the registry: it stays", number)
            self.watch = membership.reached(self.watch, number)
            return
        self._log.error("host %d is reached by nobody and renews its lease: it is fenced", number)
        try:
            await self._fence([number])
        except RemoraError as error:  # another registry leads: it judges this host itself
            self._log.warning("host %d was not fenced: %s", number, error)
