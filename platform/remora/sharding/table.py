"""The shard table: who owns what, as a value. Its version only grows."""

from __future__ import annotations

import re

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
    group: str = ""
    """Host group it belongs to; empty for the default one."""
    weight: float = 1.0
    """Its share of the work beside hosts of its group: the CPUs it was given."""
    labels: dict[str, str] = {}
    """Labels of its node, for allocations that place by them."""
    release: str = ""
    """Names the code it runs: hosts that differ in it are in the middle of a rollout."""

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


def slot_order(slot: str) -> list[tuple[int, str]]:
    """Return what sorts slots as people do: ``host-2`` before ``host-10``."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", slot)]


class Table(msgspec.Struct, frozen=True):
    """The registry's view, versioned; clients follow it by long poll."""

    version: int = 0
    hosts: dict[int, HostRow] = {}
    shards: dict[str, ShardRow] = {}
    draining: frozenset[int] = frozenset()
    """Hosts that are being emptied: they keep what they own until it has moved, and get nothing new."""
    halted: str = ""
    """Why the app was stopped by its supervision rules; empty while it runs."""

    def owned_by(self, incarnation: int) -> list[str]:
        """Return the shards of one host, in a stable order."""
        return sorted(shard for shard, row in self.shards.items() if row.owner == incarnation)


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a store keeps of a host in one JSON column: it is never searched for."""

    group: str = ""
    weight: float = 1.0
    labels: dict[str, str] = {}
    release: str = ""


_encode_about = msgspec.json.Encoder().encode
_decode_about = msgspec.json.Decoder(About).decode


def about_of(host: HostRow) -> str:
    """Return the JSON column of a host."""
    return _encode_about(About(host.group, host.weight, host.labels, host.release)).decode()


def host_row(
    incarnation: int, name: str, node: str, machine: str, pid: int, started: float, dedicated: str, about: str
) -> HostRow:
    """Return a host from the columns a store keeps."""
    more = _decode_about(about)
    return HostRow(
        incarnation, name, node, machine, pid, started, dedicated, more.group, more.weight, more.labels, more.release
    )


encode_table = msgspec.msgpack.Encoder().encode
decode_table = msgspec.msgpack.Decoder(Table).decode
