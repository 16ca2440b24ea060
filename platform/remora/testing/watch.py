"""Looks at a handler while the runtime runs it, and runs it a second time beside it.

A kit's host runs a copy of the entity's description whose handlers are wrapped: what goes in and
comes out is seen here, on the very path that a command takes in production.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from remora.contract import EntitySpec, HandlerSpec
from remora.entity import Entity, Event, EventSourced, Turn
from remora.errors import InvalidArgument
from remora.testing.compare import first_difference
from remora.testing.outside import Message, Outside, UnansweredCall

_UNWATCHED = frozenset({"broken", "calls", "events", "spoiled", "waits"})
"""Fields of a turn that are not what the handler asked for, or are compared by themselves."""


class EffectMismatch(AssertionError):  # noqa: N818 - states what was found
    """A command that ran twice from one state did two different things."""


class RoundTripMismatch(AssertionError):  # noqa: N818 - states what was found
    """A value does not come back from the journal, or from the wire, as it was."""


@dataclass
class Run:
    """What one run of a handler did."""

    turn: Turn
    before: BaseModel
    after: BaseModel
    value: Any = None
    failure: BaseException | None = None
    emitted: list[Event] = field(default_factory=list)
    """The events as the handler made them."""
    calls: list[Message] = field(default_factory=list)


class Watch:
    """Wraps the handlers of one entity type.

    Args:
        spec: The entity type.
        outside: Answers calls.
        check_effects: Run commands twice and compare.
    """

    def __init__(self, spec: EntitySpec, outside: Outside, *, check_effects: bool) -> None:
        self.runs: list[Run] = []
        """Every run, in order; failed ones too."""
        self.problem: AssertionError | None = None
        """What was found first and is not reported yet."""
        self.ended = asyncio.Event()
        """Set when a run ends."""
        self._original = spec
        self._outside = outside
        self._check_effects = check_effects
        self.spec = dataclasses.replace(spec)
        # Both are computed on first use and kept in the instance: what is there already is taken.
        vars(self.spec)["handlers"] = {name: self._wrap(handler) for name, handler in spec.handlers.items()}
        if spec.durable:
            vars(self.spec)["reminder_handler"] = self._wrap(spec.reminder_handler)

    def report(self) -> None:
        """Raise what was found, once."""
        problem, self.problem = self.problem, None
        if problem is not None:
            raise problem

    def _wrap(self, handler: HandlerSpec) -> HandlerSpec:
        wrapped = copy.copy(handler)

        async def run(entity: Entity[Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any handler
            rehearsal = None
            if self._check_effects and not handler.is_query:
                rehearsal = await self._run(handler, _scratch(entity), copy.deepcopy(args), copy.deepcopy(kwargs))
                if isinstance(rehearsal.failure, asyncio.CancelledError):
                    raise rehearsal.failure  # the runtime's deadline, not the handler's doing
            actual = await self._run(handler, entity, args, kwargs)
            self.runs.append(actual)
            self.ended.set()
            try:
                self._check(handler, actual, rehearsal)
            except AssertionError as problem:
                self.problem = self.problem or problem
            if actual.failure is not None:
                raise actual.failure
            return actual.value

        wrapped.fn = run
        return wrapped

    async def _run(self, handler: HandlerSpec, entity: Entity[Any], args: Any, kwargs: Any) -> Run:  # noqa: ANN401 - any handler
        turn = entity._turn  # noqa: SLF001 - the runtime's half of Entity
        if turn is None:
            msg = "The runtime gave the handler no turn."
            raise RuntimeError(msg)
        run = Run(turn, before=copy.deepcopy(entity.state), after=entity.state)
        if isinstance(entity, EventSourced):
            _listen(entity, run.emitted)
        began = len(self._outside.calls)
        try:
            run.value = copy.deepcopy(await handler.fn(entity, *args, **kwargs))
        except (Exception, SystemExit, asyncio.CancelledError) as failure:  # noqa: BLE001 - raised again by who called
            run.failure = failure
            if isinstance(failure, UnansweredCall):
                self.problem = self.problem or failure
        finally:
            vars(entity).pop("emit", None)
        run.calls = self._outside.calls[began:]
        del self._outside.calls[began:]
        run.after = copy.deepcopy(entity.state)
        # The runtime empties the turn's lists when a command is refused.
        run.turn = dataclasses.replace(turn, **_collections(turn))
        return run

    # -- what is checked -------------------------------------------------------------------------------

    def _check(self, handler: HandlerSpec, run: Run, rehearsal: Run | None) -> None:
        if isinstance(run.failure, asyncio.CancelledError):
            return
        if handler.is_query:
            found = first_difference(run.before, run.after, "state")
            if found is not None:
                msg = f"{handler.label} is a query and changed the state, which nobody will ever see again: {found}."
                raise AssertionError(msg)
        if rehearsal is not None:
            self._check_same(handler, rehearsal, run)
        if run.failure is None:
            self._check_values(handler, run)

    def _check_same(self, handler: HandlerSpec, first: Run, second: Run) -> None:
        one, other = _did(first), _did(second)
        differences = (first_difference(one[what], other[what], what) for what in one)
        found = next((difference for difference in differences if difference is not None), None)
        if found is not None:
            msg = (
                f"{handler.label} ran twice from the same state, at the same instant, and did two different things: "
                f"{found}. It depends on what is not in its state and arguments: the wall clock (use self.now()), "
                "randomness, a global or an attribute of its own. A command may run again after a failure and has to "
                "do the same then; EntityKit(…, check_effects=False) leaves this check out."
            )
            raise EffectMismatch(msg)

    def _check_values(self, handler: HandlerSpec, run: Run) -> None:
        """Have everything that is written or sent make its round trip."""
        spec = self._original
        try:
            data = handler.write_reply(run.value)
        except TypeError:
            return  # the runtime refuses it too, and says so
        _survives(handler.label, handler.reply.validate_python(run.value), handler.read_reply(data), "reply")
        if handler.is_query or not spec.durable:
            return
        self._check_events(handler, run)
        try:
            data = spec.write_state(run.after)
        except Exception as error:
            msg = f"{handler.label} left a state that cannot be written: {error}"
            raise RoundTripMismatch(msg) from error
        _survives(handler.label, run.after, spec.state_type.model_validate_json(data), "state")
        for kind, _, method, args in run.turn.sends:
            self._check_send(handler, kind, method, args)

    def _check_events(self, handler: HandlerSpec, run: Run) -> None:
        spec = self._original
        if spec.kind != "event_sourced":
            return
        replayed: EventSourced[Any, Any] = spec.cls()
        replayed.state = copy.deepcopy(run.before)
        for (name, data), emitted in zip(run.turn.events, run.emitted, strict=True):
            event = spec.readers[name](data)
            _survives(handler.label, emitted, event, name)
            replayed.apply(event)
        found = first_difference(run.after, replayed.state, "state")
        if found is not None:
            msg = (
                f"{handler.label} left a state that its events do not make: {found}. Change self.state in apply only, "
                "and let apply depend on nothing but state and event."
            )
            raise RoundTripMismatch(msg)

    def _check_send(self, handler: HandlerSpec, kind: str, method: str, args: bytes) -> None:
        receiver = self._outside.receivers.get(kind)
        if receiver is None:
            return
        try:
            receiver.handler(method).parse(args)
        except InvalidArgument as error:
            msg = f"{handler.label} sends what the receiver would refuse: {error.message}"
            raise RoundTripMismatch(msg) from error


def _scratch(entity: Entity[Any]) -> Entity[Any]:
    """Return another instance with the same state, in the same turn, of which nobody keeps anything."""
    turn = entity._turn  # noqa: SLF001 - the runtime's half of Entity
    beside: Entity[Any] = type(entity)()
    beside.id, beside.state = entity.id, copy.deepcopy(entity.state)
    beside._turn = None if turn is None else dataclasses.replace(turn, **_collections(turn))  # noqa: SLF001 - as above
    return beside


def _listen(entity: EventSourced[Any, Any], emitted: list[Event]) -> None:
    """Note what a handler emits, as it made it; the class's own ``emit`` does the work."""

    def emit(event: Event) -> None:
        emitted.append(copy.deepcopy(event))
        type(entity).emit(entity, event)

    vars(entity)["emit"] = emit  # on this instance, until the run ends


