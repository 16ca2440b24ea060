"""What becomes of failures on one host: judged by the declared rules, level after level, carried out, and noted.

Noted is in the store, a moment later: one row for all failures of an
entity's command with one exception, so that a storm of them is a number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from remora.errors import Corrupt, RemoraError, Stopped, StoreUnavailable, Unavailable
from remora.journal import FailureRow
from remora.runtime.advice import Advice
from remora.runtime.advice import Ask as AskSupervisor
from remora.supervision.decisions import Decision, History, decide
from remora.supervision.failure import RECOVERY, SNAPSHOT, Failure, described, message_of, shown, traceback_of
from remora.supervision.rules import Directive, Rules, kinds_of, name_of, on

if TYPE_CHECKING:
    from remora.contract import HandlerSpec
    from remora.messages import Ask
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

AGAIN_MIN_S = 0.1
"""Shortest pause before an entity that could not be read back is read again, in seconds: whatever a rule says, it must not
read the store as fast as it can."""
NOTED_S = 0.1
"""Seconds in which failures are gathered before they are written: what a host that is killed can lose."""
SLICE_ROWS = 100
"""Rows written at a time: some hundred kilobytes, so that a storm does not hold up what else is written."""
NAME_MAX = 200
"""Characters of the names of commands and exceptions: rows are found by them, and an index takes no more."""
ROWS_MAX = 1_000
"""Rows gathered at a time; beyond, failures of further entities are counted under ``type/…`` together."""
OTHERS = "…"

ESCALATION_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Pauses between tries to reach the registry with what was escalated, in seconds: as long as another takes to lead. Its entity
has started again meanwhile, and escalates again if it fails again."""
Escalation = Callable[[bytes], Awaitable[None]]
"""Gives the levels above a ``Failure`` as JSON."""

_RESTARTS = on(BaseException).restart()
"""What a restart that a supervisor asks for, and no rule would have, pauses by."""
_STOPS: Rules = (on(BaseException).stop(),)
_GOES_ON: Rules = (on(BaseException).resume(),)
_encode = msgspec.json.Encoder().encode


class Happened(NamedTuple):
    """A failure before it is judged."""

    command: str
    failure: BaseException
    kinds: tuple[str, ...]
    arguments: str = ""
    command_id: str = ""
    defaults: Rules | None = None
    """What decides where no declared rule does; None: what does for its kind of entity."""
    unread: bool = False
    """Whether it could not be read back, so that there is no state to go on with."""


