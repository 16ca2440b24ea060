"""The registry's decisions as pure functions: (table, event) → plan.

A plan is carried out in one order: fence in the store, write the new owners in the store (both
in one transaction), tell the hosts, publish the table. A shard gets a new owner only together
with the fence of the old one, or after the old one has released it in the store. The life of a
host is drawn in ``membership``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from remora.settings import Settings
from remora.sharding.allocation import Allocation, LeastShards, Move, View, moves_allowed
from remora.sharding.hashing import group_of
from remora.sharding.table import HostRow, ShardRow, Table


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write and whom to tell."""

    table: Table
    fence: tuple[int, ...] = ()
    assign: dict[str, ShardRow] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """What shards an app has and how they are given to hosts."""

    shards: int
    """Of each host group."""
    groups: tuple[str, ...] = ("",)
    """Host groups that the app's types ask for; the default one is empty."""
    allocation: Allocation = field(default_factory=LeastShards)
    load: Mapping[str, float] = field(default_factory=dict)
    """Shard → commands/s as last measured."""
    locations: Mapping[str, str] = field(default_factory=dict)
    """Shard → host slot or node that somebody outside asked for."""
    after: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Host group → the groups it starts after, also by way of others."""
    held: frozenset[int] = frozenset()
    """Hosts that are fenced, or about to be, and keep what they have until their leases are over: they get nothing more."""

    def names(self) -> list[str]:
        """Return the names of all shared shards, in a stable order."""
        numbers = [str(number) for number in range(self.shards)]
        return [f"{group}:{number}" if group else number for group in self.groups for number in numbers]


def joined(table: Table, joining: Sequence[HostRow], layout: Layout) -> Plan:
    """Hosts joined: they get what nobody owns. Earlier incarnations of their names are gone.

    Args:
        table: The table before.
        joining: The new incarnations; those that join together share evenly.
        layout: The app's shards.
    """
    names = {host.name for host in joining}
    new = {host.incarnation for host in joining}
    old = tuple(number for number, row in table.hosts.items() if row.name in names and number not in new)
    hosts = {number: row for number, row in table.hosts.items() if number not in old}
    hosts |= {host.incarnation: host for host in joining}
    orphans = {shard for shard, row in table.shards.items() if row.owner in old}
    return _assign(table, hosts, orphans, old, layout)


def gone(table: Table, incarnations: Iterable[int], layout: Layout) -> Plan:
    """Hosts are gone: fence them, their shards go to survivors at once."""
    lost = tuple(number for number in incarnations if number in table.hosts)
    hosts = {number: row for number, row in table.hosts.items() if number not in lost}
    orphans = {shard for shard, row in table.shards.items() if row.owner in lost}
    return _assign(table, hosts, orphans, lost, layout)


def known(table: Table, stored: Table, held: frozenset[int] = frozenset()) -> Table:
    """Return what the store holds, as far as this registry knows the hosts.

    A host may have gone on under a new incarnation, taking its shards along. One that the store has
    and the table does not is left out: it has yet to report that it is up, and would not hear of
    shards given to it before.

    Args:
        table: The table before.
        stored: What the store holds.
        held: Hosts that are fenced in the store and keep their shards until their leases are over.
    """
    names = {row.name for number, row in table.hosts.items() if number not in stored.hosts}
    hosts = {number: row for number, row in stored.hosts.items() if number in table.hosts or row.name in names}
    hosts |= {number: row for number, row in table.hosts.items() if number in held}
    # One that went on under a new incarnation is still being emptied.
    drained = {table.hosts[number].name for number in table.draining if number in table.hosts}
    draining = frozenset(number for number, row in hosts.items() if row.name in drained)
    return Table(max(table.version, stored.version), hosts, stored.shards, draining)


def settled(table: Table, layout: Layout, targets: Mapping[str, int] | None = None) -> Plan:
    """Shards that were released, or lost their owner, get one.

    Args:
        table: The table before.
        layout: The app's shards.
        targets: Where the rebalance wants released shards; the others go to whoever has fewest.
    """
    return _assign(table, table.hosts, set(), (), layout, targets)


def draining(table: Table, numbers: Iterable[int]) -> Table:
    """Return the table with exactly these hosts being emptied."""
    wanted = frozenset(numbers) & table.hosts.keys()
    return msgspec.structs.replace(table, version=table.version + 1, draining=wanted)


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


def few_at_a_time(targets: Mapping[str, int], shards: int, settings: Settings) -> list[dict[str, int]]:
    """Divide what moves into what moves together: nobody serves that between the first shard let go and the last taken.

    Args:
        targets: Shard → host that gets it.
        shards: How many shards the app has, dedicated entities not counted.
        settings: The app's; see ``hand_off_shards`` and ``hand_off_share_max``.
    """
    together = max(1, min(settings.hand_off_shards, int(shards * settings.hand_off_share_max)))
    rest = iter(targets.items())
    return list(iter(lambda: dict(itertools.islice(rest, together)), {}))


def moves(table: Table, layout: Layout, moves_max: int) -> dict[str, Move]:
    """Return the next rebalance round."""
    chosen: dict[str, Move] = {}
    for group in layout.groups:
        chosen |= layout.allocation.moves(_view(table, table.hosts, group, layout), moves_max - len(chosen))
        if len(chosen) >= moves_max:
            break
    return chosen


def emptying(table: Table, layout: Layout, moves_max: int) -> dict[str, Move]:
    """Return the next moves away from hosts that are being emptied; none where nobody else may take them.

    A group follows those it depends on, so that in a rollout a new release finds what it needs of its own: it stays
    where it is until they have moved. One that cannot move, or is not asked to, holds up nobody.
    """
    leaving: dict[str, dict[str, int]] = {}
    for number in sorted(table.draining):
        for shard in table.owned_by(number):
            if "/" not in shard:
                leaving.setdefault(group_of(shard), {})[shard] = number
    movable: dict[str, dict[str, Move]] = {}
    for group in (group for group in layout.groups if group in leaving):
        sources = leaving[group]
        view = _view(table, table.hosts, group, layout)
        if view.hosts and not view.hosts.keys() & table.draining:
            placed = layout.allocation.place(list(sources)[:moves_max], view)
            movable[group] = {shard: Move(sources[shard], target) for shard, target in placed.items()}
    ahead = {group for group, found in movable.items() if found}
    now = [found for group, found in movable.items() if not ahead & layout.after.get(group, frozenset())]
    return dict(itertools.islice((move for found in now for move in found.items()), moves_max))


def next_moves(
    table: Table, layout: Layout, *, moves_max: int, share_max: float, joining: bool, rebalance: bool = True,
) -> dict[str, Move]:  # fmt: skip
    """Return what to move now: first what has to leave; to even things out only while nothing else changes.

    Args:
        table: The table.
        layout: The app's shards.
        moves_max: Shards per round.
        share_max: And at most this share of all.
        joining: Whether a host is being started.
        rebalance: Whether evening out is on at all.
    """
    if table.draining:
        return emptying(table, layout, moves_max)
    if not rebalance or joining or in_rollout(table):
        return {}
    return moves(table, layout, moves_allowed(len(layout.names()), moves_max, share_max))


def left_to_expire(table: Table) -> set[int]:
    """Return hosts that are fenced and still stand as owners of shards: their leases may be running.

    Args:
        table: As the store holds it.
    """
    return {row.owner for row in table.shards.values() if row.owner} - table.hosts.keys()


def in_rollout(table: Table) -> bool:
    """Return whether hosts run different releases: then shards would move to those that are about to go."""
    return len({row.release for row in table.hosts.values()}) > 1


def unplaced_dedicated(table: Table) -> list[str]:
    """Return dedicated entities that have a shard row and no live actor."""
    return sorted(name for name, row in table.shards.items() if "/" in name and row.owner == 0)


def want_dedicated(table: Table, key: str) -> Plan:
    """A dedicated entity is asked for the first time: give it a shard row without an owner."""
    assign = {} if key in table.shards else {key: ShardRow(0, 0)}
    return Plan(_next(table, table.hosts, {**table.shards, **assign}), (), assign)


def _view(table: Table, hosts: Mapping[int, HostRow], group: str, layout: Layout) -> View:
    """Return what the allocation sees of a group: hosts that may be given shards.

    In a rollout those are the hosts of the release that joined last, so that a shard does not move to one that is
    about to go as well: each moves once. (One of before that loses its lease meanwhile and goes on counts as the last
    for as long as no other joins: a shard may then move twice.) Where all of them are being emptied they are what there
    is: served by one of those rather than by nobody.
    """
    shared = {
        number: row for number, row in hosts.items()
        if not row.dedicated and row.group == group and number not in layout.held
    }  # fmt: skip
    staying = {number: row for number, row in shared.items() if number not in table.draining} or shared
    latest = staying[max(staying)].release if staying else ""
    chosen = {number: row for number, row in staying.items() if row.release == latest}
    owned: dict[int, list[str]] = {number: [] for number in chosen}
    for name in sorted(table.shards):
        owner = table.shards[name].owner
        if owner in owned:
            owned[owner].append(name)
    return View(chosen, owned, layout.load, layout.locations)


def _assign(
    table: Table, hosts: dict[int, HostRow], orphans: set[str], fence: tuple[int, ...], layout: Layout,
    targets: Mapping[str, int] | None = None,
) -> Plan:  # fmt: skip
    own_actor = {row.dedicated: number for number, row in hosts.items() if row.dedicated and number not in layout.held}
    rows = dict(table.shards)
    # Owners that are no host any more: those that are lost now, and any that a plan missed before.
    ended = {row.owner for row in rows.values() if row.owner and row.owner not in hosts}
    orphans = orphans | {name for name, row in rows.items() if row.owner in ended}
    fence = (*fence, *sorted(ended.difference(fence)))
    open_shared = [name for name in layout.names() if name not in rows or rows[name].owner == 0 or name in orphans]
    chosen = _place(msgspec.structs.replace(table, shards=_without(rows, orphans)), hosts, open_shared, layout, targets)
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


def _without(rows: Mapping[str, ShardRow], orphans: set[str]) -> dict[str, ShardRow]:
    return {name: row for name, row in rows.items() if name not in orphans}


def _place(
    table: Table, hosts: Mapping[int, HostRow], shards: Sequence[str], layout: Layout,
    targets: Mapping[str, int] | None,
) -> dict[str, int]:  # fmt: skip
    """Return who gets shards that nobody owns: where they were meant to go if that host may have them."""
    chosen: dict[str, int] = {}
    for group in layout.groups:
        wanted = [name for name in shards if group_of(name) == group]
        if not wanted:
            continue
        view = _view(table, hosts, group, layout)
        meant = {name: host for name in wanted if (host := (targets or {}).get(name, 0)) in view.hosts}
        owned = {
            number: [*names, *(n for n, host in meant.items() if host == number)]
            for number, names in view.owned.items()
        }
        view = View(view.hosts, owned, view.load, view.locations)
        chosen |= meant | layout.allocation.place([name for name in wanted if name not in meant], view)
    return chosen


def _next(table: Table, hosts: dict[int, HostRow], shards: dict[str, ShardRow]) -> Table:
    return Table(table.version + 1, hosts, shards, table.draining & hosts.keys())