def _collections(turn: Turn) -> dict[str, Any]:
    values = {f.name: getattr(turn, f.name) for f in dataclasses.fields(turn)}
    return {name: copy.copy(value) for name, value in values.items() if isinstance(value, list | dict)}


def _did(run: Run) -> dict[str, Any]:
    """Return what a run did as plain values, in the order worth naming a difference in."""
    failure = run.failure if run.failure is not None else run.turn.spoiled
    turn = {f.name: getattr(run.turn, f.name) for f in dataclasses.fields(run.turn) if f.name not in _UNWATCHED}
    return {
        "raised": None if failure is None else f"{type(failure).__name__}: {failure}",
        "events": [{name: msgspec.json.decode(data)} for name, data in run.turn.events],
        "reply": run.value,
        "calls": run.calls,
        "state": run.after,
        **turn,
    }


def _survives(label: str, before: object, after: object, what: str) -> None:
    found = first_difference(before, after, what)
    if found is not None:
        msg = f"{label}: a value does not survive being written and read back: {found}. Declare the field with the type that it holds."
        raise RoundTripMismatch(msg)


def check_arguments(handler: HandlerSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return a call's arguments as they travel.

    Raises:
        RoundTripMismatch: One of them does not arrive as it was given.
        InvalidArgument: They are refused.
    """
    data = handler.bind(args, kwargs)
    handler.parse(data)
    arrived = handler.args_model.model_validate_json(data)
    try:
        # As the annotations read it, without JSON in between: a tuple given for a list is no loss.
        given = handler.args_model.model_validate({**dict(zip(handler.params, args, strict=False)), **kwargs})
    except ValidationError:
        return data  # what only JSON's rules take, such as a date as text
    for name in handler.params:
        _survives(handler.label, getattr(given, f"p_{name}"), getattr(arrived, f"p_{name}"), name)
    return data
