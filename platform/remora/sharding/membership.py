"""Which hosts are there, as one registry sees it: pure functions over what it has looked at.

The life of a host::

    start asked                registered                     exit proven, or
    ──────────▶ JOINING ────────────────▶ UP ──────────┐      lease over
                   │                      ▲ │          ├──────────────────▶ GONE
                   │ did not start        │ ▼          │                     ▲
                   └──────────────▶ GONE  SUSPECT ─────┘                     │
                                            ▲ │                              │
                       drain asked, or       ▼ │   nothing left              │
              UP ──────node leaves────▶ DRAINING ────────────────────────────┘

A host is SUSPECT from when somebody reports that it does not answer (Ray, a client, a call of the
registry's) until its lease is seen to be renewed, or is over. Suspicion decides nothing: it makes
the registry look more often, and is shown. What decides is an exit that is proven, or a lease that
was not renewed for its whole time under the registry's own uninterrupted eyes; a host that is
suspected for ``unreachable_s`` although it renews (it reaches the store) is asked by the registry:
if it answers, whoever reported it is the one cut off, and it stays; if not, it is fenced, which
ends its lease, and is then waited for as any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from remora.sharding.table import Table

BEYOND_S = 0.001
"""Seconds beyond the end of a lease at which it is looked at: enough to be beyond it."""


class HostState(Enum):
    """Where a host is in its life; see the drawing above."""

    JOINING = "joining"
    """It is being started and owns nothing yet."""
    UP = "up"
    DRAINING = "draining"
    """It is being emptied and gets nothing new."""
    SUSPECT = "suspect"
    """It does not answer somebody, and has not renewed its lease since."""
    GONE = "gone"
    """Its incarnation has ended."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What the registry has seen of one lease."""

    renewed: float
    """The renewal last seen: the holder's own clock, compared for being equal only."""
    since_s: float
    """When it was first seen, on the registry's clock."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """That a host does not answer."""

    because: str
    since_s: float
    again_s: float
    """When it was last reported."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What the registry knows of its hosts' lives beyond the table."""

    sights: Mapping[int, Sight] = field(default_factory=dict)
    suspicions: Mapping[int, Suspicion] = field(default_factory=dict)
    looked_s: float = float("-inf")
    """When leases were last read."""
    held: frozenset[int] = frozenset()
    """Fenced, or about to be, while their leases may still be running: they keep what they have and get nothing more."""


def looked(
    watch: Watch, hosts: Iterable[int], leases: Mapping[int, float], now_s: float, ttl_s: float,
    fenced: Collection[int] = (),
) -> Watch:  # fmt: skip
    """Return the watch after leases were read.

    A gap in the registry's own view of the store starts every count anew: it may be its own fault.

    Args:
        watch: Before.
        hosts: Incarnations there are.
        leases: Incarnation → last renewal, as read.
        now_s: When they were read.
        ttl_s: Seconds a lease lasts.
        fenced: Hosts that were before this: what they write since renews nothing, and they may not know that yet.
    """
    gap = now_s - watch.looked_s > ttl_s / 2
    sights: dict[int, Sight] = {}
    suspicions = dict(watch.suspicions)
    for number in hosts:
        renewed, before = leases.get(number, 0.0), watch.sights.get(number)
        if before is None or gap or (before.renewed != renewed and number not in fenced):
            sights[number] = Sight(renewed, now_s)
        else:
            sights[number] = before
        if before is not None and before.renewed != renewed and not _persists(watch, number, now_s, ttl_s):
            suspicions.pop(number, None)
    suspicions = {number: one for number, one in suspicions.items() if number in sights}
    return Watch(sights, suspicions, now_s, watch.held & sights.keys())


def _persists(watch: Watch, number: int, now_s: float, ttl_s: float) -> bool:
    """Return whether it is still being reported: a renewal alone does not answer who cannot reach the host."""
    suspicion = watch.suspicions.get(number)
    return suspicion is not None and now_s - suspicion.again_s <= ttl_s


def suspected(watch: Watch, number: int, because: str, now_s: float) -> Watch:
    """Return the watch after somebody reported that a host does not answer."""
    before = watch.suspicions.get(number)
    since_s = now_s if before is None else before.since_s
    return replace(watch, suspicions={**watch.suspicions, number: Suspicion(because, since_s, now_s)})


def over(watch: Watch, ttl_s: float) -> list[int]:
    """Return hosts whose lease is over by what this registry itself has seen."""
    return [number for number, sight in watch.sights.items() if watch.looked_s - sight.since_s > ttl_s]


def pause_s(watch: Watch, period_s: float, now_s: float, ttl_s: float) -> float:
    """Return the seconds until leases are to be looked at again: a period, or until the first of them is over.

    Args:
        watch: What was seen.
        period_s: Seconds between looks.
        now_s: Now, on the registry's clock.
        ttl_s: Seconds a lease lasts.
    """
    ends_s = (sight.since_s + ttl_s for sight in watch.sights.values() if sight.since_s + ttl_s >= now_s)
    # What is over in this moment is seen by the next look; of what was over before nobody gets news any sooner.
    return min(period_s, max(min(ends_s, default=now_s + period_s) - now_s, 0.0) + BEYOND_S)


def unreachable(watch: Watch, unreachable_s: float) -> list[int]:
    """Return hosts that renew their leases and have been reported for so long that they are to be fenced."""
    return [
        number
        for number, one in watch.suspicions.items()
        if one.again_s - one.since_s > unreachable_s and number not in watch.held
    ]


def held(watch: Watch, numbers: Iterable[int]) -> Watch:
    """Return the watch after hosts were fenced whose leases may still be running."""
    return replace(watch, held=watch.held | set(numbers))


def let_go(watch: Watch, numbers: Iterable[int]) -> Watch:
    """Return the watch after hosts went on under other incarnations: nobody waits for the leases of those before."""
    return replace(watch, held=watch.held.difference(numbers))


def last_renewed(watch: Watch, numbers: Iterable[int], leases: Mapping[int, float], now_s: float) -> Watch:
    """Return the watch after the last renewals of hosts that have been fenced were read: no more will come.

    Args:
        watch: Before.
        numbers: Their incarnations.
        leases: Incarnation → last renewal, as read since.
        now_s: When they were read.
    """
    late = {
        number: Sight(leases.get(number, 0.0), now_s)
        for number in numbers
        if number in watch.sights and watch.sights[number].renewed != leases.get(number, 0.0)
    }
    return replace(watch, sights={**watch.sights, **late})


def reached(watch: Watch, number: int) -> Watch:
    """Return the watch after the registry itself got an answer from a host that others report."""
    suspicions = {one: suspicion for one, suspicion in watch.suspicions.items() if one != number}
    return replace(watch, suspicions=suspicions, held=watch.held - {number})


def state_of(table: Table, watch: Watch, number: int) -> HostState:
    """Return where a host is in its life."""
    if number not in table.hosts:
        return HostState.GONE
    if number in watch.suspicions:
        return HostState.SUSPECT
    return HostState.DRAINING if number in table.draining else HostState.UP
