"""Which shards a host owns: how it comes to serve them, and how it lets them go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from remora.errors import Fenced, HostGone, NotOwner
from remora.lifecycle import Phase
from remora.runtime.shard import Shard
from remora.sharding.table import ShardRow

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.handoff import Passenger
    from remora.runtime.host import Host


class Ownership:
    """A host's shards.

    Args:
        host: Whose they are.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.shards: dict[str, Shard] = {}
        self._let_go: set[str] = set()
        """Shards it has released before: what it is told of them may come too late."""

    async def own(self, incarnation: int, shards: dict[str, int]) -> None:
        """Begin to serve shards, with their epochs, that the store says are this host's.

        Args:
            incarnation: Whose they are in the store: this host's, now or before a failed commit
                made it take a new one (which took all its shards along).
            shards: Shard → epoch.

        Raises:
            NotOwner: The incarnation is none of this process.
        """
        host, lives = self._host, self._host.incarnations.lives
        if incarnation not in lives:
            msg = f"{host.name} was never incarnation {incarnation}."
            raise NotOwner(msg)
        owned = {name: ShardRow(incarnation, epoch) for name, epoch in shards.items()}
        if not self._let_go.isdisjoint(owned):
            rows = (await host.patiently(host.store.read_table)).shards
            owned.update((name, rows[name]) for name in self._let_go.intersection(owned))
        fresh: list[str] = []
        travelled: list[tuple[Shard, list[Passenger]]] = []
        for name, row in owned.items():
            held = self.shards.get(name)
            if row.owner not in lives or (held is not None and not held.accepting):
                continue  # released since, or about to be
            epoch = row.epoch + len(lives) - 1 - lives.index(row.owner)  # it rose with each incarnation
            if held is not None and epoch <= held.epoch:
                continue
            if held is not None:  # held under an epoch that has ended: somebody else may have owned it since
                self.leave(held.cells(), "The shard was owned by another host in between.")
            shard = self.shards[name] = Shard(host, name, epoch)
            fresh.append(name)
            travelled.append((shard, host.handoff.settle(shard, row.epoch)))
        if fresh:
            host.spawn(host.outbox.take_over(fresh))
        for shard, passengers in travelled:
            host.handoff.resume(shard, passengers)
            host.remembered.take_over(fresh)

    async def release(self, targets: Mapping[str, str]) -> None:
        """Stop serving shards: running handlers end (bounded), all is flushed, what is known travels, the store is told.

        Args:
            targets: Shard → name of the host that is to get it, so that it gets what this one knows;
                empty if none is chosen, and its next owner reads the journal.
        """
        # Once begun it is finished, whatever becomes of who asked: a shard that is half given up serves nobody.
        task = self._host.spawn(self._release(targets))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            msg = f"{self._host.name} is gone."
            raise HostGone(msg) from None

    async def _release(self, targets: Mapping[str, str]) -> None:
        host, wanted = self._host, list(targets)
        self._let_go.update(wanted)
        leaving: dict[Shard, list[Cell]] = {self.shards[name]: [] for name in wanted if name in self.shards}
        for shard in leaving:
            shard.accepting, shard.leaving_since_s = False, host.clock.monotonic_s()
        for cell in host.cells.values():
            if cell.shard in leaving:
                leaving[cell.shard].append(cell)
        cells = [cell for cells in leaving.values() for cell in cells]
        host.handoff.stop(cells)
        await host.handoff.running_end(cells, leaving.keys())
        host.handoff.stop(cells)  # those that were read back meanwhile
        await host.committer.flush()
        await host.handoff.send(leaving, targets)
        unwritten = any(cell.commit is not None and not cell.commit.done for cell in cells)
        self.leave(cells, "The shard moves to another host.")
        if unwritten:  # by a handler that began late, and stayed behind
            await host.committer.flush()
        host.outbox.drop(shard.key for shard in leaving)
        # Until the store knows, nobody else may take them, and this host serves them no more: it has to get through.
        steady = host.incarnations.steady
        while True:
            await steady.wait()
            incarnation = host.incarnation
            try:
                await host.patiently(lambda: host.store.release(host.incarnation, wanted))
                break
            except Fenced:
                await steady.wait()
                if host.incarnation == incarnation:
                    raise  # and not only because this host went on under a new one meanwhile
        for shard in leaving:
            if self.shards.get(shard.key) is shard:
                del self.shards[shard.key]
                host.failures.forget(shard.key)

    def leave(self, cells: list[Cell], reason: str) -> None:
        """Let activations go: who waits for them is told to ask the owner."""
        error = NotOwner(reason)
        for cell in cells:
            if cell.phase is not Phase.GONE:
                cell.leave(error)
                self.forget(cell)

    def forget(self, cell: Cell) -> None:
        """Take an activation that is gone out of memory."""
        if self._host.cells.get(cell.key) is cell:
            del self._host.cells[cell.key]
