"""The incarnations of a host: what becomes of it when commits fail.

After a commit of unknown outcome a host goes on under a new incarnation, under which nothing late
of the old one can commit; one that was fenced owns nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from remora.errors import Fenced, RemoraError, StoreUnavailable
from remora.lifecycle import Phase

if TYPE_CHECKING:
    from remora.runtime.committer import Commit
    from remora.runtime.host import Host
    from remora.sharding.table import HostRow

PATIENCE_MIN_S = 0.05
"""First pause between tries while the store is away, in seconds; each is twice as long as the one before."""
PATIENCE_MAX_S = 1.0
"""Longest pause between tries while the store is away, in seconds."""


class Incarnations:
    """A host's incarnations, one after the other.

    Args:
        host: Whose they are.
        on_fenced: Called when the store refused this host's incarnation: it owns nothing any more.
        on_reincarnated: Called after the host took a new incarnation.
    """

    def __init__(
        self,
        host: Host,
        on_fenced: Callable[[], None] | None,
        on_reincarnated: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._host = host
        self._on_fenced = on_fenced
        self._on_reincarnated = on_reincarnated
        self.lives: list[int] = []
        """Every incarnation this process has had, in order."""
        self.steady = asyncio.Event()
        """Not set while this host takes a new incarnation."""
        self.steady.set()
        self._commits_at_failure = -1
        """How many commits had been written when the last one failed."""
        self._pause_s = 0.0
        self._over = False
        """Whether this host was fenced."""

    def begin(self, incarnation: int) -> HostRow:
        """Go on as ``incarnation``; return who this host is now."""
        host = self._host
        host.incarnation = incarnation
        self.lives.append(incarnation)
        host.row = msgspec.structs.replace(host.row, incarnation=incarnation)
        return host.row

    def renew(self, at_s: float) -> None:
        """Renew this incarnation's lease; by that a host that has nothing to write learns that it was fenced.

        Runs in the lease's thread.

        Raises:
            Fenced: This incarnation has ended.
            StoreUnavailable: The store did not answer.
        """
        host, incarnation = self._host, self._host.incarnation
        try:
            host.store.renew(incarnation, at_s)
        except Fenced as error:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the host with it
                host.loop.call_soon_threadsafe(self._refused, incarnation, error)
            raise

    def _refused(self, incarnation: int, error: Fenced) -> None:
        # One that takes another incarnation just now has ended the former one itself.
        if incarnation == self._host.incarnation and self.steady.is_set() and not self._over:
            self._fenced(error)

    async def commits_failed(self, commits: list[Commit], error: RemoraError) -> None:
        """A commit was refused or its outcome is unknown: what stood on it vanishes."""
        host = self._host
        if isinstance(error, Fenced):
            self._fenced(error)
            return
        touched = {cell for commit in commits for cell in commit.cells}
        host.log.error("a commit of %s failed, %d entities restart: %s", host.name, len(touched), error)
        for cell in touched:
            cell.hold()
        self.steady.clear()
        await self._pause_between_failures()
        # The outcome may be unknown: under a new incarnation nothing late of the old one can commit.
        try:
            incarnation = await host.patiently(lambda: self._reincarnate(commits))
        except Fenced as fenced:
            self._fenced(fenced)
            return
        else:
            self.begin(incarnation)
        finally:
            host.outage, host.outage_since_s = b"", None
            self.steady.set()
        for shard in host.shards.values():
            if shard.accepting:
                shard.epoch += 1  # as the store did
        if self._on_reincarnated is not None:
            host.spawn(self._on_reincarnated())
        # What failed may have been written, durable sends included, or may have noted deliveries and was not.
        host.spawn(host.outbox.take_over(list(host.shards)))
        for cell in {cell for commit in commits for cell in commit.cells}:
            if cell.phase is Phase.RECOVERING:
                host.recovery.add(cell)

    def _fenced(self, error: Fenced) -> None:
        host, self._over = self._host, True
        host.log.error("%s was fenced: %s", host.name, error)
        host.lease.stop()
        host.ownership.leave(list(host.cells.values()), "The host's incarnation has ended.")
        host.shards.clear()
        if self._on_fenced is not None:
            self._on_fenced()

    async def _reincarnate(self, failed: list[Commit]) -> int:
        """Take a new incarnation; if the store does not give one, what waits to be written fails with the others."""
        host = self._host
        try:
            return await host.store.reincarnate(host.incarnation)
        except StoreUnavailable as error:
            host.outage_since_s = host.outage_since_s or host.clock.monotonic_s()
            host.outage = error.encode()
            for commit in host.committer.refuse_open(error):
                failed.append(commit)
                for cell in commit.cells:
                    cell.hold()
            raise

    async def _pause_between_failures(self) -> None:
        """Leave a store that fails commit after commit (a full disk) in peace, ever longer, up to a bound."""
        commits = self._host.committer.commits
        again = commits == self._commits_at_failure
        self._commits_at_failure = commits
        if not again:
            self._pause_s = 0.0
            return
        self._pause_s = min(max(self._pause_s * 2, PATIENCE_MIN_S), PATIENCE_MAX_S)
        await asyncio.sleep(self._pause_s)  # noqa: TID251 - growing, bounded pause while commits fail
