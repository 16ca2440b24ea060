"""The programming model: what users of Remora write. Read this module first.

An entity is a class of one of three kinds. They differ in what survives a crash:

    EventSourced[State, Event]   a journal of events; the state is what ``apply`` makes of them
    Durable[State]               ``self.state``, committed before the reply leaves
    Transient[State]             memory only: after a crash the state is the initial one

Its ``@command`` methods may change it, its ``@query`` methods only look. One runs at a time.
A command is atomic: if it raises, its events, changes, sends and reminders vanish.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
)

from pydantic import BaseModel, ConfigDict

from remora.contract import EntitySpec, Handler, Kind, MethodName, build_spec
from remora.errors import ContractError
from remora.ids import check_entity_id
from remora.options import EntityOptions
from remora.reminder import CODES, Misfire
from remora.why import Why

if TYPE_CHECKING:
    from remora.contract import HandlerSpec

REMINDER_NAME_MAX = 100
"""Longest name of a reminder, in characters."""
PERIOD_MIN_S = 1.0
"""Shortest period of a reminder, in seconds: for what happens more often, keep count in the state."""
SENDS_MAX = 255
"""Durable sends one command may make: an entry numbers them in one byte."""


class Event(BaseModel):
    """Something that happened to an ``EventSourced`` entity. Immutable; derive yours from it.

    The class's name is its stable name in the journal: moving the class to another module
    changes nothing, renaming it does. Class keywords say what has changed since it was first written:

        class Paid(Event, name="payment")              a name in the journal other than the class's
        class Paid(Event, formerly=("Payment",))       earlier names that are read as this event
        class Paid(Event, version=2)                   its data has another shape now; see ``upcast``
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )
    __remora_event__: ClassVar[str] = "Event"
    __remora_version__: ClassVar[int] = 1
    __remora_formerly__: ClassVar[tuple[str, ...]] = ()
    __remora_written__: ClassVar[str] = "Event"
    """What stands in the journal: the name, from version 2 on with ``@`` and the version."""

    def __init_subclass__(
        cls,
        *,
        name: str = "",
        version: int = 1,
        formerly: tuple[str, ...] = (),
        **kwargs: Any,  # noqa: ANN401 - pydantic's own
    ) -> None:
        """Give the class its stable name and its version."""
        super().__init_subclass__(**kwargs)
        stable = name or cls.__name__
        if type(version) is not int or version < 1:
            msg = f"{cls.__name__}: the version of an event is a whole number from 1, not {version!r}."
            raise ContractError(msg)
        if not isinstance(formerly, tuple):
            msg = f"{cls.__name__}: formerly is a tuple of names: write formerly=({formerly!r},)."
            raise ContractError(msg)
        for one in (stable, *formerly):
            # Release 0.1.0 allowed @ in names: such a name may stand in formerly, unless it looks like a version.
            marked = "@" in one if one is stable else one.rpartition("@")[2].isdecimal() and "@" in one
            if not one.isprintable() or not one.strip() or '"' in one or "\\" in one or marked:
                msg = f"{cls.__name__}: {one!r} cannot be the name of an event: use printable text without quotes, backslashes and @."
                raise ContractError(msg)
        cls.__remora_event__, cls.__remora_version__, cls.__remora_formerly__ = stable, version, formerly
        cls.__remora_written__ = stable if version == 1 else f"{stable}@{version}"

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        name: str = "",
        version: int = 1,
        formerly: tuple[str, ...] = (),
        **kwargs: Any,  # noqa: ANN401 - pydantic's own
    ) -> None:
        """Take the class keywords that ``__init_subclass__`` has seen already."""
        del name, version, formerly
        super().__pydantic_init_subclass__(**kwargs)

    @classmethod
    def upcast(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Return the data of an older version in the shape of the present one. Override it with ``version=2``.

        Args:
            data: As it was written: plain JSON values.
            version: Which version wrote it, from 1 to the one before the present.

        Returns:
            What the present class is to be read from; it is validated as every event is.
        """
        del data
        msg = f"{cls.__name__} has no upcast from version {version}: define upcast(cls, data, version)."
        raise ContractError(msg)


S = TypeVar("S", bound=BaseModel)
E = TypeVar("E", bound=Event)
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="Entity[Any]")
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])


RunIn = Literal["loop", "thread"]


@overload
def command(fn: F, /) -> F: ...
@overload
def command(*, run_in: RunIn = "loop") -> Callable[[F], F]: ...
def command(fn: F | None = None, /, *, run_in: RunIn = "loop") -> F | Callable[[F], F]:
    """Mark an ``async`` method as a command: it may change the entity and is applied once per command id.

    Args:
        fn: The method.
        run_in: ``loop``: in its host's event loop, between awaits alone. ``thread``: in a thread, for code
            that computes or blocks for longer than some milliseconds; such a method cannot await. It still
            runs alone in its entity. At its deadline the entity goes on without it: what the thread still
            does reaches nothing.
    """
    return _mark(fn, "command", run_in)


@overload
def query(fn: F, /) -> F: ...
@overload
def query(*, run_in: RunIn = "loop") -> Callable[[F], F]: ...
def query(fn: F | None = None, /, *, run_in: RunIn = "loop") -> F | Callable[[F], F]:
    """Mark an ``async`` method as a query: it sees every acknowledged command and changes nothing.

    Args:
        fn: The method.
        run_in: As of ``command``.
    """
    return _mark(fn, "query", run_in)


def _mark(fn: F | None, kind: Literal["command", "query"], run_in: RunIn) -> F | Callable[[F], F]:
    if run_in not in {"loop", "thread"}:
        msg = f"@{kind}(run_in={run_in!r}): a handler runs in 'loop' or in a 'thread'."
        raise ContractError(msg)

    def mark(fn: F) -> F:
        return cast("F", Handler(fn, kind, in_thread=run_in == "thread"))

    return mark if fn is None else mark(fn)


class Calls(Protocol):
    """How a running handler reaches other entities; the runtime gives it."""

    def ref(self, turn: Turn, cls: type[Any], entity_id: str) -> Any:  # noqa: ANN401 - typed by Entity.ref
        """Return a reference whose calls belong to this turn."""
        ...


@dataclass(slots=True)
class Turn:
    """What one running handler has asked for so far; nothing of it is real before the commit."""

    command_id: str
    now_ms: int
    writable: bool
    calls: Calls | None = None
    chain: tuple[str, ...] = ()
    deadline_s: float = 0.0
    ordinal: int = 0
    events: list[tuple[str, bytes]] = field(default_factory=list)
    sends: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    """(type, id, method, arguments)"""
    reminders: list[tuple[str, int | None, int, int]] = field(default_factory=list)
    """(name, due in ms, period in ms or 0, misfire policy), due None cancels"""
    passivate: bool = False
    erase: bool = False
    waits: dict[int, tuple[str, float]] = field(default_factory=dict)
    """Calls under way: ordinal → (entity, since when)."""
    broken: Exception | None = None
    """Why it was cancelled, if not for its deadline."""
    spoiled: BaseException | None = None
    """What ``apply`` raised: the handler has failed, whether or not it catches that."""

    @property
    def changed(self) -> bool:
        """Whether it may no longer call others and wait."""
        return bool(self.events or self.sends or self.reminders or self.erase)


class Entity(Generic[S]):
    """What all three kinds share. Derive from ``EventSourced``, ``Durable`` or ``Transient``."""

    __remora_kind__: ClassVar[Kind | None] = None
    __remora__: ClassVar[EntitySpec]
    options: ClassVar[EntityOptions] = EntityOptions()

    id: str
    """The entity's id within its type."""
    state: S
    """The entity's state."""
    _turn: Turn | None = None

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:  # noqa: ANN401 - class keywords
        """Check the class against the contract as it is defined."""
        super().__init_subclass__(**kwargs)
        kind = cls.__remora_kind__
        if kind is not None and not abstract and cls.__module__ != __name__:
            cls.__remora__ = build_spec(cls, kind, dict(sys._getframe(1).f_locals))  # noqa: SLF001 - as pydantic: names local to the caller

    def now(self) -> datetime:
        """Return the time of this turn (UTC): one instant for the whole handler, also for sends and reminders."""
        return datetime.fromtimestamp(self._in_turn().now_ms / 1000, UTC)

    def ref(self, cls: type[T], entity_id: str) -> T:
        """Return a reference to another entity, to call it and wait.

        A call waits until all that this entity could have seen is committed. After the first
        ``emit`` a command may only ``send``.
        """
        turn = self._in_turn()
        if turn.calls is None:
            msg = "self.ref needs a running platform: use remora.local(app)."
            raise ContractError(msg)
        return cast("T", turn.calls.ref(turn, cls, entity_id))

    def passivate(self) -> None:
        """Leave memory after this command; the next one brings the entity back."""
        self._in_turn().passivate = True

    def _in_turn(self) -> Turn:
        turn = self._turn
        if turn is None:
            msg = f"{type(self).__name__} is not running a handler: this works only inside @command and @query methods."
            raise ContractError(msg)
        return turn

    def _in_command(self) -> Turn:
        turn = self._in_turn()
        if not turn.writable:
            msg = f"{type(self).__name__} runs a query, which changes nothing: make it a command."
            raise ContractError(msg)
        return turn

    # What follows exists on references; here it gives the type checker their signatures.

    def with_options(
        self, *, command_id: str | None = None, deadline_s: float | None = None, stale: bool = False
    ) -> Self:
        """On a reference: return one that calls with these options.

        Args:
            command_id: Id of the next command; the same id again gives the same reply, applied once.
            deadline_s: Seconds to wait for the answer.
            stale: Answer queries from memory even when the host's lease is in doubt.
        """
        raise _only_on_references(self, f"with_options({command_id=}, {deadline_s=}, {stale=})")

    async def why(self) -> Why:
        """On a reference: return what the entity does or waits for, and for how long.

        There is an answer within a second also when the entity's host is dead, frozen or cut off:
        then it tells what the registry knows, or without the registry what the client knows.
        """
        raise _only_on_references(self, "why()")

    async def history(self, *, after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        """On a reference: return recorded events in order.

        Args:
            after: Sequence number to start behind.
            limit: How many at most, up to 1,000.
        """
        raise _only_on_references(self, f"history({after=}, {limit=})")

    async def snapshot(self) -> dict[str, Any]:
        """On a reference: return the entity's state as plain data."""
        raise _only_on_references(self, "snapshot()")

    async def release_sends(self) -> int:
        """On a reference: send again what was parked of this entity's durable sends; return how many that are.

        A send is parked when its receiver's own code failed it ten times, or when nobody can ever
        take it. Mend the receiver first: ``remora status`` says what each was parked for.
        """
        raise _only_on_references(self, "release_sends()")


def _only_on_references(entity: Entity[Any], name: str) -> ContractError:
    return ContractError(f"{name} belongs to references: use client.ref({type(entity).__name__}, id).{name}.")


def _check_reminder_name(name: str) -> str:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= REMINDER_NAME_MAX:
        msg = f"A reminder's name is printable text of 1 to {REMINDER_NAME_MAX} characters, not {name!r}."
        raise ContractError(msg)
    return name


def _milliseconds(name: str, what: str, duration: timedelta | float, least_s: float) -> int:
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if not least_s <= seconds < 10**9:
        msg = f"remind({name!r}): {what} must be between {least_s} and 10**9 seconds, not {seconds!r}."
        raise ContractError(msg)
    return int(seconds * 1000)


class _Journaled(Entity[S], abstract=True):
    """What both kinds that are kept in the journal share."""

    state_version: ClassVar[int] = 1
    """Version of the state's shape: raise it when older states cannot be read as they are; see ``upcast_state``."""

    @classmethod
    def upcast_state(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Return a state of an older version in the shape of the present one. Override it with ``state_version = 2``.

        Args:
            data: As it was written: plain JSON values.
            version: Which version wrote it, from 1 to the one before the present.

        Returns:
            What the present state is to be read from; it is validated as every state is.
        """
        del data
        msg = f"{cls.__name__} has no upcast_state from version {version}: define upcast_state(cls, data, version)."
        raise ContractError(msg)

    def send(
        self,
        method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
        entity_id: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Send another entity a command durably.

        It leaves with this command's commit, is delivered at least once and applied once; order
        is kept per sender and receiver.

        Args:
            method: The command, named by its class: ``Airport.arrived``.
            entity_id: Id of the receiver.
            args: Arguments of the command.
            kwargs: Named arguments of the command.
        """
        turn = self._in_command()
        named: object = method
        if not isinstance(named, MethodName):
            msg = f"self.send takes a command named by its class, such as Airport.arrived, not {method!r}."
            raise ContractError(msg)
        spec: EntitySpec = named.owner.__remora__  # type: ignore[attr-defined]  # set on every entity class
        handler: HandlerSpec = spec.handler(named.name)
        if handler.is_query:
            msg = f"self.send takes a command; {spec.type}.{named.name} is a query."
            raise ContractError(msg)
        if len(turn.sends) >= SENDS_MAX:
            msg = f"One command may send at most {SENDS_MAX} messages: spread them over several commands."
            raise ContractError(msg)
        turn.sends.append((spec.type, check_entity_id(entity_id, spec.type), named.name, handler.bind(args, kwargs)))

    def erase(self) -> None:
        """Start over after this command: state as new, earlier events, snapshots and reminders deleted.

        Sequence numbers go on, and commands of before are still recognised. Reminders and sends of
        this command stay, and so do sends that are not delivered yet. The event that this command
        emits last is a good place to say why.
        """
        self._in_command().erase = True

    def remind(
        self,
        name: str,
        *,
        after: timedelta | float,
        every: timedelta | float | None = None,
        misfire: Literal["coalesce", "skip", "each"] = "coalesce",
    ) -> None:
        """Set a durable timer that calls ``on_reminder(name)`` after a while, also if passivated.

        It rings up to a quarter of a second late, and later still if nothing runs when it is due.

        Args:
            name: Tells the entity's reminders apart; setting one again replaces it.
            after: How long from now, as timedelta or seconds.
            every: Ring again after each such period, until cancelled or set again; at least a second.
            misfire: What becomes of periods that passed while nothing ran: ``coalesce`` rings once for
                all of them, ``skip`` for none, ``each`` for every one. A one-shot always rings, late.
        """
        turn = self._in_command()
        _check_reminder_name(name)
        after_ms = _milliseconds(name, "after", after, 0)
        every_ms = 0 if every is None else _milliseconds(name, "every", every, PERIOD_MIN_S)
        turn.reminders.append((name, turn.now_ms + after_ms, every_ms, CODES.index(Misfire(misfire))))

    def cancel_reminder(self, name: str) -> None:
        """Cancel a durable timer; one that does not exist is no error."""
        self._in_command().reminders.append((_check_reminder_name(name), None, 0, 0))

    async def on_reminder(self, name: str) -> None:
        """Handle a due reminder; runs as a command. Override it to use ``remind``."""
        msg = f"{type(self).__name__} got the reminder {name!r} and has no on_reminder method: define one."
        raise ContractError(msg)


class EventSourced(_Journaled[S], Generic[S, E], abstract=True):
    """An entity whose journal of events is the truth.

    ``self.emit(event)`` records an event and applies it at once; ``apply`` says what an event
    does to ``self.state`` and must depend on nothing but state and event, because it runs again
    at every recovery. After a crash: all acknowledged events.
    """

    __remora_kind__: ClassVar[Kind | None] = "event_sourced"

    def emit(self, event: E) -> None:
        """Record ``event`` and apply it to ``self.state`` at once; durable with this command's commit."""
        turn = self._in_command()
        spec = self.__remora__
        if type(event) not in spec.event_types:
            msg = f"{spec.cls.__name__} emitted {type(event).__name__}, which its class does not declare as an event."
            raise ContractError(msg)
        # Written before apply: what apply does with the event's parts cannot change what is recorded.
        turn.events.append(
            (event.__remora_written__, event.__pydantic_serializer__.to_json(event, by_alias=True, round_trip=True))
        )
        try:
            self.apply(event)
        except BaseException as error:
            turn.spoiled = error
            raise

    def apply(self, event: E) -> None:
        """Say what ``event`` does to ``self.state``. Override it."""
        msg = f"{type(self).__name__} must define apply(self, event): what {event!r} does to self.state."
        raise ContractError(msg)


class Durable(_Journaled[S], Generic[S], abstract=True):
    """An entity whose ``self.state`` is committed before the reply leaves.

    Change ``self.state`` in commands; after a crash: the last acknowledged state.
    """

    __remora_kind__: ClassVar[Kind | None] = "durable"


class Transient(Entity[S], Generic[S], abstract=True):
    """An entity in memory only: after a crash or passivation the state is the initial one.

    A planned move takes the state along, as far as its JSON shows it and unless the move fails.

    One activation at a time holds in fault-free operation; nothing is journaled, so it has no
    durable sends and no reminders.
    """

    __remora_kind__: ClassVar[Kind | None] = "transient"
