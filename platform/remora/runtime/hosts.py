"""The port by which a registry reaches and runs hosts; what Ray, or one process, has behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from remora.runtime.blackbox import LastWords
from remora.runtime.startup import OrderedHosts
from remora.sharding.table import HostRow


class Hosts(OrderedHosts, Protocol):
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
        """End a host's process; return whether it is proven that it runs no more."""
        ...

    async def end(self, host: HostRow) -> None:
        """End a host's process for good, that of a dedicated entity too; what is started in its place is another one."""
        ...

    def dedicated_slot(self, key: str) -> str:
        """Return the slot of a dedicated entity's host."""
        ...

    async def ended(self, host: HostRow) -> bool:
        """Return whether it is proven that a host's process has ended, without ending it."""
        ...

    async def answers(self, host: HostRow) -> bool:
        """Return whether a host answers this registry, within a bounded time."""
        ...

    async def retire(self, host: HostRow) -> None:
        """End a host that has been emptied, and start one elsewhere if there are to be as many as before."""
        ...

    def near(self, host: HostRow) -> bool:
        """Return whether somebody is on a host's machine who can read at once what its process left behind."""
        ...

    async def last_words(self, host: HostRow) -> LastWords | None:
        """Return what a host's process that has ended left behind; None if nothing of it is found."""
        ...

    async def read_quarantine(self, host: HostRow) -> None:
        """Have a host read from the store what is in quarantine."""
        ...

    async def live(self) -> dict[str, int]:
        """Return how many entities are in memory per shard, of all hosts that answer in time; no shard of others is in it."""
        ...

    async def loads(self) -> dict[str, int]:
        """Return commands taken so far per shard, of all hosts that answer in time."""
        ...
