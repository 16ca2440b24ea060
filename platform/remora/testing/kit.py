"""``EntityKit``: one entity in a unit test, without a platform.

It runs the entity on a real host, in this process, on a store in memory, at a time that the test
turns. Around that it checks what unit tests forget: that every value survives being written and
read back, that the events make the state, that a command run twice does the same twice.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, Generic, Never, ParamSpec, Self, TypeVar, cast, overload

import msgspec
from pydantic import BaseModel

from remora.app import App
from remora.contract import EntitySpec
from remora.entity import Entity, Event, EventSourced
from remora.errors import ContractError, Rejected, RemoraError, decode_error
from remora.ids import check_entity_id
from remora.journal import Append, ReminderRow
from remora.messages import ERROR, FIRST, Ask
from remora.runtime.cell import Cell
from remora.runtime.host import Host
from remora.runtime.lease import Lease
from remora.runtime.outcome import answer_for
from remora.sharding.hashing import entity_key
from remora.sharding.table import HostRow
from remora.testing.clock import ManualClock
from remora.testing.compare import first_difference
from remora.testing.faults import FaultyStore
from remora.testing.outside import Message, Outside, as_sent, entity_specs, named
from remora.testing.watch import RoundTripMismatch, Run, Watch, check_arguments

S = TypeVar("S", bound=BaseModel)
E = TypeVar("E", bound=Event)
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="Entity[Any]")
S0 = TypeVar("S0", bound=BaseModel)
E0 = TypeVar("E0", bound=Event)

_decode_sends = msgspec.json.Decoder(list[tuple[str, str, str, msgspec.Raw]]).decode
_FOREVER_MS = 2**62
_RINGS_MAX = 10_000
"""Reminders that one jump of the clock fires before it is taken for an entity that rings without end."""
_TURNS_MAX = 1_000
"""Turns of the loop given to what is ready before it is taken for stuck."""


@dataclass(frozen=True)
class Reminder:
    """A durable timer that is set."""

    name: str
    due: datetime
    every: timedelta | None = None
    """Its period, if it rings more than once."""


@dataclass(frozen=True)
class Outcome(Generic[S, E, R]):
    """What one command or query did."""

    state: S
    """The entity's state after it; a copy."""
    rejected: Rejected | None = None
    """The business "no" it answered, or None."""
    events: list[E] = field(default_factory=list)
    """What it emitted, as read back from the journal."""
    sends: list[Message] = field(default_factory=list)
    """Its durable sends, in order."""
    calls: list[Message] = field(default_factory=list)
    """What it called and waited for, in order."""
    reminders: dict[str, Reminder | None] = field(default_factory=dict)
    """The reminders it set, by name; None: it was cancelled, or has rung for the last time."""
    erased: bool = False
    """Whether it erased the entity; ``state`` is the new one then."""
    _reply: R | None = None

    @property
    def reply(self) -> R:
        """What it answered.

        Raises:
            AssertionError: It was rejected: see ``rejected``.
        """
        if self.rejected is not None:
            msg = f"There is no reply, it was rejected: {self.rejected.message}"
            raise AssertionError(msg)
        return cast("R", self._reply)


class KitClock(Generic[S, E]):
    """A kit's time: it stands still until it is advanced."""

    def __init__(self, kit: EntityKit[S, E], manual: ManualClock) -> None:
        self._kit = kit
        self._manual = manual

    @property
    def now(self) -> datetime:
        """What ``self.now()`` gives in the next handler."""
        return datetime.fromtimestamp(self._manual.now_ms() / 1000, UTC)

    async def advance(self, seconds: float | timedelta) -> list[Outcome[S, E, None]]:
        """Let time pass, firing every reminder at the instant it is due; the entity passivates as it would.

        Args:
            seconds: How much.

        Returns:
            What each reminder did, in order.

        Raises:
            HandlerFailed: ``on_reminder`` raised.
        """
        passing = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        return await self._kit._pass_time(int(passing * 1000))  # noqa: SLF001 - the clock is the kit's face for time


