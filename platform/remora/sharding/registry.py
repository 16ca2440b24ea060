"""The registry's decisions as pure functions: (table, event) → plan.

Life of a host, as the registry sees it::

    (unknown) ── joined ──▶ up ── gone (exit proven, or lease over) ──▶ fenced, forgotten
                             │
                             └─ release of a shard ─▶ still up, owns one less

A plan is carried out in one order: fence in the store, write the new owners in the store (both
in one transaction), tell the hosts, publish the table. A shard gets a new owner only together
with the fence of the old one, or after the old one has released it in the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from remora.sharding.allocation import allocate, rebalance
from remora.sharding.table import HostRow, ShardRow, Table


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write and whom to tell."""

    table: Table
    fence: tuple[int, ...] = ()
    assign: dict[str, ShardRow] = field(default_factory=dict)


def all_shards(count: int) -> list[str]:
    """Return the names of the shared shards."""
    return [str(number) for number in range(count)]


def joined(table: Table, joining: Sequence[HostRow], shards: int) -> Plan:
    """Hosts joined: they get what nobody owns. Earlier incarnations of their names are gone.

    Args:
        table: The table before.
        joining: The new incarnations; those that join together share evenly.
        shards: The app's shard count.
    """
    names = {host.name for host in joining}
    new = {host.incarnation for host in joining}
    old = tuple(number for number, row in table.hosts.items() if row.name in names and number not in new)
    hosts = {number: row for number, row in table.hosts.items() if number not in old}
    hosts |= {host.incarnation: host for host in joining}
    orphans = {shard for shard, row in table.shards.items() if row.owner in old}
    return _assign(table, hosts, orphans, old, shards)


def gone(table: Table, incarnations: Sequence[int], shards: int) -> Plan:
    """Hosts are gone: fence them, their shards go to survivors at once."""
    lost = tuple(number for number in incarnations if number in table.hosts)
    hosts = {number: row for number, row in table.hosts.items() if number not in lost}
    orphans = {shard for shard, row in table.shards.items() if row.owner in lost}
    return _assign(table, hosts, orphans, lost, shards)


def known(table: Table, stored: Table) -> Table:
    """Return what the store holds, as far as this registry knows the hosts.

    A host may have gone on under a new incarnation, taking its shards along. One that the store has
    and the table does not is left out: it has yet to report that it is up, and would not hear of
    shards given to it before.

    Args:
        table: The table before.
        stored: What the store holds.
    """
    names = {row.name for number, row in table.hosts.items() if number not in stored.hosts}
    hosts = {number: row for number, row in stored.hosts.items() if number in table.hosts or row.name in names}
    return Table(max(table.version, stored.version), hosts, stored.shards)


def settled(table: Table, shards: int, targets: Mapping[str, int] | None = None) -> Plan:
    """Shards that were released, or lost their owner, get one.

    Args:
        table: The table before.
        shards: The app's shard count.
        targets: Where the rebalance wants released shards; the others go to whoever has fewest.
    """
    return _assign(table, table.hosts, set(), (), shards, targets)


def news(before: Table, after: Table) -> dict[int, dict[str, int]]:
    """Return, per host, the shards it is to be told of, with their epochs."""
    told: dict[int, dict[str, int]] = {}
    for shard, row in after.shards.items():
        if row != before.shards.get(shard) and row.owner in after.hosts:
            told.setdefault(row.owner, {})[shard] = row.epoch
    return told


def left(before: Table, after: Table) -> list[HostRow]:
    """Return the hosts that are none any more; one that went on under a new incarnation still is."""
    names = {row.name for row in after.hosts.values()}
    return [row for row in before.hosts.values() if row.name not in names]


def moves(table: Table, moves_max: int) -> dict[str, tuple[int, int]]:
    """Return the next rebalance round: shard → (from, to)."""
    owned = {number: table.owned_by(number) for number, row in table.hosts.items() if not row.dedicated}
    return rebalance(owned, moves_max)


def unowned(table: Table, shards: int) -> list[str]:
    """Return shared shards that no host owns although there are hosts."""
    if all(row.dedicated for row in table.hosts.values()):
        return []
    rows = table.shards
    return [name for name in all_shards(shards) if name not in rows or rows[name].owner not in table.hosts]


def unplaced_dedicated(table: Table) -> list[str]:
    """Return dedicated entities that have a shard row and no live actor."""
    return sorted(name for name, row in table.shards.items() if "/" in name and row.owner == 0)


def want_dedicated(table: Table, key: str) -> Plan:
    """A dedicated entity is asked for the first time: give it a shard row without an owner."""
    assign = {} if key in table.shards else {key: ShardRow(0, 0)}
    return Plan(_next(table, table.hosts, {**table.shards, **assign}), (), assign)


def _assign(
    table: Table, hosts: dict[int, HostRow], orphans: set[str], fence: tuple[int, ...], shards: int,
    targets: Mapping[str, int] | None = None,
) -> Plan:  # fmt: skip
    shared = {number: 0 for number, row in hosts.items() if not row.dedicated}
    own_actor = {row.dedicated: number for number, row in hosts.items() if row.dedicated}
    rows = dict(table.shards)
    for row in rows.values():
        if row.owner in shared:
            shared[row.owner] += 1
    # Owners that are no host any more: those that are lost now, and any that a plan missed before.
    ended = {row.owner for row in rows.values() if row.owner and row.owner not in hosts}
    orphans = orphans | {name for name, row in rows.items() if row.owner in ended}
    fence = (*fence, *sorted(ended.difference(fence)))
    open_shared = [name for name in all_shards(shards) if name not in rows or rows[name].owner == 0 or name in orphans]
    chosen = {name: host for name in open_shared if (host := (targets or {}).get(name, 0)) in shared}
    for host in chosen.values():
        shared[host] += 1
    chosen |= allocate([name for name in open_shared if name not in chosen], shared)
    for name, row in rows.items():
        if "/" in name and (name in orphans or row.owner == 0) and name in own_actor:
            chosen[name] = own_actor[name]
    assign: dict[str, ShardRow] = {}
    none = ShardRow(0, 0)
    for name, owner in chosen.items():
        assign[name] = ShardRow(owner, rows.get(name, none).epoch + 1)
    for name in orphans - chosen.keys():
        assign[name] = msgspec.structs.replace(rows[name], owner=0)
    return Plan(_next(table, hosts, {**rows, **assign}), fence, assign)


def _next(table: Table, hosts: dict[int, HostRow], shards: dict[str, ShardRow]) -> Table:
    return Table(table.version + 1, hosts, shards)
