"""One activation: the entity in memory, its mailbox, and how a command runs.

Commands and queries run one at a time, in the order they came. A handler without ``await`` runs
to its end at once; one with gets a task. What it did becomes one entry of the open commit, its
answer waits there (output gate), and the next command may run meanwhile on the applied state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from remora.contract import EntitySpec, HandlerSpec
from remora.entity import Entity, Turn
from remora.errors import (
    DeadlineExceeded,
    HandlerFailed,
    InvalidInput,
    NotOwner,
    OutOfOrder,
    Overloaded,
    Rejected,
    RemoraError,
    Stopped,
    TooOld,
    Unavailable,
)  # fmt: skip
from remora.ids import made_at_ms
from remora.lifecycle import Phase, step
from remora.messages import ERROR, REMINDER, REPEATED, SEND, STALE, VALUE, Ask
from remora.runtime import image as images
from remora.runtime.committer import Commit, Sink
from remora.supervision import Decision, Directive, decide

if TYPE_CHECKING:
    from remora.runtime.host import Host
    from remora.runtime.shard import Shard

_json = msgspec.json.Encoder().encode
_OK = b"null"
_PUMP_MAX = 128
"""Handlers run in one go before the loop gets its turn."""

Item = tuple[Ask, Sink, float]
"""(ask, where its answer goes, deadline in seconds)"""


class Cell:
    """One activation of an entity on this host."""

    __slots__ = (
        "busy_since_s", "commit", "entity", "failures_s", "host", "id", "key", "lanes", "last_used_s", "mailbox",
        "marks", "marks_n", "n", "phase", "pumping", "reason", "seq", "shard", "snapshot_n", "spec", "task", "turn",
        "window",
    )  # fmt: skip

    def __init__(self, host: Host, shard: Shard, spec: EntitySpec, entity_id: str, key: str) -> None:
        self.host = host
        self.shard = shard
        self.spec = spec
        self.id = entity_id
        self.key = key
        self.phase = Phase.RECOVERING
        self.reason: RemoraError | None = None
        """Why it is stopped."""
        self.entity: Entity[Any]
        self.mailbox: deque[Item] = deque()
        self.n = 0
        self.seq = 0
        self.snapshot_n = 0
        self.marks: dict[str, int] | None = None
        """Last applied durable send per sending entity."""
        self.marks_n = 0
        self.lanes: dict[str, int] | None = None
        """Last accepted number per lane."""
        self.window: dict[str, tuple[int, bytes, int]] = {}
        """Recorded answers: command id → (verdict, payload, wall clock in ms), oldest first."""
        self.commit: Commit | None = None
        """The commit that holds its latest entry."""
        self.task: asyncio.Task[Any] | None = None
        self.turn: tuple[Item, HandlerSpec, Turn] | None = None
        """What a running task works on."""
        self.busy_since_s = 0.0
        self.last_used_s = 0.0
        self.pumping = False
        self.failures_s: list[float] | None = None

    # -- taking work -------------------------------------------------------------------------------

    def offer(self, ask: Ask, sink: Sink, deadline_s: float) -> None:
        """Take an ask into the mailbox, or refuse it at once."""
        if self.phase is Phase.STOPPED:
            sink.answer(ask.n, ERROR, (self.reason or Stopped(f"{self.key} is stopped.")).encode())
            return
        lanes: dict[str, int] | None = None
        if ask.seq and not ask.flags & SEND:  # durable sends are checked as they run, against their watermark
            lanes = self.lanes
            if lanes is None:
                lanes = self.lanes = {}
            if ask.prev > lanes.get(ask.lane, 0):
                error: RemoraError = OutOfOrder(
                    f"{self.key} has not seen command {ask.prev} of this lane.", entity=self.key
                )
                sink.answer(ask.n, ERROR, error.encode())
                return
        if len(self.mailbox) >= self.spec.options.mailbox_max:
            msg = f"{self.key} has {len(self.mailbox)} commands waiting, its bound: come back later."
            error = Overloaded(msg, entity=self.key, command_id=ask.command_id, retry_after_s=0.05)
            sink.answer(ask.n, ERROR, error.encode())
            return
        if lanes is not None and ask.seq > lanes.get(ask.lane, 0):
            lanes[ask.lane] = ask.seq
        self.mailbox.append((ask, sink, deadline_s))
        if not self.pumping:
            self.pump()

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
                self._run(self.mailbox.popleft())
        finally:
            self.pumping = False

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
            handler = self._handler(ask)
            if not handler.is_query and self._repeated(ask, sink):
                return
            args, kwargs = handler.parse(ask.args)
        except RemoraError as error:
            sink.answer(ask.n, ERROR, error.encode())
            return
        if handler.is_query and not host.may_answer(now_s) and not ask.flags & STALE:
            msg = f"{host.name} renews its lease; until then it answers no query from memory."
            sink.answer(ask.n, ERROR, Unavailable(msg, entity=self.key, retry_after_s=0.02).encode())
            return
        entity = self.entity
        turn = Turn(
            ask.command_id,
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
            return
        try:
            coroutine.send(None)
        except StopIteration as stop:
            self._complete(item, handler, turn, image, stop.value)
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - supervision decides about every failure
            self._failed(item, handler, turn, image, failure)
        else:
            coroutine.close()
            self._failed(item, handler, turn, image, RuntimeError(f"{handler.name} suspended without an await."))

    def _handler(self, ask: Ask) -> HandlerSpec:
        if ask.flags & REMINDER:
            return self.spec.reminder_handler
        return self.spec.handler(ask.method)

    def _begin_task(self, item: Item, handler: HandlerSpec, turn: Turn, image: Any, coroutine: Any) -> None:  # noqa: ANN401 - opaque
        self.turn = (item, handler, turn)
        self.busy_since_s = self.host.clock.monotonic_s()
        task = self.task = self.host.loop.create_task(coroutine, name=f"{self.key}.{handler.name}")
        timer = self.host.loop.call_later(max(item[2] - self.busy_since_s, 0), task.cancel)

        def finished(task: asyncio.Task[Any]) -> None:
            timer.cancel()
            if self.task is not task:
                task.cancelled() or task.exception()  # the activation went on without it; its caller was told
                return
            self.task = self.turn = None
            if task.cancelled():
                msg = f"{self.key}.{handler.name} did not end before its deadline; it left no effect."
                self._failed(
                    item, handler, turn, image, DeadlineExceeded(msg, entity=self.key, command_id=turn.command_id)
                )
            elif (failure := task.exception()) is not None:
                self._failed(item, handler, turn, image, failure)
            else:
                self._complete(item, handler, turn, image, task.result())
            if not self.pumping:
                self.pump()

        task.add_done_callback(finished)

    def _repeated(self, ask: Ask, sink: Sink) -> bool:
        """Answer a command that was applied before; return whether it was."""
        if ask.flags & SEND:
            applied = 0 if self.marks is None else self.marks.get(ask.lane, 0)
            if ask.seq <= applied:
                self.answer(sink, ask.n, REPEATED, _OK)
                return True
            if ask.prev > applied:
                msg = f"{self.key} has not applied send {ask.prev} of {ask.lane}, which comes first."
                raise OutOfOrder(msg, entity=self.key)
            return False
        known = self.window.get(ask.command_id)
        if known is not None:
            self.answer(sink, ask.n, REPEATED + known[0], known[1])
            return True
        made_at = made_at_ms(ask.command_id)
        if made_at is not None and len(self.window) >= self.spec.options.dedup_window:
            oldest = next(iter(self.window.values()))[2]
            if made_at < oldest - self.host.clock_skew_ms:
                msg = f"{self.key}: command {ask.command_id} is older than the last {self.spec.options.dedup_window} commands it remembers; whether it was applied is not known."
                raise TooOld(msg, entity=self.key, command_id=ask.command_id)
        return False

    # -- what became of it ---------------------------------------------------------------------------

    def _complete(self, item: Item, handler: HandlerSpec, turn: Turn, image: Any, value: object) -> None:  # noqa: ANN401 - opaque
        ask, sink, _ = item
        self.entity._turn = None  # noqa: SLF001 - the runtime's half of Entity
        try:
            payload = handler.write_reply(value)
            if handler.is_query:
                self.answer(sink, ask.n, VALUE, payload)
                return
            state = self.host.write_state(self, turn) if self.spec.kind == "durable" else None
        except Exception as failure:  # noqa: BLE001 - a reply or state that cannot be written is the entity's failure
            self._failed(item, handler, turn, image, failure)
            return
        self._record(ask, sink, VALUE, payload, turn, state)
        if turn.passivate:
            self.last_used_s = float("-inf")
            self.shard.passivating.append(self)

    def _record(self, ask: Ask, sink: Sink, verdict: int, payload: bytes, turn: Turn, state: bytes | None) -> None:
        """Make the command an entry of the open commit; its answer waits there."""
        now_ms = turn.now_ms
        if ask.flags & SEND:
            command_id = f"{ask.lane}>{ask.seq}"
            if self.marks is None:
                self.marks = {}
            self.marks[ask.lane] = ask.seq
        else:
            command_id = ask.command_id
            self._remember(command_id, verdict, payload, now_ms)
        self.n += 1
        if not self.spec.durable:
            sink.answer(ask.n, verdict, payload)
            return
        self.seq += len(turn.events)
        commit = self.commit = self.host.committer.open()
        commit.cells.add(self)
        append = commit.append
        append.entries.append(
            (self.key, self.n, self.seq, write_events(turn.events), command_id, verdict, payload, now_ms)
        )
        if state is not None:
            append.states[self.key] = (self.key, self.n, self.seq, state)
        if self.n - self.snapshot_n >= self.spec.options.snapshot_every:
            self.host.snapshot(self, commit)
        if turn.sends:
            self.host.outbox.add(self, commit, turn.sends)
        if turn.reminders or ask.flags & REMINDER:
            self.host.reminders.add(self, append, turn, ask)
        commit.answers.append((sink, ask.n, verdict, payload))

    def _remember(self, command_id: str, verdict: int, payload: bytes, at_ms: int) -> None:
        window = self.window
        window[command_id] = (verdict, payload, at_ms)
        options = self.spec.options
        oldest = next(iter(window))
        if len(window) > options.dedup_window or at_ms - window[oldest][2] > options.dedup_age_s * 1000:
            del window[oldest]

    def _failed(self, item: Item, handler: HandlerSpec, turn: Turn, image: Any, failure: BaseException) -> None:  # noqa: ANN401 - opaque
        """Undo a handler that raised; record a rejection, have supervision decide about the rest."""
        ask, sink, _ = item
        self.entity._turn = None  # noqa: SLF001 - the runtime's half of Entity
        kept = self._undo(turn, image, failure) if not handler.is_query else True
        if isinstance(failure, Rejected) and not handler.is_query:
            turn.events.clear()
            turn.sends.clear()
            turn.reminders.clear()
            failure.entity, failure.command_id = self.key, ask.command_id
            self._record(ask, sink, ERROR, failure.encode(), turn, None)
        elif isinstance(failure, RemoraError) and (
            isinstance(failure, Rejected | DeadlineExceeded) or handler.is_query
        ):
            self.answer(sink, ask.n, ERROR, failure.encode())
        else:
            error = answer_for(failure, f"{self.key}.{handler.name}", ask.command_id)
            self.answer(sink, ask.n, ERROR, error.encode())
            if isinstance(error, HandlerFailed):
                self.host.log_failure(self, handler.name, failure)
                if self._supervise(failure):
                    return
        if not kept:
            self.restart()

    def _undo(self, turn: Turn, image: Any, failure: BaseException) -> bool:  # noqa: ANN401 - opaque
        """Return whether the state is again what it was before the handler."""
        if image is not None:
            self.entity.state = images.restore(self.entity.state, image)
            return True
        del turn, failure
        return False

    def _supervise(self, failure: BaseException) -> bool:
        """Carry out the declared rules; return whether they disposed of the activation."""
        now_s = self.host.clock.monotonic_s()
        if self.failures_s is None:
            self.failures_s = []
        self.failures_s.append(now_s)
        del self.failures_s[:-100]
        decision: Decision = decide(self.spec.options.supervision, failure, self.failures_s, now_s, self.host.rng)
        if decision.directive is Directive.RESUME:
            return False
        if decision.directive is Directive.STOP:
            self.stop(Stopped(f"{self.key} was stopped by its supervision rules after: {failure!r}", entity=self.key))
        elif decision.directive is Directive.ESCALATE:
            self.shard.restart_all()
        else:
            self.restart(decision.after_s)
        return True

    # -- its life ------------------------------------------------------------------------------------

    def restart(self, after_s: float = 0.0) -> None:
        """Drop the state and recover, once what is uncommitted has been written."""
        if self.phase in {Phase.GONE, Phase.STOPPED}:
            return
        self._abandon_task()
        self.phase = step(self.phase, Phase.BACKOFF if after_s > 0 else Phase.RECOVERING)
        if after_s > 0:
            self.host.loop.call_later(after_s, self._recover_after_backoff)
        else:
            self.host.recover_after(self.commit, self)

    def _recover_after_backoff(self) -> None:
        if self.phase is Phase.BACKOFF:
            self.phase = step(self.phase, Phase.RECOVERING)
            self.host.recover_after(self.commit, self)

    def _abandon_task(self) -> None:
        task, working = self.task, self.turn
        self.task = self.turn = None
        if task is not None and working is not None:
            task.cancel()
            (ask, sink, _), handler, _ = working
            msg = f"{self.key} was restarted while {handler.name} ran; it left no effect."
            sink.answer(ask.n, ERROR, Unavailable(msg, entity=self.key, command_id=ask.command_id).encode())

    def hold(self) -> None:
        """A commit that held its effects failed: run nothing more until it is recovered."""
        if self.phase in {Phase.GONE, Phase.STOPPED}:
            return
        self._abandon_task()
        self.phase = Phase.RECOVERING

    def stop(self, reason: RemoraError) -> None:
        """Answer everything with ``reason`` from now on."""
        self._abandon_task()
        self.phase = step(self.phase, Phase.STOPPED)
        self.reason = reason
        self._refuse_waiting(reason)

    def leave(self, error: NotOwner) -> None:
        """The shard leaves this host: refuse what waits, throw away what still runs."""
        self._abandon_task()
        self.phase = Phase.GONE
        self._refuse_waiting(error)

    def _refuse_waiting(self, error: RemoraError) -> None:
        payload = error.encode()
        while self.mailbox:
            ask, sink, _ = self.mailbox.popleft()
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
            self.answer(sink, ask.n, VALUE, self.entity.state.__pydantic_serializer__.to_json(self.entity.state))
        else:
            msg = f"{self.spec.type} has no command or query {ask.method!r}."
            sink.answer(ask.n, ERROR, InvalidInput(msg, entity=self.key).encode())


def write_events(events: list[tuple[str, bytes]]) -> bytes | None:
    """Return a command's events as one JSON array of [name, event], or None for none."""
    if not events:
        return None
    if len(events) == 1:
        name, data = events[0]
        return b'[["' + name.encode() + b'",' + data + b"]]"
    return _json([(name, msgspec.Raw(data)) for name, data in events])


def answer_for(failure: BaseException, where: str, command_id: str) -> RemoraError:
    """Return what a caller is told about a handler that raised.

    Errors of Remora that a handler did not catch keep their verdict if asking again helps;
    everything else is the handler's failure.
    """
    if isinstance(failure, RemoraError) and failure.verdict.value != "reject":
        return Unavailable(
            f"{where}: {failure.message}", command_id=command_id, retry_after_s=failure.retry_after_s or 0.05
        )
    if isinstance(failure, RemoraError) and failure.code == "call_cycle":
        failure.command_id = command_id
        return failure
    return HandlerFailed(f"{where} raised {type(failure).__name__}: {failure}", command_id=command_id)
