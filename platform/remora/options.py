"""Options declared on an entity class: ``options = EntityOptions(...)``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from remora.supervision.readiness import Check, Readiness, names, readiness
from remora.supervision.rules import Rule, Rules


@dataclass(frozen=True, slots=True)
class HostGroup:
    """Hosts of their own for entity types that need certain nodes: ``App(host_groups={"gpu": HostGroup(…)})``."""

    hosts: int = 1
    """How many hosts in the whole cluster."""
    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1.0})
    """Ray resources of each, ``CPU``, ``GPU`` and ``memory`` (bytes) among them."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that its node must have, as Ray's ``label_selector``: ``value``, ``!value``, ``in(a,b)``, ``!in(a,b)``."""
    depends_on: tuple[str, ...] = ()
    """Other host groups by their names, ``"shared"`` for the hosts that every app has: these hosts start once all of those
    have joined and what lives there is ready, and stop before them."""
    ready_when: tuple[Readiness | Check, ...] = ()
    """Checks that each of these hosts passes, one after the other, before it joins and gets anything to serve."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        names(self.depends_on, "HostGroup")
        readiness(self.ready_when, "HostGroup")
        if self.hosts < 1:
            msg = f"HostGroup.hosts must be at least 1, not {self.hosts!r}."
            raise ValueError(msg)
        for name, amount in self.resources.items():
            if not amount >= 0:
                msg = f"HostGroup.resources[{name!r}] must not be below 0, as {amount!r} is."
                raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class EntityOptions:
    """How entities of one type are run. Every field has a default that suits small entities."""

    passivate_after_s: float = 120.0
    """Idle seconds after which an entity leaves memory (Akka's default), up to a minute later where there are very many;
    ``math.inf``: never for that reason. Where there are too many (``Settings.live_max``) it may leave before."""
    remember: bool = False
    """Activate entities again without being asked: after a crash of their host, a move, a restart of the whole platform. From
    an entity's first command on until it asks to leave with ``self.passivate()``; none leaves memory for being idle, or
    because there are too many. For entities that must be quick at any time. Not for ``Transient`` ones."""
    snapshot_every: int = 100
    """Entries between snapshots: bounds what a recovery replays."""
    snapshot_bytes: int = 256 * 1024
    """Bytes of events after which there is a snapshot even before ``snapshot_every``: a page that a store reads at once."""
    snapshots_kept: int = 2
    """Snapshots kept per ``EventSourced`` entity: one more than needed, should the newest not be readable."""
    delete_events: bool = False
    """Delete events that are older than all snapshots kept and than the dedup window. Off: the journal is the history."""
    mailbox_max: int = 1024
    """Waiting commands and queries per entity before ``Overloaded``."""
    dedup_window: int = 1000
    """Last commands, durable sends and reminders it received among them, whose ids and replies an entity remembers."""
    dedup_age_s: float = 7 * 86_400.0
    """Age after which a remembered command may be forgotten, in seconds."""
    deadline_s: float = 10.0
    """Seconds a caller waits when it names no deadline of its own."""
    placement: Literal["shared", "dedicated"] = "shared"
    """``shared``: with many others in a host. ``dedicated``: a Ray named detached actor of its own."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Ray resources of a dedicated entity, for example ``{"CPU": 1, "GPU": 1}``."""
    host_group: str = ""
    """Host group whose hosts run shared entities of this type, by its name in ``App(host_groups=…)``; empty: the
    hosts that every app has."""
    supervision: Rules = ()
    """Rules for failures, in order; the first that matches decides. Where none does: restart with a growing pause, and
    ``Transient`` ones, whose state is nowhere else, resume."""
    depends_on: tuple[str | type[Any], ...] = ()
    """Other entity types, by their snake_case names or as classes: entities of this one are served once those are ready on
    all their hosts, and stop before them."""
    ready_when: tuple[Readiness | Check, ...] = ()
    """Checks that pass, one after the other, in each process that has entities of this type, before any is served there."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        if not isinstance(self.supervision, tuple) or not all(isinstance(rule, Rule) for rule in self.supervision):
            msg = "EntityOptions.supervision is a tuple of rules: (on(ValueError).resume(),)."
            raise ValueError(msg)
        names(self.depends_on, "EntityOptions")
        readiness(self.ready_when, "EntityOptions")
        for name in (
            "passivate_after_s",
            "snapshot_every",
            "snapshot_bytes",
            "snapshots_kept",
            "mailbox_max",
            "dedup_window",
            "dedup_age_s",
            "deadline_s",
        ):
            if not getattr(self, name) > 0:
                msg = f"EntityOptions.{name} must be above 0, not {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.placement not in {"shared", "dedicated"}:
            msg = f"EntityOptions.placement is 'shared' or 'dedicated', not {self.placement!r}."
            raise ValueError(msg)
        if self.host_group and self.placement == "dedicated":
            msg = "EntityOptions.host_group is for shared entities: a dedicated one says what it needs in resources."
            raise ValueError(msg)
        if self.resources and self.placement != "dedicated":
            msg = "EntityOptions.resources needs placement='dedicated': shared entities use their host's resources."
            raise ValueError(msg)