class Failures:
    """Judges and notes the failures of one host's entities.

    Args:
        host: Whose they are.
        ask: The way to supervisors, if there is one.
        escalation: The way to the levels above, if there is one.
    """

    def __init__(self, host: Host, ask: AskSupervisor | None, escalation: Escalation | None) -> None:
        self._host = host
        self.advice = Advice(host, ask)
        self._escalation = escalation
        self._escalating: set[str] = set()
        """Shards a failure of which is on its way to the levels above: one at a time, since it is the host's they judge."""
        self.judging: dict[str, Happened] = {}
        """Entity → what its supervisor is asked about."""
        self._shards: dict[str, History] = {}
        """Shard → what its rules were used for, while this host has it."""
        self._rows: dict[tuple[str, str, str], FailureRow] = {}
        """What is to be written."""
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self.count = 0
        """Failures so far."""

    def forget(self, shard: str) -> None:
        """A shard has left this host."""
        self._shards.pop(shard, None)

    # -- judging -----------------------------------------------------------------------------------

    def judge(self, cell: Cell, handler: HandlerSpec | None, ask: Ask, failure: BaseException, *, kept: bool) -> bool:
        """Carry out what is to become of an entity after a failure, and note it.

        Args:
            cell: What failed.
            handler: In what; None where it was not begun.
            ask: What was asked of it.
            failure: What was raised.
            kept: Whether the state in memory is that of before the command.

        Returns:
            Whether the activation is disposed of by that, now or when its supervisor has answered; else it goes on.
        """
        try:
            happened = Happened(
                ask.method if handler is None else handler.name, failure, kinds_of(failure),
                "" if handler is None else shown(handler.masked(ask.args)), ask.command_id,
            )  # fmt: skip
            return self._judge(cell, happened, kept=kept)
        except Exception:  # a mistake here must not leave the activation with what the handler did
            self._host.log.exception("the failure of %s could not be judged: it restarts", cell.key)
            cell.restart()
            return True

    def judge_recovery(self, cell: Cell, failure: Exception) -> None:
        """Carry out what becomes of an entity that could not be read back: where nothing is said it is stopped, as ``Corrupt``.

        There is no state to resume with, so that ``resume`` stops it too.
        """
        self._judge(cell, Happened(RECOVERY, failure, kinds_of(failure), defaults=_STOPS, unread=True), kept=True)

    def judge_snapshot(self, cell: Cell, failure: Exception) -> None:
        """Carry out what becomes of an entity a snapshot of which could not be taken: where nothing is said it goes on.

        The command that it was taken after is recorded; its events are the truth. The next one is tried later.
        """
        self._judge(cell, Happened(SNAPSHOT, failure, kinds_of(failure), defaults=_GOES_ON), kept=True)

    def _judge(self, cell: Cell, happened: Happened, *, kept: bool) -> bool:
        if (way := self.advice.way(cell.spec.type)) is not None:
            asking = self._host.spawn(self._consult(way, cell, happened, kept=kept))
            self.advice.begin(asking)
            cell.begin_waiting(asking)
            return True
        return self._settle(cell, happened)

    async def _consult(self, way: AskSupervisor, cell: Cell, happened: Happened, *, kept: bool) -> None:
        """Ask the supervisor, then carry out what it says, or the rules; the entity does nothing meanwhile."""
        task, asked = asyncio.current_task(), False
        directive: Directive | None = None
        self.judging[cell.key] = happened
        try:
            directive = await self.advice.ask(way, cell.spec.type, self._value(cell, happened))
            asked = True
        except Unavailable:
            pass  # logged there; the rules decide, and it is told later
        except Exception:  # as in `judge`: an entity must not wait for ever
            self._host.log.exception("the supervisor of %s could not be asked", cell.key)
        except asyncio.CancelledError:
            if (
                self.advice.closed
            ):  # what was to become of it, its next host finds out; its supervisor hears of it later
                self._note(cell, happened, Decision(Directive.RESTART), told=False)
            raise
        finally:
            if self.judging.get(cell.key) is happened:
                del self.judging[cell.key]
        if cell.task is not task:  # its shard has moved, or it was restarted: what was to become of it is settled
            self._note(cell, happened, Decision(Directive.RESTART), told=asked)
            return
        cell.task = None
        try:
            disposed = self._settle(cell, happened, directive, asked=asked)
        except Exception:  # as in `judge`
            self._host.log.exception("the failure of %s could not be judged: it restarts", cell.key)
            disposed, kept = False, False
        if not disposed and not kept:
            cell.restart(AGAIN_MIN_S if happened.unread else 0.0, described(happened.failure))
        if not cell.pumping:
            cell.pump()

    def _settle(
        self, cell: Cell, happened: Happened, directive: Directive | None = None, *, asked: bool = False
    ) -> bool:
        failure, defaults = happened.failure, happened.defaults or self._host.app.rules[cell.spec.type][1]
        decision, of_shard = self._decide(cell, happened, defaults, directive, asked=asked)
        if of_shard is not None:
            self._carry_out_on_shard(cell, _not_at_once(of_shard) if happened.unread else of_shard, failure)
            return True
        if not happened.unread:
            return self._carry_out(cell, decision, failure)
        if decision.directive is Directive.RESTART:
            cell.restart(_not_at_once(decision).after_s, described(failure))
        else:
            cell.stop(Corrupt(f"{cell.key} cannot be recovered: {message_of(failure)}", entity=cell.key))
        return True

    def _decide(
        self,
        cell: Cell,
        happened: Happened,
        defaults: Rules,
        directive: Directive | None = None,
        *,
        asked: bool = False,
    ) -> tuple[Decision, Decision | None]:
        """Decide and note; return what becomes of the entity, and of its shard if that is not left alone."""
        kinds = happened.kinds
        decision = decided = self._entity(cell, kinds, defaults, said=directive)
        of_shard: Decision | None = None
        if decision.directive is Directive.ESCALATE:
            of_shard = decided = self._shard(cell, kinds)
            if of_shard.directive in {Directive.RESUME, Directive.ESCALATE}:
                decision, of_shard = self._entity(cell, kinds, defaults, by_default=True), None
            levels, shard = self._escalation, cell.shard.key
            if decided.directive is Directive.ESCALATE and levels is not None and shard not in self._escalating:
                self._escalating.add(shard)
                self._host.spawn(self._escalate(levels, self._value(cell, happened, decided)))
        self._note(cell, happened, decided, told=asked)
        return decision, of_shard

    async def _escalate(self, levels: Escalation, failure: Failure) -> None:
        """Leave a failure to the levels above, which the registry speaks for, as long as that may be away for a moment."""
        try:
            for pause_s in (*ESCALATION_PAUSES_S, 0.0):
                try:
                    await levels(_encode(failure))
                except RemoraError as error:
                    self._host.log.warning("a failure of %s could not be escalated: %s", failure.entity, error)
                else:
                    return
                await asyncio.sleep(pause_s)  # noqa: TID251 - growing, bounded pause while the registry is away
        finally:
            self._escalating.discard(failure.shard)

    def _entity(
        self, cell: Cell, kinds: tuple[str, ...], defaults: Rules, *, by_default: bool = False,
        said: Directive | None = None,
    ) -> Decision:  # fmt: skip
        host = self._host
        declared, _ = host.app.rules[cell.spec.type]
        rules = (*declared, *defaults, _RESTARTS)
        first = len(declared) if by_default else 0
        now_s = host.clock.monotonic_s()
        decision, history = decide(rules, kinds, cell.history or {}, now_s, host.rng, first=first)
        if said is not None and said is not decision.directive:
            if said is not Directive.RESTART:
                return Decision(said)
            decision, history = decide(rules, kinds, cell.history or {}, now_s, host.rng, first=len(rules) - 1)
        cell.history = history
        return decision

    def _shard(self, cell: Cell, kinds: tuple[str, ...]) -> Decision:
        host, key = self._host, cell.shard.key
        before = self._shards.get(key, {})
        rules = host.app.supervision.shard_rules
        decision, self._shards[key] = decide(rules, kinds, before, host.clock.monotonic_s(), host.rng)
        return decision

    @staticmethod
    def _carry_out_on_shard(cell: Cell, decision: Decision, failure: BaseException) -> None:
        if decision.directive is Directive.RESTART:
            cell.shard.restart_all(decision.after_s, described(failure))
        else:
            msg = f"Shard {cell.shard.key} was stopped by its supervision rules after {cell.key} raised: {described(failure)}"
            cell.shard.stop_all(Stopped(msg))

    @staticmethod
    def _carry_out(cell: Cell, decision: Decision, failure: BaseException) -> bool:
        if decision.directive is Directive.RESUME:
            return False
        if decision.directive is Directive.STOP:
            cell.stop(
                Stopped(f"{cell.key} was stopped by its supervision rules after: {described(failure)}", entity=cell.key)
            )
        else:
            cell.restart(decision.after_s, described(failure))
        return True

    # -- noting ------------------------------------------------------------------------------------

    def _note(self, cell: Cell, happened: Happened, decided: Decision, *, told: bool) -> None:
        self.count += 1
        now_ms = self._host.clock.now_ms()
        untold = int(not told and self.advice.supervised(cell.spec.type))
        if self._writing is None:
            self._writing = self._host.spawn(self._write())
        key = (cell.key, happened.command[:NAME_MAX], name_of(type(happened.failure))[:NAME_MAX])
        if key not in self._rows and len(self._rows) >= ROWS_MAX:
            key = (f"{cell.spec.type}/{OTHERS}", *key[1:])
        row = self._rows.get(key)
        if row is not None:  # the first of them in full is enough: a storm must not be spent on tracebacks
            self._rows[key] = msgspec.structs.replace(
                row, last_ms=now_ms, times=row.times + 1, untold=row.untold + untold
            )
            return
        value = self._value(cell, happened, decided)
        self._rows[key] = FailureRow(*key, now_ms, now_ms, 1, _encode(value).decode(), untold)
        self._host.log.warning("%s.%s failed: %s", cell.key, value.command, value.traceback)

    def _value(self, cell: Cell, happened: Happened, decided: Decision | None = None) -> Failure:
        host, failure = self._host, happened.failure
        directive, after_s, count = ("", 0.0, 1) if decided is None else (
            decided.directive.value, decided.after_s, decided.count
        )  # fmt: skip
        return Failure(
            cell.key, happened.command[:NAME_MAX], name_of(type(failure))[:NAME_MAX], message_of(failure),
            happened.kinds, traceback_of(failure), happened.arguments, happened.command_id, directive, after_s, count,
            host.row.name, host.row.node, host.incarnation, cell.shard.key, cell.shard.epoch, host.clock.now_ms(),
        )  # fmt: skip

    async def _write(self) -> None:
        host = self._host
        try:
            while True:
                await self._gather()
                rows, self._rows = list(self._rows.values()), {}
                for start in range(0, len(rows), SLICE_ROWS):
                    await self._add(rows[start : start + SLICE_ROWS])
                if not self._rows:
                    return
        except StoreUnavailable as error:  # and this host is closed
            host.log.error("failures of %s were not noted: %s", host.name, error)  # noqa: TRY400 - where it was raised says nothing
        finally:
            self._writing = None

    async def _add(self, rows: list[FailureRow]) -> None:
        host = self._host
        try:
            await host.patiently(partial(host.store.add_failures, rows))
        except StoreUnavailable:
            raise
        except RemoraError as error:  # they are what the store does not take: others are
            host.log.error("%d failures were not noted: %s", len(rows), error)  # noqa: TRY400 - as above

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(NOTED_S):
                await self._closing.wait()
        except TimeoutError:
            pass  # the time is over

    @property
    def noted(self) -> bool:
        """Whether all failures so far are in the store."""
        return self._writing is None

    async def close(self) -> None:
        """Write what was not written yet, what supervisors are asked about included; without a store, say so."""
        await self.advice.close()
        self._closing.set()
        if self._writing is not None:
            await asyncio.wait([self._writing])


def _not_at_once(decision: Decision) -> Decision:
    return decision if decision.after_s >= AGAIN_MIN_S else replace(decision, after_s=AGAIN_MIN_S)
