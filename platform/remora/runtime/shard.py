"""One shard on this host: whether it takes commands, and the cells that belong to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remora.errors import Stopped

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host


class Shard:
    """A shard this host owns.

    Args:
        host: The owning host.
        key: Its name in the shard table.
        epoch: Counts its owners; rises with each.
    """

    __slots__ = ("accepting", "commands", "epoch", "host", "images", "key", "leaving_since_s", "stopped")

    def __init__(self, host: Host, key: str, epoch: int) -> None:
        self.host = host
        self.key = key
        self.epoch = epoch
        self.accepting = True
        self.leaving_since_s = 0.0
        """Since when it does not: its hand-off began then."""
        self.commands = 0
        """Commands and queries taken so far: what the load of a shard is measured by."""
        self.images: dict[str, tuple[float, bytes]] = {}
        """What came with the shard of entities that nobody has asked for yet: (last used in seconds, image)."""

        self.stopped: Stopped | None = None
        """Why supervision stopped it."""

    def cells(self) -> list[Cell]:
        """Return its activations."""
        return [cell for cell in self.host.cells.values() if cell.shard is self]

    def restart_all(self, after_s: float, because: str) -> None:
        """Restart every entity of the shard, each after a pause."""
        for cell in self.cells():
            cell.restart(after_s, because)

    def stop_all(self, reason: Stopped) -> None:
        """Stop every entity of the shard, those that are yet to be activated as well."""
        self.stopped = reason
        for cell in self.cells():
            cell.stop(reason)
