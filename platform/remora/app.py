"""An app: a name, its entity types, its settings."""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remora.config import AS_CODED, AppConfig
from remora.contract import EntitySpec
from remora.entity import Entity
from remora.errors import ContractError, StartError, UnknownEntity
from remora.options import HostGroup
from remora.settings import Settings
from remora.sharding.allocation import Allocation, LeastShards
from remora.sharding.registry import Layout
from remora.supervision.climbing import DEDICATED
from remora.supervision.levels import DEFAULTS, Supervision
from remora.supervision.order import SHARED, Declared, Order, arranged
from remora.supervision.readiness import Check, Readiness, names, readiness
from remora.supervision.rules import Rules
from remora.supervisor import Supervisor, assigned

_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,39}$")


class App:
    """What is deployed together: ``App("bank", entities=[Account])``.

    Args:
        name: Lower case, 1 to 40 letters, digits, ``-`` or ``_``; names actors, store and records.
        entities: The entity classes.
        settings: Limits and times; the defaults suit most apps.
        host_groups: Hosts of their own for types that ask for them (``EntityOptions.host_group``), by name.
        allocation: Where shards go.
        supervision: Rules above those on the classes.
        supervisors: Classes that are told of failures and may decide about them, each run in a process of its own.
        ready_when: Checks that every host passes before it joins, whatever it is for: a database that answers.

    Raises:
        ContractError: A bad name, no entities, two types with one snake_case name, a host group or type that no one
            declared, two supervisors for one type, or ``depends_on`` that go in a circle.
    """

    def __init__(
        self, name: str, *, entities: Sequence[type[Entity[Any]]], settings: Settings | None = None,
        host_groups: Mapping[str, HostGroup] | None = None, allocation: Allocation | None = None,
        supervision: Supervision | None = None, supervisors: Sequence[type[Supervisor]] = (),
        ready_when: tuple[Readiness | Check, ...] = (),
    ) -> None:  # fmt: skip
        if not _NAME.match(name):
            msg = f"App name {name!r}: use 1 to 40 lower-case letters, digits, '-' or '_', a letter first."
            raise ContractError(msg)
        if not entities:
            msg = f"App {name!r} has no entities: App({name!r}, entities=[YourEntity])."
            raise ContractError(msg)
        self.name = name
        self.settings = settings or Settings()
        self.host_groups = dict(host_groups or {})
        self.allocation: Allocation = allocation or LeastShards()
        self.specs: dict[str, EntitySpec] = {}
        for cls in entities:
            spec: EntitySpec | None = getattr(cls, "__remora__", None)
            if spec is None or spec.cls is not cls:
                msg = (
                    f"App {name!r}: {cls!r} is not an entity class: derive it from EventSourced, Durable or Transient."
                )
                raise ContractError(msg)
            other = self.specs.get(spec.type)
            if other is not None:
                msg = f"App {name!r}: {other.cls.__name__} and {cls.__name__} are both {spec.type!r} in URLs and keys: rename one."
                raise ContractError(msg)
            _ = spec.handlers  # annotations that could not be resolved before must be now
            self.specs[spec.type] = spec
        self._check_groups()
        self.supervisors = assigned(name, supervisors, self.specs)
        """Entity type → its supervisor; types that have none are missing."""
        self.order = self._arranged(ready_when)
        self._supervise(supervision or Supervision())

    def configured(self, config: AppConfig) -> App:
        """Return this app with what a config says in the place of what its code says.

        Raises:
            StartError: It names an entity type that the app does not have.
        """
        if config.supervision is None:
            return self
        other = copy.copy(self)
        try:
            other._supervise(config.supervision)  # noqa: SLF001 - the same class
        except ContractError as error:
            msg = f"The config does not fit: {error.message}"
            raise StartError(msg) from None
        return other

    def _supervise(self, supervision: Supervision) -> None:
        for name in supervision.entities:
            if name not in self.specs:
                msg = f"App {self.name!r}: supervision.entities names {name!r}; the app has {', '.join(sorted(self.specs))}."
                raise ContractError(msg)
        groups = {SHARED, DEDICATED, *self.host_groups}
        for name in supervision.groups:
            if name not in groups:
                msg = f"App {self.name!r}: supervision.groups names {name!r}; the app has {', '.join(sorted(groups))}."
                raise ContractError(msg)
        self.supervision = supervision
        self.rules: dict[str, tuple[Rules, Rules]] = {
            name: (supervision.entities.get(name, spec.options.supervision), DEFAULTS[spec.kind])
            for name, spec in self.specs.items()
        }
        """Entity type → its rules: those declared, and the defaults behind them."""

    def _check_groups(self) -> None:
        for group in self.host_groups:
            if not _NAME.match(group) or group == DEDICATED:
                msg = f"App {self.name!r}: host group {group!r}: use 1 to 40 lower-case letters, digits, '-' or '_', a letter first, and not {DEDICATED!r}."
                raise ContractError(msg)
            if group == SHARED:
                msg = f"App {self.name!r}: {SHARED!r} stands for the hosts that every app has: give the host group another name."
                raise ContractError(msg)
        for spec in self.specs.values():
            if spec.group and spec.group not in self.host_groups:
                msg = f"App {self.name!r}: {spec.cls.__name__} asks for the host group {spec.group!r}: add it to App(host_groups=…)."
                raise ContractError(msg)

    def _arranged(self, every_host: tuple[Readiness | Check, ...]) -> Order:
        groups = {
            name: Declared(names(group.depends_on, name), readiness(group.ready_when, name))
            for name, group in self.host_groups.items()
        }
        types = {
            name: Declared(
                names(spec.options.depends_on, name), readiness(spec.options.ready_when, name),
                None if spec.dedicated else spec.group,
            )
            for name, spec in self.specs.items()
        }  # fmt: skip
        return arranged(self.name, groups, types, readiness(every_host, "App"))

    @property
    def layout(self) -> Layout:
        """The app's shards: how many, of which host groups, and how they are given to hosts."""
        groups = {spec.group for spec in self.specs.values() if not spec.dedicated} | {""}
        after = {group: before for group in groups if (before := self.order.groups_before(group))}
        return Layout(self.settings.shards, tuple(sorted(groups)), self.allocation, after=after)

    def spec(self, type_name: str) -> EntitySpec:
        """Return an entity type by its snake_case name.

        Raises:
            UnknownEntity: There is none; the message lists those there are.
        """
        found = self.specs.get(type_name)
        if found is None:
            msg = f"App {self.name!r} has no entity type {type_name!r}; it has {', '.join(sorted(self.specs))}."
            raise UnknownEntity(msg)
        return found


def load_app(path: str) -> App:
    """Import an app by ``module:attribute``.

    Raises:
        StartError: The path is malformed, the module cannot be imported, or it is no App.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        msg = f"{path!r} does not name an app: write MODULE:APP, for example entities.account:app."
        raise StartError(msg)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        msg = f"Cannot import {module_name!r} ({error}): run from the folder that holds it, or install it."
        raise StartError(msg) from error
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        msg = f"{module_name} has no remora.App named {attribute!r}."
        raise StartError(msg)
    return app


@dataclass(frozen=True, slots=True)
class AppSource:
    """Where every process of an app gets it from."""

    path: str
    """``module:attribute`` of the app, importable on every node."""
    config: AppConfig = AS_CODED

    def load(self) -> App:
        """Import the app, configured.

        Raises:
            StartError: See ``load_app``, or the config names what the app does not have.
        """
        return load_app(self.path).configured(self.config)