class EntityKit(Generic[S, E]):
    """One entity, to run commands on and look at what they did.

    For example::

        kit = EntityKit(Account, "alice")
        result = await kit.run(Account.deposit, 10)
        assert result.events == [Deposited(amount=10)]
        assert result.reply == 10

    Every argument, event, state and reply makes the round trip through what is written, and a value
    that does not survive is named. Each command is run twice, on the entity and on a copy thrown
    away, and must do the same both times. Nothing has to be closed; ``async with`` may be used.

    Args:
        entity: The entity class.
        entity_id: The entity's id.
        check_effects: Run each command twice; off for handlers that cannot bear it.
    """

    @overload
    def __init__(
        self: EntityKit[S0, E0],
        entity: type[EventSourced[S0, E0]],
        entity_id: str = "kit",
        *,
        check_effects: bool = True,
    ) -> None: ...

    @overload
    def __init__(
        self: EntityKit[S0, Never], entity: type[Entity[S0]], entity_id: str = "kit", *, check_effects: bool = True
    ) -> None: ...

    def __init__(self, entity: type[Entity[Any]], entity_id: str = "kit", *, check_effects: bool = True) -> None:
        self._app = App("kit", entities=[entity])
        self._spec: EntitySpec = entity.__remora__
        self.id = check_entity_id(entity_id, self._spec.type)
        self.key = entity_key(self._spec.type, self.id)
        """What the entity is called in stores and logs."""
        self.store = FaultyStore()
        """The entity's journal, to be looked into and failed."""
        self._manual = ManualClock()
        self.clock: KitClock[S, E] = KitClock(self, self._manual)
        """The entity's time."""
        # A send names its receiver by type alone, and the host refuses types that its app does not have.
        receivers = {spec.type: spec for spec in entity_specs()} | {self._spec.type: self._spec}
        self._outside = Outside(self._manual, self._app.settings, receivers)
        self._watch = Watch(self._spec, self._outside, check_effects=check_effects)
        self._app.specs.update(receivers | {self._spec.type: self._watch.spec})
        self._host: Host | None = None
        self._lock = asyncio.Lock()
        self._asked = 0

    # -- what a test does --------------------------------------------------------------------------------

    async def run(
        self, method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> Outcome[S, E, R]:
        """Run a command or query and return what it did.

        Args:
            method: The command or query, named by its class: ``Account.deposit``.
            args: Its arguments.
            kwargs: Its named arguments.

        Returns:
            What it did; a business "no" is in ``rejected``.

        Raises:
            EffectMismatch: Run twice from one state, it did two different things.
            RoundTripMismatch: A value does not survive being written and read back.
            UnansweredCall: It called another entity, and no ``answer`` was given for that.
            HandlerFailed: It raised, from what it raised; nothing of it was kept.
            InvalidArgument: The arguments are refused.
        """
        handler, spec = named(method)
        if not issubclass(self._spec.cls, spec.cls):
            msg = f"This kit runs {self._spec.cls.__name__}, and {handler.label} is not a handler of it."
            raise ContractError(msg)
        handler = self._spec.handler(handler.name)
        data = check_arguments(handler, args, kwargs)
        async with self._lock:
            written, before = len(self.store.appends), len(self._watch.runs)
            verdict, payload = await self._ask(handler.name, data)
            run = self._watch.runs[before] if len(self._watch.runs) > before else None
            self._watch.report()
            error = decode_error(payload) if verdict == ERROR else None
            if error is not None and not (isinstance(error, Rejected) and run is not None):
                raise error from (None if run is None else run.failure)
            if run is None:
                msg = f"{handler.label} was answered without being run."
                raise AssertionError(msg)
            reply = None if error is not None else handler.read_reply(payload)
            return self._outcome(run, written, error, reply)

    def answer(
        self,
        method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
        reply: R | Callable[P, R] | Callable[P, Coroutine[Any, Any, R]] | RemoraError,
        *,
        entity_id: str = "",
    ) -> None:
        """Say what other entities answer when this one calls them through ``self.ref``.

        Args:
            method: What is called: ``Bank.rate``.
            reply: The answer; or a function that makes it from the call's arguments; or an error to raise.
            entity_id: Of whom; any if empty. What is said of one id goes before what is said of any.
        """
        handler, spec = named(method)
        if not callable(reply) and not isinstance(reply, BaseException):
            handler.write_reply(reply)  # refused here, where the mistake is
        self._outside.answers[spec.type, handler.name, entity_id] = reply

    async def state(self) -> S:
        """Return the entity's state; a copy."""
        async with self._lock:
            return cast("S", copy.deepcopy((await self._cell()).entity.state))

    async def reminders(self) -> dict[str, Reminder]:
        """Return the reminders that are set, by name."""
        async with self._lock:
            host = await self._started()
            rows = await self.store.due([host.shard_name(self.key)], _FOREVER_MS, _RINGS_MAX)
            return {row.name: _reminder(row.name, row.due, row.every) for row in rows}

    async def restart(self) -> None:
        """Lose the host and rebuild the entity from what the journal holds, as after a crash.

        A ``Transient`` entity has its first state again.

        Raises:
            RoundTripMismatch: The state is another one than before.
        """
        async with self._lock:
            before = copy.deepcopy((await self._cell()).entity.state)
            await self._close()
            after = (await self._cell()).entity.state
            found = first_difference(before, after, "state") if self._spec.durable else None
            if found is not None:
                msg = (
                    f"{self.key} is another one after a restart: {found}. The journal holds what commands emitted or "
                    "left in self.state; whatever else changed the state is lost with the memory."
                )
                raise RoundTripMismatch(msg)

    async def close(self) -> None:
        """End what runs in the background; optional, since the end of the event loop ends it too."""
        async with self._lock:
            await self._close()

    async def __aenter__(self) -> Self:
        """Return the kit."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    # -- the host --------------------------------------------------------------------------------------

    async def _started(self) -> Host:
        if self._host is None:
            await self.store.open(self._app.name, self._app.settings.shards)
            host = Host(self._app, self.store, self._manual, HostRow(0, "kit"), self._outside)
            # No other host could take the shard: nothing to renew, and no thread that a test would have to end.
            host.lease = _OwnLease(lambda _: None, self._manual, 1.0, 0.0)
            row = await host.start()
            self._host = host
            await host.own(row.incarnation, {host.shard_name(self.key): 1})
        return self._host

    async def _close(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            await host.close()

    async def _cell(self) -> Cell:
        """Return the entity's activation, brought back from the journal if it is not in memory."""
        verdict, payload = await self._ask("$state", b"{}")
        if verdict == ERROR:
            raise decode_error(payload)
        return (await self._started()).cells[self.key]

    async def _ask(self, method: str, data: bytes) -> tuple[int, bytes]:
        host = await self._started()
        self._asked += 1
        wait_s = self._spec.options.deadline_s
        command_id = self._outside.ids.next()
        ask = Ask(self._asked, self._spec.type, self.id, method, data, command_id, wait_s, "", 0, 0, (), FIRST)
        answer = _Answer()
        host.dispatch(ask, answer, self._manual.monotonic_s() + wait_s)
        found = await answer.future
        await self._settle(host)
        return found

    async def _settle(self, host: Host) -> None:
        """Let everything that the entity did reach the store."""
        for _ in range(_TURNS_MAX):
            await _turn()
            await host.committer.flush()
            if not host.outbox.pending:
                return

    # -- time ------------------------------------------------------------------------------------------

    async def _pass_time(self, passing_ms: int) -> list[Outcome[S, E, None]]:
        outcomes: list[Outcome[S, E, None]] = []
        async with self._lock:
            host = await self._started()
            until_ms = self._manual.now_ms() + passing_ms
            for _ in range(_RINGS_MAX):
                rows = await self.store.due([host.shard_name(self.key)], until_ms, 1)
                if not rows:
                    self._turn_clock(host, until_ms)
                    return outcomes
                self._turn_clock(host, rows[0].due)
                outcome = await self._ring(host, rows[0])
                if outcome is not None:
                    outcomes.append(outcome)
        msg = f"{self.key} fires reminders without end: over {_RINGS_MAX} in {passing_ms / 1000} s."
        raise AssertionError(msg)

    def _turn_clock(self, host: Host, until_ms: int) -> None:
        while self._manual.now_ms() < until_ms:
            self._manual.advance(max((until_ms - self._manual.now_ms()) / 1000, 0.0005))
        host.passivation.round()

    async def _ring(self, host: Host, row: ReminderRow) -> Outcome[S, E, None] | None:
        written, before = len(self.store.appends), len(self._watch.runs)
        self._watch.ended.clear()
        await host.reminders.fire_due()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._spec.options.deadline_s):
                await self._watch.ended.wait()
        await self._settle(host)
        self._watch.report()
        if len(self._watch.runs) == before:
            msg = f"{self.key}: the reminder {row.name!r} was due and did not run."
            raise AssertionError(msg)
        run = self._watch.runs[before]
        if run.failure is not None and not isinstance(run.failure, Rejected):
            await self._close()  # a new host rings it at once when the test lets time pass, and does not back off
            raise answer_for(run.failure, f"{self.key}.on_reminder", "") from run.failure
        if len(self.store.appends) == written:
            return None  # its commit failed: it is due still
        return self._outcome(run, written, run.failure, None)

    # -- what became of it -----------------------------------------------------------------------------

    def _outcome(self, run: Run, written: int, failure: BaseException | None, reply: Any) -> Outcome[S, E, Any]:  # noqa: ANN401 - any handler's
        appends = [append for _, append in self.store.appends[written:]]
        rejected = failure if isinstance(failure, Rejected) else None
        events = [] if rejected else run.turn.events
        erased = any(self.key in append.deletions for append in appends)
        state = run.before if rejected else self._spec.state_type() if erased else run.after
        return Outcome(
            state=cast("S", state),
            rejected=rejected,
            events=[cast("E", self._spec.readers[name](data)) for name, data in events],
            sends=[message for append in appends for message in self._sends(append)],
            calls=run.calls,
            reminders={
                name: None if row is None else _reminder(name, row[3], row[4])
                for append in appends
                for (_, name), row in append.reminders.items()
            },
            erased=erased,
            _reply=reply,
        )

    def _sends(self, append: Append) -> list[Message]:
        found = []
        for _, _, _, rows in append.outbox:
            for kind, ident, method, args in _decode_sends(rows):
                spec = self._outside.receivers[kind]
                found.append(as_sent(spec, spec.handler(method), ident, bytes(args)))
        return found


class _OwnLease(Lease):
    """A lease that nobody disputes."""

    def start(self) -> None:
        """Hold it."""

    def stop(self) -> None:
        """Hold it still: the host is closed."""

    def live(self, now_s: float) -> bool:
        """Return True."""
        del now_s
        return True


class _Answer:
    """Takes the answer to one ask."""

    def __init__(self) -> None:
        self.future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        """See Sink."""
        del n
        if not self.future.done():
            self.future.set_result((verdict, payload))


async def _turn() -> None:
    """Let everything that is ready run once."""
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


def _reminder(name: str, due_ms: int, every_ms: int) -> Reminder:
    return Reminder(
        name, datetime.fromtimestamp(due_ms / 1000, UTC), timedelta(milliseconds=every_ms) if every_ms else None
    )
