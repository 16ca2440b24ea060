"""The client: routes commands to the host that owns the entity, and asks again when that is safe.

Order (G4). Commands of one client to one entity form a *lane*. Each carries its number and the
number of the lane's command before it that is still open; a host takes a command only if it has
taken that one. After a refusal or a lost call the later commands of the lane are therefore
refused until the client re-sends the lane in order. Numbers rise over the whole client, so an
idle lane needs no memory on either side.

Asking again. Errors of verdict RETRY and RELOCATE are followed up here, with the same command
id, until the deadline; what the caller sees then is the last refusal, or ``DeadlineExceeded``
with the command id if the outcome is unknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from remora.channel import Channel, Sending, Transport
from remora.clock import Clock
from remora.contract import EntitySpec, HandlerSpec
from remora.errors import (
    DeadlineExceeded,
    Fenced,
    HostGone,
    NotOwner,
    Overloaded,
    PayloadTooLarge,
    RemoraError,
    Stopped,
    StoreUnavailable,
    Unavailable,
    Verdict,
    decode_error,
)
from remora.ids import CommandIds, check_command_id, check_entity_id
from remora.inquiry import Inquiry
from remora.messages import ERROR, FIRST, REPEATED, REPEATED_ERROR, STALE, Ask
from remora.reference import Reference
from remora.settings import Settings
from remora.sharding.hashing import entity_key
from remora.sharding.table import Table
from remora.why import ALL_S, Subject, Why

if TYPE_CHECKING:
    from remora.entity import Entity

T = TypeVar("T", bound="Entity[Any]")

_OUTCOME_UNKNOWN = (HostGone, StoreUnavailable, Fenced)
"""After these a command may have been applied; after every other refusal that is followed up it was not."""
SWEEP_S = 0.05
"""Seconds between looks for passed deadlines: how late ``DeadlineExceeded`` may come."""
FOLLOW_AGAIN_MAX_S = 0.25
"""Longest pause before the table is asked for again while no registry answers, in seconds: how late a new one is heard."""
RESEND_MIN_S = 0.005
RESEND_MAX_S = 0.5
"""Shortest and longest pause before asking again; doubles between them. A new table cuts it short."""


class Directory(Protocol):
    """How a client learns who owns what."""

    async def table(self, after: int) -> Table:
        """Return the table as soon as its version is above ``after``, or after some seconds as it is."""
        ...

    async def place(self, key: str) -> None:
        """See to it that a dedicated entity has a shard row and an actor."""
        ...

    async def suspect(self, host: str) -> None:
        """Say that a host of that name gave no answer."""
        ...

    async def leave(self) -> None:
        """Wait for no table any more."""
        ...

    async def about(self, shard: str) -> dict[str, Any]:
        """Return what the registry knows of a shard and its owner: ``remora.why.About`` as plain data."""
        ...


class Pending:
    """One ask under way, with its future."""

    __slots__ = (
        "ask", "attempts", "channel", "deadline_s", "entity", "epoch", "future", "lane", "last_error", "n", "shard",
        "waiting",
    )  # fmt: skip

    def __init__(
        self, ask: Ask, shard: str, entity: str, deadline_s: float, future: asyncio.Future[tuple[int, bytes]] | None
    ) -> None:
        self.ask = ask
        self.n = ask.n
        self.shard = shard
        self.entity = entity
        self.deadline_s = deadline_s
        self.future = future
        self.epoch = -1
        self.attempts = 0
        self.waiting = False
        self.channel: Channel | None = None
        self.lane: Lane | None = None
        self.last_error: RemoraError | None = None

    def wants_retry(self, error: RemoraError) -> bool:
        """Return whether to ask again after an error of verdict REJECT."""
        del error
        return False

    def resolve(self, verdict: int, payload: bytes) -> None:
        """Give the answer to whoever waits."""
        if self.future is not None and not self.future.done():
            self.future.set_result((verdict, payload))

    def fail(self, error: RemoraError) -> None:
        """Give the error to whoever waits."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


