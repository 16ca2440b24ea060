"""What becomes of failures on one host: judged by the declared rules, level after level, and carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remora.errors import Stopped
from remora.supervision.decisions import Decision, History, decide
from remora.supervision.rules import Directive, kinds_of

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host


class Failures:
    """Judges the failures of one host's entities.

    Args:
        host: Whose they are.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._shards: dict[str, History] = {}
        """Shard → what its rules were used for, while this host has it."""

    def forget(self, shard: str) -> None:
        """A shard has left this host."""
        self._shards.pop(shard, None)

    def judge(self, cell: Cell, failure: BaseException) -> bool:
        """Carry out what the rules say of a failure; return whether the activation is disposed of by that."""
        kinds = kinds_of(failure)
        decision = self._entity(cell, kinds)
        if decision.directive is Directive.ESCALATE:
            of_shard = self._shard(cell, kinds)
            if of_shard.directive is Directive.RESTART:
                cell.shard.restart_all(of_shard.after_s, repr(failure))
                return True
            if of_shard.directive is Directive.STOP:
                msg = (
                    f"Shard {cell.shard.key} was stopped by its supervision rules after {cell.key} raised: {failure!r}"
                )
                cell.shard.stop_all(Stopped(msg))
                return True
            decision = self._entity(cell, kinds, by_default=True)
        return self._carry_out(cell, decision, failure)

    def _entity(self, cell: Cell, kinds: tuple[str, ...], *, by_default: bool = False) -> Decision:
        host = self._host
        declared, defaults = host.app.rules[cell.spec.type]
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
    def _carry_out(cell: Cell, decision: Decision, failure: BaseException) -> bool:
        if decision.directive is Directive.RESUME:
            return False
        if decision.directive is Directive.STOP:
            cell.stop(Stopped(f"{cell.key} was stopped by its supervision rules after: {failure!r}", entity=cell.key))
        else:
            cell.restart(decision.after_s, repr(failure))
        return True
