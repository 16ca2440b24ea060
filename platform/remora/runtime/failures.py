"""What becomes of failures on one host: judged by the declared rules, level after level, carried out, and noted.

Noted is in the store, a moment later: one row for all failures of an
entity's command with one exception, so that a storm of them is a number.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from remora.errors import Corrupt, RemoraError, Stopped, StoreUnavailable
from remora.journal import FailureRow
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

_STOPS: Rules = (on(BaseException).stop(),)
_GOES_ON: Rules = (on(BaseException).resume(),)
_encode = msgspec.json.Encoder().encode


class Failures:
    """Judges and notes the failures of one host's entities.

    Args:
        host: Whose they are.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
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

    def judge(self, cell: Cell, handler: HandlerSpec | None, ask: Ask, failure: BaseException) -> bool:
        """Carry out what the rules say of a failure, and note it; return whether the activation is disposed of by that.

        Args:
            cell: What failed.
            handler: In what; None where it was not begun.
            ask: What was asked of it.
            failure: What was raised.
        """
        try:
            return self._judge(cell, handler, ask, failure)
        except Exception:  # a mistake here must not leave the activation with what the handler did
            self._host.log.exception("the failure of %s could not be judged: it restarts", cell.key)
            cell.restart()
            return True

    def _judge(self, cell: Cell, handler: HandlerSpec | None, ask: Ask, failure: BaseException) -> bool:
        command = ask.method if handler is None else handler.name
        arguments = "" if handler is None else shown(handler.masked(ask.args))
        decision, of_shard = self._decide(cell, command, failure, self._defaults(cell), arguments, ask.command_id)
        if of_shard is not None:
            self._carry_out_on_shard(cell, of_shard, failure)
            return True
        return self._carry_out(cell, decision, failure)

    def judge_recovery(self, cell: Cell, failure: Exception) -> None:
        """Carry out what the rules say of an entity that could not be read back: without one it is stopped, as ``Corrupt``.

        There is no state to resume with, so that ``resume`` stops it too.
        """
        decision, of_shard = self._decide(cell, RECOVERY, failure, _STOPS)
        if of_shard is not None:
            self._carry_out_on_shard(cell, _not_at_once(of_shard), failure)
        elif decision.directive is Directive.RESTART:
            cell.restart(_not_at_once(decision).after_s, described(failure))
        else:
            cell.stop(Corrupt(f"{cell.key} cannot be recovered: {failure}", entity=cell.key))

    def judge_snapshot(self, cell: Cell, failure: Exception) -> None:
        """Carry out what the rules say of a snapshot that could not be taken: without one it is tried later.

        The command that it was taken after is recorded; its events are the truth.
        """
        decision, of_shard = self._decide(cell, SNAPSHOT, failure, _GOES_ON)
        if of_shard is not None:
            self._carry_out_on_shard(cell, of_shard, failure)
        else:
            self._carry_out(cell, decision, failure)

    def _decide(
        self, cell: Cell, command: str, failure: BaseException, defaults: Rules, arguments: str = "", command_id: str = "",
    ) -> tuple[Decision, Decision | None]:  # fmt: skip
        """Decide and note; return what becomes of the entity, and of its shard if that is not left alone."""
        self.count += 1
        kinds = kinds_of(failure)
        decision = decided = self._entity(cell, kinds, defaults)
        of_shard: Decision | None = None
        if decision.directive is Directive.ESCALATE:
            of_shard = decided = self._shard(cell, kinds)
            if of_shard.directive in {Directive.RESUME, Directive.ESCALATE}:
                decision, of_shard = self._entity(cell, kinds, defaults, by_default=True), None
        self._note(cell, command, failure, kinds, decided, arguments, command_id)
        return decision, of_shard

    def _defaults(self, cell: Cell) -> Rules:
        return self._host.app.rules[cell.spec.type][1]

    def _entity(self, cell: Cell, kinds: tuple[str, ...], defaults: Rules, *, by_default: bool = False) -> Decision:
        host = self._host
        declared, _ = host.app.rules[cell.spec.type]
        decision, cell.history = decide(
            (*declared, *defaults), kinds, cell.history or {}, host.clock.monotonic_s(), host.rng,
            first=len(declared) if by_default else 0,
        )  # fmt: skip
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

    def _note(
        self, cell: Cell, command: str, failure: BaseException, kinds: tuple[str, ...], decided: Decision, arguments: str,
        command_id: str,
    ) -> None:  # fmt: skip
        kind, now_ms = name_of(type(failure))[:NAME_MAX], self._host.clock.now_ms()
        command = command[:NAME_MAX]
        if self._writing is None:
            self._writing = self._host.spawn(self._write())
        key = (cell.key, command, kind)
        if key not in self._rows and len(self._rows) >= ROWS_MAX:
            key = (f"{cell.spec.type}/{OTHERS}", command, kind)
        row = self._rows.get(key)
        if row is not None:  # the first of them in full is enough: a storm must not be spent on tracebacks
            self._rows[key] = msgspec.structs.replace(row, last_ms=now_ms, times=row.times + 1)
            return
        host = self._host
        value = Failure(
            cell.key, command, kind, message_of(failure), kinds, traceback_of(failure),
            arguments, command_id, decided.directive.value, decided.after_s, decided.count,
            host.row.name, host.row.node, host.incarnation, cell.shard.key, cell.shard.epoch, now_ms,
        )  # fmt: skip
        self._rows[key] = FailureRow(*key, now_ms, now_ms, 1, _encode(value).decode())
        host.log.warning("%s.%s failed: %s", cell.key, command, value.traceback)

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
        """Write what was not written yet; without a store, say so."""
        self._closing.set()
        if self._writing is not None:
            await asyncio.wait([self._writing])


def _not_at_once(decision: Decision) -> Decision:
    return decision if decision.after_s >= AGAIN_MIN_S else replace(decision, after_s=AGAIN_MIN_S)
