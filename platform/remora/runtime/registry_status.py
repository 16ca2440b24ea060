"""What a registry tells about itself: hosts, shards, and why a shard is where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from remora.sharding import about as abouts
from remora.sharding.about import Moving
from remora.sharding.table import slot_order

if TYPE_CHECKING:
    from remora.runtime.registry import Registry

PARKED_SHOWN = 50
"""Parked entries that a status lists."""
Place = tuple[bool, list[tuple[int, str]]]
"""Where a host stands in a list."""


async def status(registry: Registry) -> dict[str, Any]:
    """Return the table's summary and the state of the outboxes."""
    undelivered, parked = await registry.store.outbox_counts()
    table, now_s = registry.current, registry.clock.monotonic_s()
    return {
        "app": registry.app.name,
        "store": registry.store.url,
        "leader": registry.name,
        "term": registry.term,
        "version": table.version,
        "shards": registry.app.settings.shards,
        "hosts": _hosts(registry),
        "gone": [
            {"name": name, "because": because, "for_s": round(now_s - at_s, 1)}
            for name, because, at_s in registry.gone_lately
        ],
        "refused": dict(registry.refused),
        "halted": registry.levels.halted,
        "waiting": registry.startup.shown(),
        "drained": sorted(registry.drained),
        "quarantine": len(registry.inquest.listed()),
        "moved": registry.rebalance.moved,
        "outbox": {"undelivered": undelivered, "parked": parked},
        "parked": [
            {"entity": row.entity, "sends": _readable(row.sends), "reason": row.reason}
            for row in (await registry.store.parked(PARKED_SHOWN) if parked else [])
        ],
    }


async def shards(registry: Registry) -> list[dict[str, Any]]:
    """Return every shard: who owns it, what becomes of it, and how many entities of it are in memory (None: not known)."""
    table = registry.current  # as it is when asked: a host that does not answer may be given up while it is waited for
    live = await registry.hosts.live()
    found = []
    for name in sorted({*registry.layout.names(), *table.shards}, key=_in_order):
        row = table.shards.get(name)
        host = table.hosts.get(row.owner) if row is not None else None
        found.append(
            {
                "shard": name,
                "owner": row.owner if row is not None else 0,
                "host": host.name if host is not None else "",
                "node": host.node if host is not None else "",
                "epoch": row.epoch if row is not None else 0,
                "state": _state(registry, name, host is not None),
                "live": live.get(name),
                "commands_s": round(registry.rebalance.load.get(name, 0.0), 1),
            }
        )
    return found


async def failures(registry: Registry, limit: int, of: str) -> list[dict[str, Any]]:
    """Return what failed, the latest first: ``journal.FailureRow`` as plain data, its ``latest`` decoded.

    Args:
        registry: Whose store is asked.
        limit: At most so many rows.
        of: An entity ``type/id``, or a type; empty: of all.

    Raises:
        UnknownEntity: The app has no such type.
    """
    if of:
        registry.app.spec(of.partition("/")[0])
    rows = await registry.store.failures(limit, of)
    return [{**msgspec.structs.asdict(row), "latest": msgspec.json.decode(row.latest)} for row in rows]


def quarantine(registry: Registry) -> list[dict[str, Any]]:
    """Return what is held back or apart, the latest first, each with its crashes that are remembered, the latest first."""
    inquest = registry.inquest
    return [
        {
            **msgspec.structs.asdict(one),
            "latest": [
                msgspec.structs.asdict(crash)
                for crash in reversed(inquest.crashes)
                if crash.entity == one.entity and one.command in {"", crash.command}
            ],
        }
        for one in inquest.listed()
    ]


def about(registry: Registry, shard: str) -> dict[str, Any]:
    """Return what is known of a shard and its owner: ``remora.why.About`` as plain data."""
    table, rebalance, watch = registry.current, registry.rebalance, registry.detection.watch
    moving = {}
    if (move := rebalance.under_way.get(shard)) is not None:
        target = table.hosts.get(move.target)
        moving[shard] = Moving("" if target is None else target.name, rebalance.since_s[shard])
    said = abouts.about(
        table, shard, registry.clock.monotonic_s(),
        renewed={number: sight.since_s for number, sight in watch.sights.items()}, moving=moving,
        unowned=registry.unowned, suspected=watch.suspicions, store_away_since_s=registry.detection.store_away_since_s,
    )  # fmt: skip
    if registry.levels.halted and said.unowned_because:
        said.unowned_because = registry.levels.halted
    elif not said.owner:
        said.waits_for = registry.startup.shard_waits_for(shard)
    return msgspec.structs.asdict(said)


def _hosts(registry: Registry) -> list[dict[str, Any]]:
    """Return a row per host, in the order of their slots: one that joins has the same columns, those not known yet empty."""
    table = registry.current
    rows: list[tuple[Place, dict[str, Any]]] = [
        (
            place_of(row.slot, row.dedicated),
            {
                "name": row.name,
                "state": registry.detection.state(row.incarnation).value,
                "incarnation": row.incarnation,
                "node": row.node,
                "pid": row.pid,
                "group": row.group,
                "dedicated": row.dedicated,
                "shards": len(table.owned_by(row.incarnation)),
            },
        )
        for row in table.hosts.values()
    ]
    unknown = {"incarnation": None, "node": "", "pid": None, "group": "", "dedicated": ""}
    rows += [
        (place_of(slot, "/" in slot), {"name": slot, "state": "joining", **unknown, "shards": 0})
        for slot in registry.joining
    ]
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def place_of(slot: str, dedicated: object) -> Place:
    """Return what sorts hosts by their slots, which a host that joins goes by the short name of, dedicated ones last."""
    return bool(dedicated), slot_order(slot if dedicated else slot.rpartition("/")[2])


def _state(registry: Registry, name: str, owned: bool) -> str:  # noqa: FBT001 - two of the three states need nothing else
    if name in registry.rebalance.under_way:
        return "moving"
    return "owned" if owned else "without a host"


def _in_order(name: str) -> tuple[str, int, str]:
    """Return what sorts shards by group and number, dedicated entities last."""
    group, _, number = name.rpartition(":")
    return (group, int(number), "") if number.isdecimal() else ("~", 0, name)


def _readable(sends: str) -> list[Any]:
    try:
        return msgspec.json.decode(sends, type=list[Any])
    except ValueError:
        return []  # parked because nobody can read it: the reason says so
