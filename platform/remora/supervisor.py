"""Supervisors: code of an app's own that is told of failures, and may decide what becomes of what failed.

::

    class OrdersSupervisor(Supervisor):
        entities = (Order, Basket)

        async def on_failure(self, failure: Failure) -> Directive | None:
            if "TimeoutError" in failure.kinds:
                return Directive.RESUME
            return None  # the declared rules decide

    app = App("shop", entities=[Order, Basket], supervisors=[OrdersSupervisor])

It runs in a process of its own, a Ray named detached actor, away from what it supervises. Whatever becomes of it,
nothing waits for it longer than ``Settings.supervisor_ask_s``: the declared rules decide then, and it is told later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from remora.contract import EntitySpec
from remora.entity import Entity
from remora.errors import ContractError
from remora.ids import snake_case
from remora.supervision.failure import Failure
from remora.supervision.rules import Directive

T = TypeVar("T", bound=Entity[Any])


class Terminated(msgspec.Struct, frozen=True):
    """An entity that answers nothing any more, until an operator or another host lets it."""

    entity: str
    """``type/id``."""
    reason: str
    """What its callers are told."""
    quarantined: bool = False
    """Whether it was held apart for taking its hosts down; else its supervision rules stopped it."""


class Reach(Protocol):
    """The part of a client that a supervisor needs."""

    def ref(self, cls: type[T], entity_id: str) -> T:
        """Return a reference to an entity; its commands and queries are awaited on it."""
        ...


class Process(Protocol):
    """What runs a supervisor, as the supervisor reaches it."""

    @property
    def client(self) -> Reach:
        """Reaches the app's entities."""
        ...

    def watch(self, spec: EntitySpec, entity_id: str) -> None:
        """Look whether an entity has terminated."""
        ...

    def unwatch(self, spec: EntitySpec, entity_id: str) -> None:
        """Look no more."""
        ...


class Supervisor:
    """Base of an app's supervisors: ``App(…, supervisors=[OrdersSupervisor])``.

    Its methods run concurrently, like those of any asyncio program. What it holds in memory is gone when its process is:
    what must not be lost belongs in an entity, which ``client`` reaches.
    """

    entities: ClassVar[Sequence[type[Entity[Any]] | str]] = ()
    """The entity types it is for, as classes or snake_case names; empty: all that no other supervisor of the app names."""
    name: ClassVar[str] = ""
    """Snake_case of the class; names its actor: ``remora/APP/supervisor/NAME``."""
    _process: Process

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401 - as object's own
        """Name it."""
        super().__init_subclass__(**more)
        cls.name = snake_case(cls.__name__)

    async def started(self) -> None:
        """Do what is to be done first, each time its process starts: what it watched, it watches no more."""

    async def on_failure(self, failure: Failure) -> Directive | None:
        """Decide what becomes of an entity, or take note of what was decided.

        Args:
            failure: What failed; its ``command`` is ``recovery`` or ``snapshot`` where that is no handler. Its
                ``directive`` is empty where this decides: the entity waits, for ``Settings.supervisor_ask_s`` at most,
                after which this is cancelled, and told later. Else it says what was decided without this supervisor,
                which was away or slow, or is not asked since a process has ended (``remora.Crashed``); ``times`` of them
                are told as one, maybe again after this process ended.

        Returns:
            The directive, or None: the declared rules decide. A restart's pause is always that of the rules. What is
            returned for a failure that is decided already has no effect.
        """
        del failure
        return None

    async def on_terminated(self, terminated: Terminated) -> None:
        """Take note that an entity which was watched has terminated. It is watched no more."""

    @property
    def client(self) -> Reach:
        """Reaches the app's entities, for commands and queries."""
        return self._process.client

    def watch(self, entity: type[Entity[Any]], entity_id: str) -> None:
        """Have ``on_terminated`` called once when an entity has terminated; at once if it has already.

        An entity that leaves memory, moves or restarts has not terminated. It is looked at every second, so that one
        stopped and let go again within that time may go unseen. A dedicated entity is started by being watched.

        Args:
            entity: Its class.
            entity_id: Its id.

        Raises:
            InvalidId: It cannot be an id.
            Overloaded: So many are watched already that no more can be.
        """
        self._process.watch(entity.__remora__, entity_id)

    def unwatch(self, entity: type[Entity[Any]], entity_id: str) -> None:
        """Watch an entity no more."""
        self._process.unwatch(entity.__remora__, entity_id)


def assigned(app: str, supervisors: Iterable[type[Supervisor]], types: Iterable[str]) -> Mapping[str, type[Supervisor]]:
    """Return the supervisor of each entity type that has one.

    Args:
        app: Name of the app, for messages.
        supervisors: Its supervisors.
        types: Its entity types.

    Raises:
        ContractError: Two for one type or with one name, a type that the app does not have, or what is no supervisor.
    """
    known, found = list(types), dict[str, type[Supervisor]]()
    rest: type[Supervisor] | None = None
    names: set[str] = set()
    for cls in supervisors:
        if not (isinstance(cls, type) and issubclass(cls, Supervisor) and cls.name):
            msg = f"App {app!r}: {cls!r} is not a supervisor class: derive it from remora.Supervisor."
            raise ContractError(msg)
        if cls.name in names:
            msg = f"App {app!r}: two supervisors are named {cls.name!r}: rename one."
            raise ContractError(msg)
        names.add(cls.name)
        if not cls.entities:
            if rest is not None:
                msg = f"App {app!r}: {rest.__name__} and {cls.__name__} are both for all entities: name those of one in `entities`."
                raise ContractError(msg)
            rest = cls
        for entity in cls.entities:
            kind = entity if isinstance(entity, str) else _type_of(entity)
            if kind not in known:
                msg = f"App {app!r}: {cls.__name__} is for {kind!r}; the app has {', '.join(sorted(known))}."
                raise ContractError(msg)
            if kind in found:
                msg = f"App {app!r}: {found[kind].__name__} and {cls.__name__} are both for {kind!r}: leave it to one."
                raise ContractError(msg)
            found[kind] = cls
    return found if rest is None else {kind: found.get(kind, rest) for kind in known}


def _type_of(entity: object) -> str:
    spec = getattr(entity, "__remora__", None)
    return repr(entity) if spec is None else str(spec.type)
