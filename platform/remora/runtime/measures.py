"""What hosts and registry measure of themselves, by name; who publishes it is told what each is.

All of it is kept anyway, as plain numbers: reading them costs microseconds and no lock, so that it
is done by a thread of its own, which goes on when a handler keeps the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from remora.runtime.host import Host
    from remora.runtime.registry import Registry

T = TypeVar("T")
Kind = Literal["counter", "gauge", "histogram"]
LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Boundaries of the latency histogram."""


@dataclass(frozen=True, slots=True)
class Measure(Generic[T]):
    """One measure."""

    name: str
    """Without a unit where it counts things; ``_seconds`` or ``_bytes`` at its end otherwise."""
    kind: Kind
    meaning: str
    read: Callable[[T], float]
    """Reads it; of a counter the count so far. Unused for a histogram, whose samples are taken from the host."""


def _queue(host: Host) -> float:
    return sum(session.taken - session.answered for session in host.sessions())


def _lease_age_s(host: Host) -> float:
    settings, until_s = host.settings, host.lease.until_s
    began_s = until_s - settings.lease_ttl_s + settings.lease_margin_s
    return host.clock.monotonic_s() - began_s if until_s else settings.lease_ttl_s


def _oldest_sight_s(registry: Registry) -> float:
    now_s = registry.clock.monotonic_s()
    return max((now_s - sight.since_s for sight in registry.detection.watch.sights.values()), default=0.0)


OF_HOST: tuple[Measure[Host], ...] = (
    Measure("remora_commands", "counter", "Commands and queries taken.", lambda host: host.commands),
    Measure("remora_latency_seconds", "histogram", "From taking a command or query to its answer, commit included; one sample per batch.", lambda _: 0.0),
    Measure("remora_queue", "gauge", "Commands and queries taken and not answered yet.", _queue),
    Measure("remora_live_entities", "gauge", "Entities in memory.", lambda host: len(host.cells)),
    Measure("remora_activations", "counter", "Entities brought into memory.", lambda host: host.activations),
    Measure("remora_recoveries_waiting", "gauge", "Entities that wait to be read back.", lambda host: host.recovery.waiting),
    Measure("remora_recoveries", "counter", "Entities read back from the store.", lambda host: host.recovery.count),
    Measure("remora_commits", "counter", "Commits written.", lambda host: host.committer.commits),
    Measure("remora_commit_entries", "counter", "Commands in those commits: divided by the commits, the batch size.", lambda host: host.committer.rows),
    Measure("remora_commit_seconds", "counter", "Time spent waiting for the store to confirm commits.", lambda host: host.committer.busy_s),
    Measure("remora_outbox", "gauge", "Commands whose durable sends are not all delivered.", lambda host: host.outbox.pending),
    Measure("remora_overloaded", "counter", "Commands refused because the host as a whole had too much to do.", lambda host: host.backpressure.refused),
    Measure("remora_blocked_handlers", "counter", "Handlers found to keep the event loop for longer than `Settings.blocked_s`.", lambda host: host.watchdog.blocked),
    Measure("remora_loop_kept_seconds", "gauge", "For how long a handler has kept the event loop at this moment; 0 if none does.", lambda host: host.watchdog.glance().for_s),
    Measure("remora_failures", "counter", "Commands and queries that failed: neither answered nor rejected.", lambda host: host.failures.count),
    Measure("remora_deadlocks", "counter", "Handlers that gave up because entities waited for each other.", lambda host: host.deadlocks.found),
    Measure("remora_lease_age_seconds", "gauge", "Since the host's lease was last renewed.", _lease_age_s),
)  # fmt: skip
"""Of every host; tags: app, host (its slot, or the type of a dedicated entity)."""

OF_REGISTRY: tuple[Measure[Registry], ...] = (
    Measure("remora_moves", "counter", "Shards moved between hosts that stand.", lambda registry: registry.rebalance.moved),
    Measure("remora_fences", "counter", "Hosts given up: their incarnations ended in the store.", lambda registry: registry.given_up),
    Measure("remora_crashes", "counter", "Hosts taken down by what an entity ran.", lambda registry: registry.inquest.found),
    Measure("remora_quarantined", "gauge", "Entities and commands held back or apart because they took hosts down.", lambda registry: len(registry.inquest.listed())),
    Measure("remora_hosts", "gauge", "Hosts in the table.", lambda registry: len(registry.current.hosts)),
    Measure("remora_hosts_suspected", "gauge", "Hosts that somebody gets no answer from.", lambda registry: len(registry.detection.watch.suspicions)),
    Measure("remora_shards_without_host", "gauge", "Shards that no host owns.", lambda registry: len(registry.unowned)),
    Measure("remora_lease_unseen_seconds", "gauge", "Since the registry saw the lease renewed that it has waited for longest.", _oldest_sight_s),
    Measure("remora_term", "gauge", "The leader term the registry writes under.", lambda registry: registry.term),
)  # fmt: skip
"""Of the registry that leads; tag: app."""
