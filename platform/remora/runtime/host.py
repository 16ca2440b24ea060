"""A host: the shards it owns, the cells in them, and what they share.

It is a composition: which shards it owns is ``Ownership``, who it is when commits fail ``Incarnations``.
One host is one process on Ray and one object in ``remora.local``; the code is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from remora.app import App
from remora.client import Client
from remora.clock import Clock
from remora.errors import (
    CallCycle,
    HostGone,
    NotOwner,
    Overloaded,
    PayloadTooLarge,
    RemoraError,
    StoreUnavailable,
    UnknownEntity,
)  # fmt: skip
from remora.ids import check_entity_id
from remora.journal import Store
from remora.lifecycle import Phase
from remora.messages import ADMITTED, ERROR, FIRST, VALUE, Ask, decode_batch
from remora.runtime import inspection
from remora.runtime.advice import Ask as AskSupervisor
from remora.runtime.background import Background
from remora.runtime.backpressure import Backpressure
from remora.runtime.blackbox import BlackBox
from remora.runtime.calls import TurnCalls, cycle_message
from remora.runtime.cell import Cell, Item
from remora.runtime.committer import Committer, Sink
from remora.runtime.deadlock import Deadlocks, waits_of
from remora.runtime.failures import Escalation, Failures
from remora.runtime.handoff import HandOff, HandOver
from remora.runtime.incarnation import PATIENCE_MAX_S, PATIENCE_MIN_S, Incarnations
from remora.runtime.lease import Lease
from remora.runtime.outbox import Outbox
from remora.runtime.ownership import Ownership
from remora.runtime.passivation import ROUND_S, Passivation
from remora.runtime.quarantine import Held
from remora.runtime.readiness import Gate
from remora.runtime.recovery import Recovery
from remora.runtime.remembered import Remembered
from remora.runtime.reminders import Reminders
from remora.runtime.session import SAMPLES_MAX, Session
from remora.runtime.shard import Shard
from remora.runtime.watchdog import Running, Watchdog
from remora.runtime.window import Windows
from remora.sharding.hashing import entity_key, shard_of
from remora.sharding.table import HostRow

T = TypeVar("T")
_json = msgspec.json.Encoder().encode
_decode_events = msgspec.json.Decoder(list[tuple[str, msgspec.Raw]]).decode
SESSION_IDLE_S = 600.0
"""A client session that was silent so long is forgotten."""


class Host:
    """Runs the entities of the shards it owns.

    Args:
        app: The app.
        store: The app's store, opened.
        clock: Time.
        row: Who this host is: name, node, process.
        client: Reaches other entities, for calls and durable sends.
        seed: Seeds the jitter of backoffs.
        on_fenced: Called when the store refused this host's incarnation: it owns nothing any more.
        on_reincarnated: Called after the host took a new incarnation.
        hand_over: Reaches other hosts, for moves with warm state; without it the next owner reads the journal.
        ask_supervisor: The way to the app's supervisors; without it they are told of failures later.
        escalate: The way to the levels of supervision above shards; without it none decides.
        box: Where is written what this process runs, for the time when it is gone; None where hosts share a process.
    """

    clock_skew_ms = 250
    """By how much the clocks of clients and hosts may differ, in milliseconds: what is sent again and was made up to
    that much after the oldest command still remembered is refused too, since it may have been forgotten."""

    def __init__(  # noqa: PLR0913 - all that a host needs of the world around it
        self, app: App, store: Store, clock: Clock, row: HostRow, client: Client, *, seed: int = 0,
        on_fenced: Callable[[], None] | None = None,
        on_reincarnated: Callable[[], Awaitable[None]] | None = None, hand_over: HandOver | None = None,
        box: BlackBox | None = None, ask_supervisor: AskSupervisor | None = None,
        escalate: Escalation | None = None,
    ) -> None:  # fmt: skip
        self.app = app
        self.store = store
        self.clock = clock
        self.row = row
        self.name = row.name
        self.settings = app.settings
        self.loop = asyncio.get_running_loop()
        self.log = logging.getLogger("remora.host")
        self.rng = random.Random(seed)
        self.client = client
        self.incarnation = 0
        self.incarnations = Incarnations(self, on_fenced, on_reincarnated)
        self.ownership = Ownership(self)
        self.shards = self.ownership.shards
        self.handoff = HandOff(self, hand_over)
        self.cells: dict[str, Cell] = {}
        self.held: deque[Item] = deque()
        """Commands kept back while the outbox is full, in the order they came."""
        self.commands = 0
        self.activations = 0
        self.latencies_s: deque[float] = deque(maxlen=SAMPLES_MAX)
        """Samples of how long answers took, until somebody takes them."""
        self._sessions: dict[str, Session] = {}
        self._background = Background(self.log, row.name)
        self._closed = False
        self.outage = b""
        """While the store takes nothing, the error that new commands get; empty otherwise."""
        self.outage_since_s: float | None = None
        """Since when that is so."""
        self.pressed = False
        """Whether some new work is refused because the host as a whole has too much to do."""
        self._calls = TurnCalls(self)
        settings = app.settings
        self.running = Running(box)
        self.watchdog = Watchdog(self.running, settings)
        self._threads: ThreadPoolExecutor | None = None
        self.committer = Committer(
            lambda append: store.append(self.incarnation, append),
            settings.commit_rows_max,
            settings.commit_timeout_s,
            self.incarnations.commits_failed,
        )
        self.recovery = Recovery(self)
        self.windows = Windows(self)
        self.passivation = Passivation(self)
        self.failures = Failures(self, ask_supervisor, escalate)
        self.quarantine = Held(self)
        self.gate = Gate(self)
        self.closed = self.gate.closed
        self.remembered = Remembered(self)
        self.outbox = Outbox(self, client)
        self.reminders = Reminders(self)
        self.backpressure = Backpressure(self)
        self.deadlocks = Deadlocks(self)
        self.lease = Lease(self.incarnations.renew, clock, settings.lease_ttl_s, settings.lease_margin_s)

    # -- life ----------------------------------------------------------------------------------------

    async def start(self) -> HostRow:
        """Join the store with a new incarnation, once what has to pass before has, and begin to hold a lease."""
        await self.gate.may_join()
        await self.quarantine.read()
        self.incarnations.begin(await self.store.join(self.row))
        self.lease.start()
        self.watchdog.start()
        self.spawn(self._housekeeping())
        self.spawn(self.reminders.run())
        self.spawn(self.backpressure.run())
        return self.row

    async def close(self) -> None:
        """Finish what is committed, stop everything; shards stay with this incarnation."""
        self._closed = True
        self.lease.stop()
        self._stop_threads()
        for shard in self.shards.values():
            shard.accepting = False
        await self.committer.flush()
        await self.failures.close()
        self.ownership.leave(list(self.cells.values()), f"{self.name} stops.")
        await self.recovery.close()
        await self._background.close()

    def abandon(self) -> None:
        """Stop at once and flush nothing, as a killed process would."""
        self._closed = True
        self.lease.stop()
        self._stop_threads()
        self.committer.abandon()
        for cell in self.cells.values():
            cell.vanish()
        self._background.cancel()
        self.cells.clear()
        self.shards.clear()
        for session in self._sessions.values():
            session.break_off(HostGone(f"{self.name} is gone."))

    def _stop_threads(self) -> None:
        self.watchdog.stop()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, coroutine: Coroutine[Any, Any, Any], entity: str, command: str) -> Any:  # noqa: ANN401 - a handler's reply
        """Run a handler that never awaits in a thread of this host's, and return its reply."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.settings.threads_max, thread_name_prefix="remora-handler")
        return await self.loop.run_in_executor(self._threads, _run_to_end, coroutine, self.running.box, entity, command)

    def spawn(self, work: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - any coroutine
        """Run something in the background of this host; what it raises is logged."""
        return self._background.spawn(work)

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store, again and again until it answers or this host is closed."""
        pause = PATIENCE_MIN_S
        while True:
            try:
                return await work()
            except StoreUnavailable:
                if self._closed:
                    raise
                await asyncio.sleep(pause)  # noqa: TID251 - growing, bounded pause while the store is away
                pause = min(pause * 2, PATIENCE_MAX_S)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(ROUND_S)  # noqa: TID251 - the period of housekeeping
            try:
                self.passivation.round()
            except Exception:  # one round that fails must not be the last
                self.log.exception("a round of housekeeping failed")
            now_s = self.clock.monotonic_s()
            self.handoff.tidy(now_s)
            for name in [name for name, s in self._sessions.items() if now_s - s.last_used_s > SESSION_IDLE_S]:
                del self._sessions[name]

    # -- shards --------------------------------------------------------------------------------------

    async def own(self, incarnation: int, shards: dict[str, int]) -> None:
        """Begin to serve shards: see ``Ownership.own``."""
        await self.ownership.own(incarnation, shards)

    async def release(self, targets: Mapping[str, str]) -> None:
        """Stop serving shards: see ``Ownership.release``."""
        await self.ownership.release(targets)

    async def read_quarantine(self) -> None:
        """What is in quarantine has changed: see ``quarantine.Held.read``."""
        await self.quarantine.read()

    def take(self, data: bytes) -> None:
        """Keep what another host sends of shards that it lets go: see ``HandOff.take``."""
        self.handoff.take(data)

    # -- commands ------------------------------------------------------------------------------------

    async def exchange(self, data: bytes) -> bytes:
        """Take a batch of a client session, return answers that are ready, waiting for the first."""
        batch = decode_batch(data)
        now_s = self.clock.monotonic_s()
        session = self.session(batch.session, now_s)
        self.commands += len(batch.asks)
        session.took(batch.asks)
        for ask in batch.asks:
            self.dispatch(ask, session, now_s + ask.ttl_s)
        return await session.collect(self.settings.poll_s, self.backpressure)

    def sessions(self) -> list[Session]:
        """Return the client sessions there are; from any thread."""
        return list(self._sessions.values())

    def session(self, name: str, now_s: float) -> Session:
        """Return this host's side of a client session."""
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = Session(name, self.latencies_s)
        session.last_used_s = now_s
        return session

    def dispatch(self, ask: Ask, sink: Sink, deadline_s: float) -> None:
        """Give an ask to its entity, activating it if needed; refusals are answered at once."""
        key = entity_key(ask.type, ask.id)
        cell = self.cells.get(key)
        if self.outage and self._stands_on_the_store(ask, cell):
            sink.answer(ask.n, ERROR, self.outage)
            return
        # A call by a handler is part of work taken already: what the outbox waits for may wait for it.
        new = not ask.flags & ADMITTED and not ask.chain and ask.method[:1] != "$"
        if self.pressed and new and self.backpressure.refuses(ask, sink, key, cell):
            return
        if new and (self.held or self.outbox.full):
            self._hold(ask, sink, deadline_s)
            return
        self._admit(ask, sink, deadline_s, key, cell)

    @staticmethod
    def _stands_on_the_store(ask: Ask, cell: Cell | None) -> bool:
        """Return whether an ask is better told now that the store is away than left to its deadline."""
        if ask.flags & ADMITTED or ask.method[:1] == "$":
            return False
        return bool(ask.command_id) or (cell is not None and cell.phase is Phase.RECOVERING)

    def _admit(self, ask: Ask, sink: Sink, deadline_s: float, key: str, cell: Cell | None) -> None:
        if cell is not None and cell.shard.accepting and ask.method[:1] != "$" and not ask.chain:
            cell.shard.commands += 1
            cell.offer(ask, sink, deadline_s)
            return
        try:
            self._dispatch(ask, sink, deadline_s, key, cell)
        except RemoraError as error:
            sink.answer(ask.n, ERROR, error.encode())

    def _dispatch(self, ask: Ask, sink: Sink, deadline_s: float, key: str, cell: Cell | None) -> None:
        spec = self.app.specs.get(ask.type)
        if spec is None:
            msg = f"App {self.app.name!r} has no entity type {ask.type!r}."
            raise UnknownEntity(msg)
        if key in ask.chain:
            raise CallCycle(cycle_message((*ask.chain, key)), entity=key)
        name = self.shard_name(key)
        shard = self.shards.get(name)
        if shard is None or not (shard.accepting or ask.method == "$why"):
            msg = f"{self.name} does not own shard {name} of {key}."
            raise NotOwner(msg, entity=key)
        check_entity_id(ask.id, ask.type)
        if ask.method == "$why":
            self.spawn(inspection.why(self, shard, spec, key, ask, sink))
        elif ask.method == "$waits":
            sink.answer(ask.n, VALUE, _json(waits_of(cell)))
        elif ask.method == "$stopped":
            sink.answer(ask.n, VALUE, inspection.stopped(self, cell, key))
        elif ask.method == "$look":
            self.deadlocks.look_now(cell)
            sink.answer(ask.n, VALUE, b"null")
        elif ask.method == "$events":
            self.spawn(inspection.events(self, spec, key, ask, sink))
        elif self.closed and spec.type in self.closed:
            raise self.gate.refusal(spec.type, key, ask.command_id)
        else:
            shard.commands += 1
            (cell or self.recovery.activate(spec, shard, ask.id, key)).offer(ask, sink, deadline_s)

    def _hold(self, ask: Ask, sink: Sink, deadline_s: float) -> None:
        """Keep new work back, in order, until durable sends are delivered: first come, first served."""
        if len(self.held) < self.settings.held_max:
            ask.flags &= ~FIRST  # it may be sent again, applied elsewhere, and still wait here when its entity is back
            self.held.append((ask, sink, deadline_s))
            return
        msg = f"{self.name} has {self.outbox.pending} durable sends to deliver first: come back later."
        sink.answer(ask.n, ERROR, Overloaded(msg, command_id=ask.command_id, retry_after_s=0.1).encode())

    def admit_held(self) -> None:
        """Take in what was kept back, as far as the outbox has room."""
        while self.held and not self.outbox.full:
            ask, sink, deadline_s = self.held.popleft()
            key = entity_key(ask.type, ask.id)
            self._admit(ask, sink, deadline_s, key, self.cells.get(key))

    def activation(self, shard: Shard, key: str) -> Cell | None:
        """Return an entity's activation, which begins now if there is none; None if its type is not there or not served."""
        kind, _, ident = key.partition("/")
        spec = self.app.specs.get(kind)
        return (
            None
            if spec is None or kind in self.closed
            else self.cells.get(key) or self.recovery.activate(spec, shard, ident, key)
        )

    # -- what cells need -------------------------------------------------------------------------------

    def shard_name(self, key: str) -> str:
        """Return the shard of an entity."""
        spec = self.app.specs.get(key.partition("/")[0])
        return shard_of(key, self.settings.shards) if spec is None else spec.shard(key, self.settings.shards)

    def may_answer(self, now_s: float) -> bool:
        """Return whether queries may be answered from memory."""
        return self.lease.live(now_s)

    def turn_calls(self, cell: Cell) -> TurnCalls:
        """Return how a handler of ``cell`` reaches other entities."""
        del cell
        return self._calls

    def check_size(self, what: str, data: bytes) -> bytes:
        """Refuse what is over the bound."""
        if len(data) > self.settings.payload_bytes_max:
            msg = f"{what} has {len(data)} bytes, {self.settings.payload_bytes_max} are allowed: keep large data elsewhere and store its address."
            raise PayloadTooLarge(msg)
        return data

    def write_state(self, cell: Cell) -> bytes:
        """Return a state as JSON."""
        return self.check_size(f"The state of {cell.key}", cell.spec.write_state(cell.entity.state))

    def log_failure(self, cell: Cell, handler: str, failure: BaseException) -> None:
        """Write a handler's failure to the log."""
        self.log.warning("%s.%s failed: %r", cell.key, handler, failure, exc_info=failure)

    # -- looking at it -----------------------------------------------------------------------------------

    def loads(self) -> dict[str, int]:
        """Return commands and queries taken so far per shard."""
        return {name: shard.commands for name, shard in self.shards.items()}

    async def live(self) -> dict[str, int]:
        """Return how many entities are in memory per shard."""
        cells = list(self.cells.values())
        counted = await asyncio.to_thread(
            lambda: Counter(cell.shard.key for cell in cells)
        )  # of a million: a tenth of a second
        return {**dict.fromkeys(self.shards, 0), **counted}

    def status(self) -> dict[str, Any]:
        """Return counters of this host."""
        return {
            "name": self.name,
            "incarnation": self.incarnation,
            "node": self.row.node,
            "pid": self.row.pid,
            "dedicated": self.row.dedicated,
            "shards": len(self.shards),
            "live": len(self.cells),
            "live_bytes": self.passivation.bytes,
            "evicted": self.passivation.evicted,
            "commands": self.commands,
            "commits": self.committer.commits,
            "entries": self.committer.rows,
            "commit_busy_s": round(self.committer.busy_s, 3),
            "activations": self.activations,
            "recovered": self.recovery.count,
            "sent_warm": self.handoff.sent,
            "opened_warm": self.handoff.opened,
            "recovering": self.recovery.waiting + self.recovery.at_once,
            "recovering_most": self.recovery.most,
            "failures": self.failures.count,
            "deadlocks": self.deadlocks.found,
            "blocked": self.watchdog.blocked,
            "overloaded": self.backpressure.refused,
            "outbox": self.outbox.pending,
            "delivered": self.outbox.delivered,
        }


def _run_to_end(coroutine: Coroutine[Any, Any, Any], box: BlackBox | None, entity: str, command: str) -> Any:  # noqa: ANN401 - a handler's reply
    with contextlib.nullcontext() if box is None else box.within(entity, command):
        return _to_end(coroutine)


def _to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - as above
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    except asyncio.CancelledError as error:  # of its own making: a thread's handler cannot be cancelled
        msg = "the handler raised CancelledError"
        raise RuntimeError(msg) from error
    coroutine.close()
    msg = "the handler suspended without an await"
    raise RuntimeError(msg)
