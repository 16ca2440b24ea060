"""What the registry can say about one shard, as a pure function of what it knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from remora.sharding.hashing import group_of
from remora.sharding.membership import Suspicion
from remora.sharding.table import ShardRow, Table
from remora.why import About


class Moving(NamedTuple):
    """A hand-off under way."""

    target: str
    """Name of the host that gets the shard; empty while that is open."""
    since_s: float


def about(
    table: Table, shard: str, now_s: float, *,
    renewed: Mapping[int, float],
    moving: Mapping[str, Moving],
    unowned: Mapping[str, float],
    suspected: Mapping[int, Suspicion],
    store_away_since_s: float | None = None,
) -> About:  # fmt: skip
    """Return what is known of a shard.

    Args:
        table: The table.
        shard: Name of the shard.
        now_s: The registry's time, as all times here.
        renewed: incarnation → when its lease was last seen to be renewed.
        moving: Hand-offs under way.
        unowned: Shards without an owner → since when.
        suspected: Hosts taken to be gone.
        store_away_since_s: When the store stopped answering the registry, if it does not answer.
    """
    row = table.shards.get(shard)
    known, row = row is not None, row or ShardRow(0, 0)
    host = table.hosts.get(row.owner)
    said = About(shard=shard, epoch=row.epoch, dedicated="/" in shard, placed=known)
    if store_away_since_s is not None:
        said.store_away_s = now_s - store_away_since_s
    move = moving.get(shard)
    if move is not None:
        said.target, said.moving_s = move.target, now_s - move.since_s
    if host is None:
        if shard in unowned:
            said.unowned_s = now_s - unowned[shard]
        said.unowned_because = _no_owner_because(table, shard, row)
        return said
    said.owner, said.host, said.node = row.owner, host.name, host.node
    if row.owner in renewed:
        said.renewed_s = now_s - renewed[row.owner]
    suspicion = suspected.get(row.owner)
    if suspicion is not None:
        said.suspected_because, said.suspected_s = suspicion.because, now_s - suspicion.since_s
    return said


def _no_owner_because(table: Table, shard: str, row: ShardRow) -> str:
    if "/" in shard:
        return "the actor of this dedicated entity is being started"
    group = group_of(shard)
    if not any(host.group == group and not host.dedicated for host in table.hosts.values()):
        what = f"no host of group {group!r}" if group else "no host"
        return f"{what} is up; they are being started"
    if row.epoch:
        return "its last owner is gone or has released it, and it is being given to another"
    return "it is being given out for the first time"


def note_unowned(unowned: dict[str, float], table: Table, shards: Iterable[str], now_s: float) -> None:
    """Keep ``unowned`` up to date: since when each shard has had no owner.

    Args:
        unowned: Shard → since when; changed.
        table: The table now.
        shards: The shards that ought to have an owner.
        now_s: The time now.
    """
    without = [name for name in shards if (row := table.shards.get(name)) is None or row.owner not in table.hosts]
    without += [name for name, row in table.shards.items() if "/" in name and row.owner not in table.hosts]
    for name in set(unowned).difference(without):
        del unowned[name]
    for name in without:
        unowned.setdefault(name, now_s)
