"""In which order the parts of an app start, and in reverse stop: decided once, when the app is defined.

Parts are host groups and entity types. A group comes after the groups it depends on and all that lives in those; a type
comes after the hosts it lives on and the types it depends on. Types say nothing about hosts: those of two groups start side
by side where only types depend on each other, since most that lives there need not wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from remora.errors import ContractError
from remora.supervision.readiness import Readiness

SHARED = "shared"
"""What the hosts that every app has are called in ``HostGroup.depends_on``."""


class Part(NamedTuple):
    """A host group or an entity type."""

    kind: Literal["group", "type"]
    name: str
    """As declared; empty for the hosts that every app has."""

    def __str__(self) -> str:
        """Return what people call it."""
        if self.kind == "type":
            return self.name
        return f"host group {self.name}" if self.name else "the shared hosts"

    @property
    def key(self) -> str:
        """What it is written down as."""
        return f"{self.kind}:{self.name}"


class Declared(NamedTuple):
    """What an app says about one part."""

    depends_on: tuple[str, ...] = ()
    """Names of parts of the same kind."""
    ready_when: tuple[Readiness, ...] = ()
    group: str | None = None
    """Of a type: the host group it lives on; None where each entity has a host of its own."""


def group_part(name: str) -> Part:
    """Return a host group as a part."""
    return Part("group", name)


def type_part(name: str) -> Part:
    """Return an entity type as a part."""
    return Part("type", name)


@dataclass(frozen=True, slots=True)
class Order:
    """What waits for what."""

    after: Mapping[Part, tuple[Part, ...]] = field(default_factory=dict)
    """Part → those it waits for, the declared ones first."""
    checks: Mapping[Part, tuple[Readiness, ...]] = field(default_factory=dict)
    every_host: tuple[Readiness, ...] = ()
    """Checks of every host, whatever it is for."""
    stages: tuple[tuple[Part, ...], ...] = ()
    """All parts: those of one stage wait for nothing but parts of earlier ones."""
    gated: Mapping[str, str | None] = field(default_factory=dict)
    """Types that are closed until they are opened, with the groups they live on: those that declare anything."""
    declared: bool = False
    """Whether anything at all is declared; if not, everything starts at once and nobody looks here again."""

    def due(self, reached: Collection[Part]) -> list[Part]:
        """Return what may become ready now: all that it waits for has been reached, and it has not."""
        return [
            part
            for stage in self.stages
            for part in stage
            if part not in reached and all(one in reached for one in self.after[part])
        ]

    def missing(self, part: Part, reached: Collection[Part]) -> list[Part]:
        """Return what a part waits for still."""
        return [one for one in self.after.get(part, ()) if one not in reached]

    def groups_before(self, group: str) -> frozenset[str]:
        """Return the host groups that one starts after, also by way of others and of the types that live on them."""
        found: set[Part] = set()
        ahead = [group_part(group)]
        while ahead:
            following = set(self.after.get(ahead.pop(), ())) - found
            found |= following
            ahead.extend(following)
        return frozenset(part.name for part in found if part.kind == "group")

    def before_joining(self, group: str, dedicated_type: str = "") -> tuple[Readiness, ...]:
        """Return the checks that a host passes before it is a host.

        Args:
            group: Its host group.
            dedicated_type: Type of the entity it exists for; empty if it is a shared one.
        """
        return self.every_host if dedicated_type else self.every_host + self.checks.get(group_part(group), ())

    def gated_on(self, group: str, dedicated_type: str = "") -> list[str]:
        """Return the types that one host has to wait with, in the order in which they are opened; see ``before_joining``."""
        return [
            part.name
            for stage in self.stages
            for part in stage
            if part.kind == "type"
            and part.name in self.gated
            and (part.name == dedicated_type if dedicated_type else self.gated[part.name] == group)
        ]


def arranged(
    app: str, groups: Mapping[str, Declared], types: Mapping[str, Declared], every_host: tuple[Readiness, ...] = ()
) -> Order:
    """Return the order that an app's declarations make.

    Args:
        app: Its name, for messages.
        groups: Its host groups, without the hosts that every app has.
        types: Its entity types.
        every_host: Checks of every host.

    Raises:
        ContractError: Something depends on what the app does not have, or in a circle on itself.
    """
    members: dict[str, list[Part]] = {}
    for name, declared in types.items():
        if declared.group is not None:
            members.setdefault(declared.group, []).append(type_part(name))
    after: dict[Part, tuple[Part, ...]] = {group_part(""): ()}
    for name, declared in groups.items():
        wanted = [
            group_part("" if one == SHARED else one)
            for one in _known(app, f"host group {name!r}", declared, {*groups, SHARED})
        ]
        after[group_part(name)] = _once([*wanted, *(part for one in wanted for part in members.get(one.name, ()))])
    for name, declared in types.items():
        wanted = [type_part(one) for one in _known(app, f"entity type {name!r}", declared, types)]
        home = [] if declared.group is None else [group_part(declared.group)]
        after[type_part(name)] = _once([*wanted, *home])
    checks = {group_part(name): declared.ready_when for name, declared in groups.items()}
    checks |= {type_part(name): declared.ready_when for name, declared in types.items()}
    gated = {name: one.group for name, one in types.items() if one.depends_on or one.ready_when}
    waits = any(one.depends_on or one.ready_when for one in groups.values())
    return Order(after, checks, every_host, _stages(app, after), gated, bool(gated or waits or every_host))


def _known(app: str, what: str, declared: Declared, known: Collection[str]) -> tuple[str, ...]:
    for name in declared.depends_on:
        if name not in known:
            msg = f"App {app!r}: {what} depends on {name!r}, which the app does not have; it has {', '.join(sorted(known))}."
            raise ContractError(msg)
    return declared.depends_on


def _once(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(dict.fromkeys(parts))


def _stages(app: str, after: Mapping[Part, tuple[Part, ...]]) -> tuple[tuple[Part, ...], ...]:
    stages: list[tuple[Part, ...]] = []
    placed: set[Part] = set()
    while len(placed) < len(after):
        stage = tuple(part for part, before in after.items() if part not in placed and placed.issuperset(before))
        if not stage:
            circle = " → ".join(map(str, _circle({part: after[part] for part in after if part not in placed})))
            msg = f"App {app!r}: none of these can start first, {circle}: take one of these depends_on away."
            raise ContractError(msg)
        stages.append(stage)
        placed.update(stage)
    return tuple(stages)


def _circle(after: Mapping[Part, tuple[Part, ...]]) -> list[Part]:
    """Return a circle, its first part again at its end, among parts none of which can be placed."""
    way = [next(iter(after))]
    while True:  # each of them waits for another of them, so the way never ends, and comes back at last
        following = next(part for part in after[way[-1]] if part in after)
        if following in way:
            return [*way[way.index(following) :], following]
        way.append(following)
