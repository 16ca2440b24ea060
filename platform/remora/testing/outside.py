"""Everything around the one entity of a kit: it answers its calls and takes in its sends."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

from remora.client import Client, Pending
from remora.clock import Clock
from remora.contract import EntitySpec, HandlerSpec, MethodName
from remora.entity import Entity
from remora.errors import ContractError
from remora.messages import VALUE
from remora.settings import Settings
from remora.sharding.table import Table
from remora.why import Glance

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="Entity[Any]")


class UnansweredCall(AssertionError):  # noqa: N818 - states what happened
    """The entity called another one, and the test has not said what that answers."""


@dataclass(frozen=True)
class Message:
    """A command or query that an entity sent, or called, another one with; ``message(…)`` makes one to compare with."""

    type: str
    """Of the receiver, in snake case."""
    id: str
    """Of the receiver."""
    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    """By name, defaults filled in, as the receiver gets them."""


def message(
    method: Callable[Concatenate[T, P], Coroutine[Any, Any, Any]], entity_id: str, *args: P.args, **kwargs: P.kwargs
) -> Message:
    """Return what ``self.send(method, entity_id, …)``, or a call, sends.

    Args:
        method: The command or query, named by its class: ``Airport.arrived``.
        entity_id: Id of the receiver.
        args: Arguments.
        kwargs: Named arguments.

    Raises:
        InvalidArgument: The receiver would refuse the arguments.
    """
    handler, spec = named(method)
    return as_sent(spec, handler, entity_id, handler.bind(args, kwargs))


def as_sent(spec: EntitySpec, handler: HandlerSpec, entity_id: str, data: bytes) -> Message:
    """Return a message from its arguments as they travel.

    Raises:
        InvalidArgument: The receiver would refuse them.
    """
    args, kwargs = handler.parse(data)
    return Message(spec.type, entity_id, handler.name, {**dict(zip(handler.params, args, strict=False)), **kwargs})


def named(method: object) -> tuple[HandlerSpec, EntitySpec]:
    """Return what ``Airport.arrived`` names.

    Raises:
        ContractError: It is not a command or query named by its class.
    """
    if not isinstance(method, MethodName):
        msg = f"Name a command or query by its class, such as Airport.arrived, not {method!r}."
        raise ContractError(msg)
    spec: EntitySpec = method.owner.__remora__  # type: ignore[attr-defined]  # set on every entity class
    return spec.handler(method.name), spec


def entity_specs(root: type[Any] = Entity) -> Iterator[EntitySpec]:
    """Yield every entity type that is defined in this process."""
    for cls in root.__subclasses__():
        spec = vars(cls).get("__remora__")
        if spec is not None:
            yield spec
        yield from entity_specs(cls)


class _Nowhere:
    """Directory and transport of a client that never goes anywhere."""

    async def table(self, after: int) -> Table:
        """See Directory."""
        raise NotImplementedError(after)

    async def place(self, key: str) -> None:
        """See Directory."""
        raise NotImplementedError(key)

    async def suspect(self, host: str) -> None:
        """See Directory: there is no host here that could be gone."""

    async def leave(self) -> None:
        """See Directory: nobody here waits for a table."""

    async def about(self, shard: str) -> dict[str, Any]:
        """See Directory."""
        raise NotImplementedError(shard)

    async def exchange(self, host: str, data: bytes) -> bytes:
        """See Transport."""
        raise NotImplementedError(host, data)

    async def glance(self, host: str) -> Glance:
        """See Transport."""
        raise NotImplementedError(host)


class Outside(Client):
    """Stands where a host has its client.

    Args:
        clock: Time.
        settings: The app's settings.
        receivers: Entity types by name, which sends are checked against.
    """

    def __init__(self, clock: Clock, settings: Settings, receivers: dict[str, EntitySpec]) -> None:
        super().__init__(_Nowhere(), _Nowhere(), clock, settings, "kit")
        self.answers: dict[tuple[str, str, str], object] = {}
        """(type, method, id or empty for any) → the answer, what makes it, or what is raised"""
        self.receivers = receivers
        self.calls: list[Message] = []
        """What the entity called and waited for."""

    def submit(self, pending: Pending) -> None:
        """Take in a durable send as if its receiver had applied it."""
        asyncio.get_running_loop().call_soon(pending.resolve, VALUE, b"null")

    def withdraw(self, pending: Pending) -> None:
        """Nothing is under way."""

    async def call(
        self,
        spec: EntitySpec,
        method: HandlerSpec | str,
        entity_id: str,
        args: bytes,
        **_: Any,  # noqa: ANN401 - what only matters on the way
    ) -> tuple[int, bytes]:
        """Answer a call of the entity as the test said.

        Raises:
            UnansweredCall: It said nothing about this one.
        """
        name = method if isinstance(method, str) else method.name
        where = f"{spec.cls.__name__}.{name}"
        known = self.answers.get((spec.type, name, entity_id), self.answers.get((spec.type, name, ""), _NONE))
        if known is _NONE or isinstance(method, str):
            msg = f"The entity called {where} of {entity_id!r}, and nothing answers that: kit.answer({where}, …) says what does."
            raise UnansweredCall(msg)
        sent = as_sent(spec, method, entity_id, args)
        self.calls.append(sent)
        if isinstance(known, BaseException):
            raise known
        value = known
        if callable(known):
            value = known(**sent.arguments)
            if inspect.isawaitable(value):
                value = await value
        return VALUE, method.write_reply(value)


_NONE = object()
