"""The shard table: who owns what, as a value. Its version only grows."""

from __future__ import annotations

import msgspec


class HostRow(msgspec.Struct, frozen=True):
    """One incarnation of a host."""

    incarnation: int
    """Fencing token, rising over the store's life."""
    name: str
    """Name of its Ray actor, or of the local host."""
    node: str = ""
    machine: str = ""
    pid: int = 0
    started: float = 0.0
    """When the process started, in seconds since boot: with the pid it names one process for ever."""
    dedicated: str = ""
    """Key of the entity it exists for; empty for a shared host."""

    @property
    def slot(self) -> str:
        """What stays the same when the host is replaced: its name without the last part."""
        return self.name if self.dedicated or "/" not in self.name else self.name.rpartition("/")[0]


class ShardRow(msgspec.Struct, frozen=True):
    """Ownership of one shard."""

    owner: int
    """Incarnation of the owning host; 0 while none owns it."""
    epoch: int
    """Counts the owners so far."""


class Table(msgspec.Struct, frozen=True):
    """The registry's view, versioned; clients follow it by long poll."""

    version: int = 0
    hosts: dict[int, HostRow] = {}
    shards: dict[str, ShardRow] = {}

    def owned_by(self, incarnation: int) -> list[str]:
        """Return the shards of one host, in a stable order."""
        return sorted(shard for shard, row in self.shards.items() if row.owner == incarnation)


encode_table = msgspec.msgpack.Encoder().encode
decode_table = msgspec.msgpack.Decoder(Table).decode