class Lane:
    """The open commands of one sender to one entity, in order."""

    __slots__ = ("key", "open", "rounds", "timer", "waiting")

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.open: dict[int, Pending] = {}
        """By number, in order."""
        self.waiting = 0
        self.rounds = 0
        """Times it was sent again since the last answer: as long as it gets on, it is not slowed down."""
        self.timer: asyncio.TimerHandle | None = None

    def put(self, pending: Pending) -> None:
        """Add a command behind those before it, and note the last of them."""
        ask, under_way = pending.ask, self.open
        last = next(reversed(under_way)) if under_way else 0
        under_way[ask.seq] = pending
        if last < ask.seq:
            ask.prev = last
            return
        # A durable send that was delivered already is told again, while later ones of its sender are under way.
        ask.prev = max((seq for seq in under_way if seq < ask.seq), default=0)
        self.open = dict(sorted(under_way.items()))


class Client:
    """Reaches the entities of one app. Made by ``remora.connect`` and ``remora.local``.

    Args:
        directory: Where the shard table comes from.
        transport: Reaches hosts.
        clock: Time.
        settings: The app's settings.
        session: A name no other client has.
        seed: Seeds the jitter of retries.
    """

    def __init__(
        self, directory: Directory, transport: Transport, clock: Clock, settings: Settings, session: str, seed: int = 0
    ) -> None:
        self.settings = settings
        self.session = session
        self.ids = CommandIds(clock.now_ms)
        self.repeated = 0
        """Answers so far that were recorded replies of commands applied before."""
        self.retries = 0
        """Commands sent again so far, after a refusal or a lost call."""
        self._clock = clock
        self._directory = directory
        self._transport = transport
        self._table = Table()
        self._channels: dict[str, Channel] = {}
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._open: dict[int, Pending] = {}
        self._waiting: dict[int, asyncio.TimerHandle | None] = {}
        self._rng = random.Random(seed)
        self._n = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._placing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> Self:
        """Read the table and begin to follow it."""
        self._table = await self._directory.table(-1)
        self._tasks = [asyncio.create_task(self._follow())]
        return self

    async def close(self) -> None:
        """Stop; callers that still wait get an error."""
        self._closed = True
        for task in [*self._tasks, *self._placing]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._placing, return_exceptions=True)
        await self._directory.leave()
        for channel in self._channels.values():
            await channel.close()
        for pending in list(self._open.values()):
            self.withdraw(pending)
            pending.fail(
                HostGone("The client was closed while this command was under way.", command_id=pending.ask.command_id)
            )

    async def __aenter__(self) -> Self:
        """Start if not started."""
        return self if self._tasks else await self.start()

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    def ref(self, cls: type[T], entity_id: str) -> T:
        """Return a typed reference to an entity, wherever it lives.

        Raises:
            InvalidId: ``entity_id`` cannot be an id.
        """
        spec: EntitySpec = cls.__remora__
        return cast("T", Reference(self, spec, check_entity_id(entity_id, spec.type)))

    @property
    def table(self) -> Table:
        """The shard table as last seen."""
        return self._table

    @property
    def in_flight(self) -> int:
        """Commands and queries under way."""
        return len(self._open)

    async def call(  # noqa: PLR0913 - everything that can be said about one call
        self, spec: EntitySpec, method: HandlerSpec | str, entity_id: str, args: bytes, *,
        command_id: str | None = None, deadline_s: float | None = None, stale: bool = False, lane: bool = True,
        chain: tuple[str, ...] = (), first: bool = False,
    ) -> tuple[int, bytes]:  # fmt: skip
        """Ask and wait for the answer.

        Args:
            spec: The entity type.
            method: A command or query, or the name of a built-in one (``$state``, ``$why`` …).
            entity_id: A checked id.
            args: Arguments as JSON.
            command_id: The command's id; made here if None.
            deadline_s: Seconds to wait; the type's default if None.
            stale: Queries only: answer also without a live lease.
            lane: Keep the order among this client's commands to the entity.
            chain: Keys of the entities that wait for this call.
            first: ``command_id`` was made with ``ids`` for this very call, so it cannot be a repeat.

        Returns:
            (verdict, reply as JSON); the verdict tells a recorded reply from a new one.

        Raises:
            RemoraError: Whatever the entity or the platform answered.
        """
        if self._closed:  # nobody follows deadlines any more
            msg = "This client is closed: connect again."
            raise HostGone(msg, entity=entity_key(spec.type, entity_id))
        query = isinstance(method, str) or method.is_query
        name = method if isinstance(method, str) else method.name
        if len(args) > self.settings.payload_bytes_max:
            msg = f"{spec.type}.{name}: {len(args)} bytes of arguments, {self.settings.payload_bytes_max} are allowed: keep large data elsewhere and pass its address."
            raise PayloadTooLarge(msg)
        identity = (
            ""
            if query
            else self.ids.next()
            if command_id is None
            else command_id
            if chain
            else check_command_id(command_id)
        )
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        wait_s = spec.options.deadline_s if deadline_s is None else deadline_s
        ask = Ask(
            self.number(), spec.type, entity_id, name, args, identity, wait_s, "", 0, 0, chain,
            (STALE if stale else 0) | (FIRST if first or command_id is None else 0),
        )  # fmt: skip
        if lane and not query:
            ask.lane, ask.seq = self.session, ask.n
        pending = self.pending(spec, ask, self._clock.monotonic_s() + wait_s, future)
        self.submit(pending)
        try:
            verdict, payload = await future
        finally:
            if not future.done() or future.cancelled():
                self.withdraw(pending)
        if verdict in {REPEATED, REPEATED_ERROR}:
            self.repeated += 1
        if verdict in {ERROR, REPEATED_ERROR}:
            error = decode_error(payload)
            error.repeated = verdict == REPEATED_ERROR
            raise error
        return verdict, payload

    async def why(self, spec: EntitySpec, entity_id: str) -> Why:
        """Return what an entity does or waits for, within a second, also when its host does not answer.

        Args:
            spec: The entity type.
            entity_id: A checked id.

        Raises:
            RemoraError: The question was refused for good.
        """
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        ask = Ask(self.number(), spec.type, entity_id, "$why", b"{}", "", ALL_S, "", 0, 0, (), 0)
        # Bounded by the inquiry; the deadline only keeps it from being swept up before.
        pending = self.pending(spec, ask, self._clock.monotonic_s() + 2 * ALL_S, future)
        row = self._table.shards.get(pending.shard)
        host = None if row is None else self._table.hosts.get(row.owner)
        name, node = ("", "") if host is None else (host.name, host.node)
        subject = Subject(pending.entity, pending.shard, name, node, spec.durable, spec.dedicated)
        inquiry = Inquiry(subject, self._directory, self._transport)
        if host is None:  # sent all the same, it would start the actor of a dedicated entity
            return await inquiry.answer(None, lambda: None)
        try:
            self.submit(pending)
            return await inquiry.answer(future, lambda: pending.last_error)
        finally:
            self.withdraw(pending)

    # -- shared with the outbox ------------------------------------------------------------------

    def number(self) -> int:
        """Return the next number of this session."""
        self._n += 1
        return self._n

    def pending(
        self, spec: EntitySpec, ask: Ask, deadline_s: float, future: asyncio.Future[tuple[int, bytes]] | None,
        kind: Callable[..., Pending] = Pending,
    ) -> Pending:  # fmt: skip
        """Return an ask with its place in the table, ready to submit."""
        key = entity_key(ask.type, ask.id)
        shard = spec.shard(key, self.settings.shards)
        return kind(ask, shard, key, deadline_s, future)

    def submit(self, pending: Pending) -> None:
        """Send, behind what its lane has open.

        Raises:
            Overloaded: Too much is under way in this client.
        """
        if len(self._open) >= self.settings.in_flight_max and pending.ask.method[:1] != "$":
            msg = f"This client has {len(self._open)} commands under way, its bound: wait for answers before sending more."
            raise Overloaded(msg, retry_after_s=0.05)
        self._open[pending.n] = pending
        if self._sweeper is None:  # there are many clients, one in each host, and most of them have nothing under way
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        ask = pending.ask
        if ask.seq:
            key = (ask.lane, pending.entity)
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = Lane(key)
            pending.lane = lane
            lane.put(pending)
            if lane.waiting:
                pending.waiting = True
                lane.waiting += 1
                return
        self._route(pending)

    def withdraw(self, pending: Pending) -> None:
        """Expect no answer any more and send it no more."""
        self._finish(pending)

    # -- routing ---------------------------------------------------------------------------------

    def _route(self, pending: Pending) -> None:
        row = self._table.shards.get(pending.shard)
        host = self._table.hosts.get(row.owner) if row is not None else None
        if host is None and self._table.halted:
            self.withdraw(pending)
            pending.fail(Stopped(self._table.halted, entity=pending.entity, command_id=pending.ask.command_id))
            return
        if row is None or host is None:
            if "/" in pending.shard:
                self._place(pending.shard)
            error: RemoraError = NotOwner(
                f"Shard {pending.shard} of {pending.entity} has no owner at the moment.", entity=pending.entity
            )
            if "/" in pending.shard and isinstance(pending.last_error, Unavailable):
                error = pending.last_error  # why it gets none says more
            self._refused(pending, error)
            return
        pending.epoch = row.epoch
        channel = self._channels.get(host.name)
        if channel is None:
            channel = self._channels[host.name] = Channel(
                self.session,
                host.name,
                self._transport,
                self.settings,
                on_answer=self._answered,
                on_broken=self._broken,
                on_late=self._late,
            )
        pending.channel = channel
        channel.submit(pending)

    def _place(self, key: str) -> None:
        if any(task.get_name() == key for task in self._placing):
            return
        task = asyncio.create_task(self._directory.place(key), name=key)
        self._placing.add(task)
        task.add_done_callback(self._placed)

    def _placed(self, task: asyncio.Task[None]) -> None:
        self._placing.discard(task)
        error = None if task.cancelled() else task.exception()
        if not isinstance(error, RemoraError):
            return
        for pending in [one for one in self._open.values() if one.shard == task.get_name()]:
            if error.verdict is not Verdict.REJECT:
                pending.last_error = error  # it asks again until its own deadline, and is told this then
                continue
            self.withdraw(pending)
            pending.fail(error)

    def _answered(self, sending: Sending, verdict: int, payload: bytes) -> None:
        pending = cast("Pending", sending)
        if verdict == ERROR:
            error = decode_error(payload)
            again = error.verdict is not Verdict.REJECT and not isinstance(error, DeadlineExceeded)
            if again or pending.wants_retry(error):
                self._refused(pending, error)
                return
        self._finish(pending)
        pending.resolve(verdict, payload)

    def _broken(self, sendings: list[Sending], error: RemoraError) -> None:
        if isinstance(error, HostGone) and sendings:
            self._suspect(cast("Pending", sendings[0]).channel)
        for sending in sendings:
            sending.ask.flags &= ~FIRST  # whatever the error: how far it came is not known
            self._refused(cast("Pending", sending), error)

    def _suspect(self, channel: Channel | None) -> None:
        """Tell the registry of a host that does not answer, once at a time."""
        if channel is None or any(task.get_name() == channel.host for task in self._placing):
            return
        task = asyncio.create_task(self._directory.suspect(channel.host), name=channel.host)
        self._placing.add(task)
        task.add_done_callback(self._suspected)

    def _suspected(self, task: asyncio.Task[None]) -> None:
        self._placing.discard(task)
        if not task.cancelled():
            task.exception()  # a registry that is away looks at leases itself when it is back

    def _late(self, sendings: list[Sending]) -> list[Sending]:
        """Return what is still wanted of asks that waited for credits, each with the time it has left."""
        wanted = [sending for sending in sendings if sending.n in self._open]
        now_s = self._clock.monotonic_s()
        for sending in wanted:
            sending.ask.ttl_s = max(cast("Pending", sending).deadline_s - now_s, 0.001)
        return wanted

    def _refused(self, pending: Pending, error: RemoraError) -> None:
        if pending.n not in self._open:
            return
        pending.last_error = error
        if isinstance(error, _OUTCOME_UNKNOWN):
            pending.ask.flags &= ~FIRST
        pending.channel = None
        pending.waiting = True
        pending.attempts += 1
        lane = pending.lane
        if lane is None:
            pause = self._pause_s(error, pending.attempts)
            self._waiting[pending.n] = asyncio.get_running_loop().call_later(pause, self._again, pending)
            return
        lane.waiting += 1
        if lane.timer is None:
            lane.rounds += 1
            pause = self._pause_s(error, lane.rounds)
            lane.timer = asyncio.get_running_loop().call_later(pause, self._again_in_order, lane)

    def _pause_s(self, error: RemoraError, attempts: int) -> float:
        pause = min(RESEND_MIN_S * 2 ** min(attempts, 10), RESEND_MAX_S)
        jittered: float = max(error.retry_after_s, pause) * (0.75 + 0.5 * self._rng.random())
        return jittered

    def _again(self, pending: Pending) -> None:
        timer = self._waiting.pop(pending.n, None)
        if timer is not None:
            timer.cancel()
        if pending.n in self._open and pending.waiting:
            pending.waiting = False
            self._renumber(pending)
            self._route(pending)

    def _again_in_order(self, lane: Lane) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        lane.waiting = 0
        before = 0
        for seq, pending in list(lane.open.items()):
            pending.ask.prev = before
            before = seq
            if pending.waiting:
                pending.waiting = False
                self._renumber(pending)
                self._route(pending)

    def _renumber(self, pending: Pending) -> None:
        """Send under a new number: a late answer to the old one is then nobody's."""
        self.retries += 1
        del self._open[pending.n]
        pending.n = pending.ask.n = self.number()
        pending.ask.ttl_s = max(pending.deadline_s - self._clock.monotonic_s(), 0.0)
        self._open[pending.n] = pending

    def _finish(self, pending: Pending) -> None:
        if self._open.pop(pending.n, None) is None:
            return
        timer = self._waiting.pop(pending.n, None)
        if timer is not None:
            timer.cancel()
        if pending.channel is not None:
            pending.channel.forget(pending.n)
        lane = pending.lane
        if lane is not None:
            if pending.waiting:
                lane.waiting -= 1
            lane.open.pop(pending.ask.seq, None)
            lane.rounds = 0
            if not lane.open:
                if lane.timer is not None:
                    lane.timer.cancel()
                self._lanes.pop(lane.key, None)

    # -- the table and the deadlines ---------------------------------------------------------------

    async def _follow(self) -> None:
        pause = RESEND_MIN_S
        while True:
            try:
                table = await self._directory.table(self._table.version)
                pause = RESEND_MIN_S
            except RemoraError:
                # The data path does not need the registry: keep the table, ask again.
                await asyncio.sleep(pause)  # noqa: TID251 - bounded backoff of the follower itself
                pause = min(pause * 2, FOLLOW_AGAIN_MAX_S)
                continue
            if table.version > self._table.version:
                self._table = table
                self._follow_moves()

    def _follow_moves(self) -> None:
        """Re-send what waits, and what is under way to an owner that is none any more."""
        alive = {host.name for host in self._table.hosts.values()}
        for name in [name for name in self._channels if name not in alive]:
            channel = self._channels.pop(name)
            self._broken(channel.take_all(), HostGone(f"{name} is gone."))
        for channel in self._channels.values():
            for sending in channel.in_flight():
                pending = cast("Pending", sending)
                row = self._table.shards.get(pending.shard)
                if row is not None and row.epoch > pending.epoch:
                    channel.forget(pending.n)
                    self._refused(pending, HostGone(f"Shard {pending.shard} moved while {pending.entity} was asked."))
        for n in list(self._waiting):
            self._again(self._open[n])
        for lane in [lane for lane in self._lanes.values() if lane.waiting]:
            self._again_in_order(lane)

    def _sweep(self) -> None:
        now = self._clock.monotonic_s()
        for pending in [p for p in self._open.values() if p.deadline_s <= now]:
            self._finish(pending)
            pending.fail(self._too_late(pending))
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep) if self._open else None

    def _too_late(self, pending: Pending) -> RemoraError:
        refusal = pending.last_error
        if pending.waiting and refusal is not None and refusal.verdict is Verdict.RETRY:
            refusal.command_id = pending.ask.command_id
            return refusal
        if pending.epoch < 0 and pending.ask.flags & FIRST:  # no host was asked, nor before: its id is of this call
            because = "it waited for others of its caller" if refusal is None else refusal.message
            msg = f"{pending.entity}.{pending.ask.method} was not begun before its deadline: {because}"
            return Unavailable(
                msg, entity=pending.entity, command_id=pending.ask.command_id, retry_after_s=RESEND_MAX_S
            )
        because = f" (last seen: {refusal.message})" if refusal is not None else ""
        msg = f"No answer from {pending.entity}.{pending.ask.method} within its deadline{because}: asking again with the same command id is safe."
        return DeadlineExceeded(msg, entity=pending.entity, command_id=pending.ask.command_id)
