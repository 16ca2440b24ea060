"""One activation: the entity in memory, its mailbox, and how a command runs.

Commands and queries run one at a time, in the order they came. A handler without ``await`` runs
to its end at once; one with gets a task. What it did becomes one entry of the open commit, its
answer waits there (output gate), and the next command may run meanwhile on the applied state.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from remora.contract import EntitySpec, HandlerSpec
from remora.entity import Entity, Turn
from remora.errors import (
    DeadlineExceeded,
    HandlerFailed,
    InvalidInput,
    OutOfOrder,
    Overloaded,
    Rejected,
    RemoraError,
    Stopped,
    Unavailable,
    Verdict,
)  # fmt: skip
from remora.ids import fingerprint
from remora.lifecycle import Phase, step
from remora.messages import ERROR, REMINDER, SEND, STALE, VALUE, Ask
from remora.runtime import backoff, lanes, snapshots, window
from remora.runtime import image as images
from remora.runtime.blackbox import stepped
from remora.runtime.committer import Commit, Sink
from remora.runtime.outcome import answer_for
from remora.supervision.decisions import History
from remora.supervision.failure import described

if TYPE_CHECKING:
    from remora.runtime.host import Host
    from remora.runtime.shard import Shard

_json = msgspec.json.Encoder().encode
_PUMP_MAX = 128
"""Handlers run in one go before the loop gets its turn."""
GRACE_S = 0.5
"""Seconds a handler has to end once it was cancelled at its deadline; then the entity goes on without it."""

Item = tuple[Ask, Sink, float]
"""(ask, where its answer goes, deadline in seconds)"""


class Cell:
    """One activation of an entity on this host."""

    __slots__ = (
        "busy_since_s", "commit", "entity", "forgot_ms", "history", "host", "id", "kept", "key", "lanes",
        "last_used_s", "mailbox", "marks", "n", "phase", "pumping", "reason", "reminders", "seen_s", "seq", "shard", "snapshot_n",
        "spec", "state_bytes", "tail_bytes", "task", "turn", "unread", "unremembered",
        "weight", "window",
    )  # fmt: skip

    def __init__(self, host: Host, shard: Shard, spec: EntitySpec, entity_id: str, key: str) -> None:
        self.host = host
        self.shard = shard
        self.spec = spec
        self.id = entity_id
        self.key = key
        self.phase = Phase.RECOVERING
        self.reason: RemoraError | None = None
        """Why it is stopped, or was last held back from a restart."""
        self.entity: Entity[Any]
        self.mailbox: list[Item] = []
        """A list: an empty deque takes 760 bytes, and one of a thousand gives its first in a tenth of a microsecond."""
        self.n = 0
        self.seq = 0
        self.snapshot_n = 0
        """Entry of the last snapshot."""
        self.tail_bytes = 0
        """Bytes of events since then."""
        self.state_bytes = 0
        """Size of the state as JSON, when it was last read or written."""
        self.kept: tuple[int, ...] = ()
        """Entries of the snapshots known to be kept, oldest first."""
        self.marks: dict[str, int] | None = None
        """Last applied durable send per sending entity."""
        self.lanes: dict[str, int] | None = None
        """Last accepted number per lane."""
        self.window: dict[str, window.Decided] = {}
        """Recorded answers by command id, oldest first."""
        self.unread: window.Unread | None = None
        """What of the window is in the store alone: what was decided before the entity was read back."""
        self.forgot_ms = 0
        """When the newest command was applied that the window does not hold any more, nor the store's part of it; 0: none."""
        self.reminders: dict[str, int | None] | None = None
        """Reminders set (due in ms) and cancelled since it was read back."""
        self.commit: Commit | None = None
        """The commit that holds its latest entry."""
        self.task: asyncio.Task[Any] | None = None
        self.turn: tuple[Item, HandlerSpec, Turn] | None = None
        """What a running task works on."""
        self.busy_since_s = 0.0
        """Since when its handler runs, or since when it is in its phase if that is not READY; 0 before its first."""
        self.last_used_s = 0.0
        self.seen_s = 0.0
        """What ``last_used_s`` was when the hunt for room last passed."""
        self.weight = 0
        """Its estimated size as it counts in the host's, in units of passivation."""
        self.unremembered = False
        """Whether its type is remembered and the store does not know yet that it was in use."""
        self.pumping = False
        self.history: History | None = None
        """What its supervision rules were used for."""

    # -- taking work -------------------------------------------------------------------------------

    def offer(self, ask: Ask, sink: Sink, deadline_s: float) -> None:
        """Take an ask into the mailbox, or refuse it at once."""
        if self.phase is Phase.STOPPED:
            sink.answer(ask.n, ERROR, (self.reason or Stopped(f"{self.key} is stopped.")).encode())
            return
        taken = -1
        if ask.seq and not ask.flags & SEND:  # durable sends are checked as they run, against their watermark
            if self.lanes is None:
                self.lanes = {}
            taken = self.lanes.get(ask.lane, 0)
            if ask.prev > taken:
                error: RemoraError = OutOfOrder(
                    f"{self.key} has not seen command {ask.prev} of this lane.", entity=self.key
                )
                sink.answer(ask.n, ERROR, error.encode())
                return
            if ask.seq <= taken and lanes.renew(self, item := (ask, sink, deadline_s)):
                self._held_back(item)
                return
        if len(self.mailbox) >= self.spec.options.mailbox_max:
            msg = f"{self.key} has {len(self.mailbox)} commands waiting, its bound: come back later."
            error = Overloaded(msg, entity=self.key, command_id=ask.command_id, retry_after_s=0.05)
            sink.answer(ask.n, ERROR, error.encode())
            return
        if self.lanes is not None and ask.seq > taken >= 0:
            self.lanes[ask.lane] = ask.seq
        self.mailbox.append(item := (ask, sink, deadline_s))
        if self.phase is Phase.BACKOFF:
            backoff.bound(self, item)
        if not self.pumping:
            self.pump()

    def carried_on(self, item: Item) -> None:
        """Take an ask that another host had taken already."""
        if lanes.arrive(self, item):
            return
        self.mailbox.append(item)
        if self.phase is Phase.STOPPED:
            self._refuse_waiting(self.reason or Stopped(f"{self.key} is stopped."))
        self._held_back(item)

    def _held_back(self, item: Item) -> None:
        if self.phase is Phase.BACKOFF:
            backoff.bound(self, item)

    def pump(self) -> None:
        """Run what waits until a handler suspends or the mailbox is empty."""
        self.pumping = True
        count = 0
        try:
            while self.mailbox and self.task is None and self.phase is Phase.READY:
                if count == _PUMP_MAX:
                    self.host.loop.call_soon(self.pump)
                    return
                count += 1
                item = self.mailbox.pop(0)
                try:
                    self._run(item)
                except Exception as failure:  # noqa: BLE001 - what it raised outside of its handler concerns this entity alone
                    self._broke(item, failure)
            if self.mailbox and self.phase is Phase.RECOVERING:
                self.host.recovery.wanted(self)
        finally:
            self.pumping = False
            self.host.running.leave()

    def _broke(self, item: Item, failure: Exception) -> None:
        """The entity's own code raised around a handler (a validator, a copy): start over from the journal."""
        ask, sink, _ = item
        msg = f"{self.key}.{ask.method} raised {described(failure)}"
        error = HandlerFailed(msg, entity=self.key, command_id=ask.command_id)
        self.answer(sink, ask.n, ERROR, error.encode())
        if not self.host.failures.judge(self, None, ask, failure, kept=False):
            self.restart()

    # -- running one -------------------------------------------------------------------------------

    def _run(self, item: Item) -> None:
        ask, sink, deadline_s = item
        host = self.host
        now_s = self.last_used_s = host.clock.monotonic_s()
        if deadline_s <= now_s:
            msg = f"{self.key}.{ask.method} was not begun before its deadline; it was not applied."
            sink.answer(ask.n, ERROR, DeadlineExceeded(msg, entity=self.key, command_id=ask.command_id).encode())
            return
        if ask.method.startswith("$"):
            self._built_in(ask, sink)
            return
        try:
            if ask.flags & REMINDER and not host.reminders.admit(self, ask):
                self.answer(sink, ask.n, VALUE, b"null")
                return
            handler = self._handler(ask)
            if not handler.is_query and (decided := window.recall(self, ask)) is not None:
                self._recalled(item, decided, now_s)
                return
            host.running.enter(
                self.key, handler.name
            )  # left when the mailbox rests: parsing and writing are its own too
            args, kwargs = handler.parse(ask.args)
        except RemoraError as error:
            sink.answer(ask.n, ERROR, error.encode())
            return
        if handler.is_query and not host.may_answer(now_s) and not ask.flags & STALE:
            msg = f"{host.name} renews its lease; until then it answers no query from memory."
            sink.answer(ask.n, ERROR, Unavailable(msg, entity=self.key, retry_after_s=0.02).encode())
            return
        command_id = ask.command_id
        if ask.flags & SEND:  # the send waits for ever, each try to run it does not
            command_id = f"{ask.lane}>{ask.seq}"
            deadline_s = now_s + self.spec.options.deadline_s
            item = (ask, sink, deadline_s)
        entity = self.entity
        turn = Turn(
            command_id,
            host.clock.now_ms(),
            not handler.is_query,
            host.turn_calls(self),
            (*ask.chain, self.key),
            deadline_s,
        )
        image = None if handler.is_query else images.take(entity.state, deep=not self.spec.durable)
        entity._turn = turn  # noqa: SLF001 - the runtime's half of Entity
        coroutine = handler.fn(entity, *args, **kwargs)
        if handler.suspends:
            self._begin_task(item, handler, turn, image, coroutine)
        else:
            self._run_through(item, handler, turn, image, coroutine)

    def _recalled(self, item: Item, decided: tuple[int, bytes], now_s: float) -> None:
        ask, sink, deadline_s = item
        if decided[0] == window.UNKNOWN:
            self.host.windows.read(self, item)
        elif decided[0] == window.UNREAD:
            self.host.spawn(self._repeat(ask, sink, deadline_s - now_s))
        else:
            self.answer(sink, ask.n, *decided)

    async def _repeat(self, ask: Ask, sink: Sink, within_s: float) -> None:
        """Answer a command whose answer is in the store and not in memory: it waits for that, and nobody for it."""
        try:
            async with asyncio.timeout(within_s):
                sink.answer(ask.n, *await window.read(self, ask))
        except RemoraError as error:
            sink.answer(ask.n, ERROR, error.encode())
        except TimeoutError:
            msg = f"{self.key}: the answer to {ask.command_id} was not read before its deadline."
            sink.answer(ask.n, ERROR, DeadlineExceeded(msg, entity=self.key, command_id=ask.command_id).encode())

    def _run_through(self, item: Item, handler: HandlerSpec, turn: Turn, image: Any, coroutine: Any) -> None:  # noqa: ANN401 - opaque
        try:
            coroutine.send(None)
        except StopIteration as stop:
            self._complete(item, handler, turn, image, stop.value)
        except (Exception, SystemExit, asyncio.CancelledError) as failure:  # noqa: BLE001 - supervision decides about every failure
            self._failed(item, handler, turn, image, failure)
        else:
            coroutine.close()
            self._failed(item, handler, turn, image, RuntimeError(f"{handler.name} suspended without an await."))

    def _handler(self, ask: Ask) -> HandlerSpec:
        handler = self.spec.reminder_handler if ask.flags & REMINDER else self.spec.handler(ask.method)
        if self.host.quarantine.commands:
            self.host.quarantine.check(self.key, handler.name)
        return handler

    def _begin_task(self, item: Item, handler: HandlerSpec, turn: Turn, image: Any, coroutine: Any) -> None:  # noqa: ANN401 - opaque
        self.turn = (item, handler, turn)
        self.busy_since_s = self.host.clock.monotonic_s()
        loop = self.host.loop
        place = self.host.running.place
        if handler.in_thread:
            work = self.host.in_thread(coroutine, self.key, handler.name)
        else:
            work = coroutine if place is None else stepped(coroutine, place, self.key, handler.name)
        task = self.task = loop.create_task(_contained(work), name=f"{self.key}.{handler.name}")

        def overdue() -> None:
            task.cancel()
            timers.append(loop.call_later(GRACE_S, self._give_up, task, handler.name))

        timers = [loop.call_later(max(item[2] - self.busy_since_s, 0), overdue)]

        def finished(task: asyncio.Task[Any]) -> None:
            for timer in timers:
                timer.cancel()
            with suppress(ValueError):  # a thread may run it still
                coroutine.close()  # a task that was cancelled before its first step has not begun it
            if self.task is not task:
                if not task.cancelled():
                    task.exception()  # the activation went on without it; its caller was told
                return
            self.task = self.turn = None
            with self.host.running.within(self.key, handler.name):
                self._finished(task, item, handler, turn, image)
            if not self.pumping:
                self.pump()

        task.add_done_callback(finished)

    def _finished(self, task: asyncio.Task[Any], item: Item, handler: HandlerSpec, turn: Turn, image: Any) -> None:  # noqa: ANN401 - opaque
        if task.cancelled():
            msg = f"{self.key}.{handler.name} did not end before its deadline; it left no effect."
            late = DeadlineExceeded(msg, entity=self.key, command_id=turn.command_id)
            self._failed(item, handler, turn, image, turn.broken or late)
            if handler.in_thread:
                self.restart()  # the thread goes on, with a state that is nobody's any more
        elif (failure := task.exception()) is not None:
            self._failed(item, handler, turn, image, failure)
        else:
            self._complete(item, handler, turn, image, task.result())

    def begin_waiting(self, task: asyncio.Task[Any]) -> None:
        """Run nothing until a task that decides about this activation is done with it."""
        self.task = task
        self.busy_since_s = self.host.clock.monotonic_s()

    def _give_up(self, task: asyncio.Task[Any], handler: str) -> None:
        """A handler that was cancelled did not end: go on without it; what it still does reaches nothing."""
        if self.task is task:
            self.host.log.error("%s.%s ignores that it was cancelled at its deadline", self.key, handler)
            self.restart()

    # -- what became of it ---------------------------------------------------------------------------

    def _complete(self, item: Item, handler: HandlerSpec, turn: Turn, image: Any, value: object) -> None:  # noqa: ANN401 - opaque
        ask, sink, _ = item
        self.entity._turn = None  # noqa: SLF001 - the runtime's half of Entity
        if turn.spoiled is not None:
            self._failed(item, handler, turn, image, turn.spoiled)
            return
        host = self.host
        try:
            payload = host.check_size("The reply", handler.write_reply(value))
            if handler.is_query:
                self.answer(sink, ask.n, VALUE, payload)
                return
            for name, data in turn.events:
                host.check_size(name, data)
            state = host.write_state(self) if self.spec.kind == "durable" and not turn.erase else None
        except Exception as failure:  # noqa: BLE001 - a reply or state that cannot be written is the entity's failure
            self._failed(item, handler, turn, image, failure)
            return
        self._record(ask, sink, VALUE, payload, turn, state, clean=True)
        if turn.passivate:
            if self.spec.options.remember and self.commit is not None:
                self.commit.append.remembered[self.key] = None
                self.unremembered = True
            self.host.passivation.ask(self)

    def _record(
        self, ask: Ask, sink: Sink, verdict: int, payload: bytes, turn: Turn, state: bytes | None, *, clean: bool
    ) -> None:
        """Make the command an entry of the open commit; its answer waits there.

        Args:
            ask: The command.
            sink: Where its answer goes.
            verdict: Of the answer.
            payload: Of the answer.
            turn: What it did.
            state: The new state of a durable entity; None if it did not change.
            clean: Whether the state in memory is that of this entry: a failed handler may have left its traces in it.
        """
        now_ms, asked = turn.now_ms, 0
        if ask.flags & SEND:
            command_id = turn.command_id
            if self.marks is None:
                self.marks = {}
            self.marks[ask.lane] = ask.seq
        else:
            command_id = ask.command_id
            asked = fingerprint(ask.method, ask.args)
            window.remember(self, command_id, (verdict, payload, now_ms, asked))
        self.n += 1
        if not self.spec.durable:
            sink.answer(ask.n, verdict, payload)
            return
        self.seq += len(turn.events)
        commit = self.open_commit()
        append = commit.append
        events = write_events(turn.events)
        append.entries.append((self.key, self.n, self.seq, events, command_id, verdict, payload, now_ms, asked))
        if events is not None:
            self.tail_bytes += len(events)
        if self.unremembered:
            append.remembered[self.key] = (self.key, self.shard.key)
            self.unremembered = False
        if state is not None:
            append.states[self.key] = (self.key, self.n, self.seq, state, self.spec.state_version)
            self.state_bytes = len(state)
        failure = snapshots.keep(self, append, erase=turn.erase, clean=clean)
        if turn.sends:
            self.host.outbox.add(self, commit, turn.sends)
        if turn.reminders or ask.flags & REMINDER:
            self.host.reminders.add(self, commit.append, turn, ask)
        commit.answers.append((sink, ask.n, verdict, payload))
        if failure is not None:
            self.host.failures.judge_snapshot(self, failure)

    def open_commit(self) -> Commit:
        """Return the open commit, of which the entity is now a part."""
        commit = self.commit = self.host.committer.open()
        commit.cells.add(self)
        return commit

    def note(self, what: str) -> Commit:
        """Make an entry of the platform's own, without events or a caller; return the commit that holds it."""
        self.n += 1
        commit = self.open_commit()
        now_ms = self.host.clock.now_ms()
        commit.append.entries.append((self.key, self.n, self.seq, None, what, VALUE, b"null", now_ms, 0))
        return commit

    def _failed(self, item: Item, handler: HandlerSpec, turn: Turn, image: Any, failure: BaseException) -> None:  # noqa: ANN401 - opaque
        """Undo a handler that raised; record a rejection, have supervision decide about the rest."""
        ask, sink, _ = item
        self.entity._turn = None  # noqa: SLF001 - the runtime's half of Entity
        kept = handler.is_query or image is not None
        if image is not None:
            self.entity.state = images.restore(image)
        if isinstance(failure, Rejected) and not handler.is_query:
            turn.events.clear()
            turn.sends.clear()
            turn.reminders.clear()
            turn.erase = False
            failure.entity, failure.command_id = self.key, ask.command_id
            self._record(ask, sink, ERROR, failure.encode(), turn, None, clean=kept)
        elif isinstance(failure, RemoraError) and (
            isinstance(failure, Rejected | DeadlineExceeded) or handler.is_query
        ):
            failure.entity, failure.command_id = self.key, ask.command_id
            self.answer(sink, ask.n, ERROR, failure.encode())
        else:
            error = answer_for(failure, f"{self.key}.{handler.name}", ask.command_id)
            self.answer(sink, ask.n, ERROR, error.encode())
            if error.verdict is not Verdict.REJECT:
                lanes.break_at(self, ask)
            if isinstance(error, HandlerFailed) and self.host.failures.judge(self, handler, ask, failure, kept=kept):
                return
        if not kept:
            self.restart()

    # -- its life ------------------------------------------------------------------------------------

    def restart(self, after_s: float = 0.0, because: str = "") -> None:
        """Drop the state and recover, once what is uncommitted has been written.

        Args:
            after_s: Seconds to hold that back.
            because: What is said of it meanwhile.
        """
        if self.phase in {Phase.GONE, Phase.STOPPED} or (self.phase is Phase.BACKOFF and after_s > 0):
            return
        if after_s > 0:
            self.reason = Unavailable(because, entity=self.key, retry_after_s=after_s)
        self._abandon_task()
        self.busy_since_s = self.host.clock.monotonic_s()
        self.phase = step(self.phase, Phase.BACKOFF if after_s > 0 else Phase.RECOVERING)
        if not self.shard.accepting:
            return  # it is read back by its next host
        if after_s > 0:
            self.host.loop.call_later(after_s, self._recover_after_backoff)
            for item in self.mailbox:
                backoff.bound(self, item)
        else:
            self.host.recovery.after(self.commit, self)

    def _recover_after_backoff(self) -> None:
        if self.phase is Phase.BACKOFF:
            self.busy_since_s = self.host.clock.monotonic_s()
            self.phase = step(self.phase, Phase.RECOVERING)
            if not self.host.quarantine.keep(self):
                self.host.recovery.after(self.commit, self)

    def _abandon_task(self) -> None:
        task, working = self.task, self.turn
        self.task = self.turn = None
        if task is not None and working is not None:
            task.cancel()
            (ask, sink, _), handler, _ = working
            msg = f"{self.key} was restarted while {handler.name} ran; it left no effect."
            sink.answer(ask.n, ERROR, Unavailable(msg, entity=self.key, command_id=ask.command_id).encode())
            lanes.break_at(self, ask)

    def hold(self) -> None:
        """A commit that held its effects failed: run nothing more until it is recovered.

        Whose commands were in that commit is to send them again. What waits behind them must not
        run before, so all that waits is to be sent again too, in order.
        """
        if self.phase in {Phase.GONE, Phase.STOPPED}:
            return
        self._abandon_task()
        self.busy_since_s = self.host.clock.monotonic_s()
        self.phase = Phase.RECOVERING
        self.lanes = None
        self._refuse_waiting(Unavailable(f"{self.key} recovers after a commit that failed.", entity=self.key))

    def stop(self, reason: RemoraError) -> None:
        """Answer everything with ``reason`` from now on."""
        if self.phase in {Phase.GONE, Phase.STOPPED}:
            return
        self._abandon_task()
        self.busy_since_s = self.host.clock.monotonic_s()
        self.phase = step(self.phase, Phase.STOPPED)
        self.reason = reason
        self._refuse_waiting(reason)

    def vanish(self) -> None:
        """The host is gone as a killed process is: nothing is answered any more."""
        task, self.task, self.turn = self.task, None, None
        if task is not None:
            task.cancel()
        self.phase = Phase.GONE
        self.mailbox.clear()

    def leave(self, error: RemoraError) -> None:
        """The shard leaves this host, or its type is served no more: refuse what waits, throw away what still runs."""
        self._abandon_task()
        self.phase = Phase.GONE
        self._refuse_waiting(error)

    def _refuse_waiting(self, error: RemoraError) -> None:
        payload = error.encode()
        while self.mailbox:
            ask, sink, _ = self.mailbox.pop(0)
            sink.answer(ask.n, ERROR, payload)

    @property
    def idle(self) -> bool:
        """Whether it could leave memory now."""
        return (
            self.task is None
            and not self.mailbox
            and self.phase is Phase.READY
            and (self.commit is None or self.commit.done)
        )

    # -- answering -------------------------------------------------------------------------------------

    def answer(self, sink: Sink, n: int, verdict: int, payload: bytes) -> None:
        """Answer once all that the answer could have seen is committed."""
        commit = self.commit
        if commit is None or commit.done:
            sink.answer(n, verdict, payload)
        else:
            commit.answers.append((sink, n, verdict, payload))

    def _built_in(self, ask: Ask, sink: Sink) -> None:
        if ask.method == "$state":
            if not self.host.may_answer(self.last_used_s) and not ask.flags & STALE:
                msg = f"{self.host.name} renews its lease; until then it answers no query from memory."
                sink.answer(ask.n, ERROR, Unavailable(msg, entity=self.key, retry_after_s=0.02).encode())
                return
            state = self.entity.state
            self.answer(sink, ask.n, VALUE, state.__pydantic_serializer__.to_json(state, by_alias=True))
        elif ask.method == "$release":
            self.host.spawn(self.host.outbox.release(self, ask, sink))
        else:
            msg = f"{self.spec.type} has no command or query {ask.method!r}."
            sink.answer(ask.n, ERROR, InvalidInput(msg, entity=self.key).encode())


async def _contained(coroutine: Any) -> Any:  # noqa: ANN401 - a handler and its reply
    """Run a handler as a task: a task that raises SystemExit would end the loop, and its neighbours with it."""
    try:
        return await coroutine
    except SystemExit as error:
        msg = f"the handler called sys.exit({error.code!r})"
        raise RuntimeError(msg) from error


def write_events(events: list[tuple[str, bytes]]) -> bytes | None:
    """Return a command's events as one JSON array of [name, event], or None for none."""
    if not events:
        return None
    if len(events) == 1:
        name, data = events[0]
        return b'[["' + name.encode() + b'",' + data + b"]]"
    return _json([(name, msgspec.Raw(data)) for name, data in events])
