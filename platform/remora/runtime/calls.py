"""How a running handler calls other entities and waits.

The call leaves only after all that the caller could have seen is committed. It carries the chain
of entities that wait for it, so that a cycle is refused at once, the caller's deadline, and the
id (parent id, ordinal), so that a re-run of the handler gets the recorded reply.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from remora.contract import EntitySpec, HandlerSpec
from remora.entity import Turn
from remora.errors import CallCycle, ContractError, DeadlineExceeded, RemoraError
from remora.ids import check_entity_id
from remora.reference import Reference
from remora.runtime.deadlock import LOOK_AFTER_S
from remora.sharding.hashing import entity_key
from remora.why import Why

if TYPE_CHECKING:
    from remora.runtime.host import Host


def cycle_message(chain: tuple[str, ...]) -> str:
    """Return the sentence about a call cycle."""
    return f"The call would wait for itself: {' → '.join(chain)}. Use self.send, or answer before calling back."


class TurnCalls:
    """Gives handlers their references."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def ref(self, turn: Turn, cls: type[Any], entity_id: str) -> Reference:
        """Return a reference whose calls belong to ``turn``."""
        spec: EntitySpec = cls.__remora__
        return Reference(_TurnCaller(self._host, turn), spec, check_entity_id(entity_id, spec.type))


class _TurnCaller:
    """Carries the calls of one running handler."""

    def __init__(self, host: Host, turn: Turn) -> None:
        self._host = host
        self._turn = turn

    async def call(
        self, spec: EntitySpec, method: HandlerSpec | str, entity_id: str, args: bytes, *,
        command_id: str | None = None, deadline_s: float | None = None, stale: bool = False,
    ) -> tuple[int, bytes]:  # fmt: skip
        """Ask another entity and wait; see ``Client.call``."""
        turn, host = self._turn, self._host
        is_command = not isinstance(method, str) and not method.is_query
        if turn.changed:
            msg = f"{turn.chain[-1]}: after its first emit, send or remind a command may only send: call before."
            raise ContractError(msg)
        if is_command and not turn.writable:
            msg = f"{turn.chain[-1]}: a query may call queries only: make it a command."
            raise ContractError(msg)
        key = entity_key(spec.type, entity_id)
        if key in turn.chain:
            raise CallCycle(cycle_message((*turn.chain, key)), entity=key)
        turn.ordinal += 1
        # The caller's key too: the ids of commands are unique per entity, not among callers.
        call_id = f"{turn.chain[-1]}:{turn.command_id}/{turn.ordinal}" if command_id is None else command_id
        await self._committed()
        now_s = host.clock.monotonic_s()
        left_s = turn.deadline_s - now_s
        if left_s <= 0:
            msg = f"{turn.chain[-1]} called {key} after its own deadline."
            raise DeadlineExceeded(msg, entity=key, command_id=turn.command_id)
        ordinal = turn.ordinal
        turn.waits[ordinal] = key, now_s
        look = host.loop.call_later(LOOK_AFTER_S, host.deadlocks.look, turn)
        try:
            return await host.client.call(
                spec, method, entity_id, args,
                command_id=call_id,
                deadline_s=min(left_s, deadline_s or left_s), stale=stale, lane=False, chain=turn.chain,
            )  # fmt: skip
        finally:
            look.cancel()
            del turn.waits[ordinal]

    async def why(self, spec: EntitySpec, entity_id: str) -> Why:
        """Say what an entity does or waits for: it changes nothing and waits for no commit; see ``Client.why``."""
        return await self._host.client.why(spec, entity_id)

    async def _committed(self) -> None:
        """Wait until the caller's earlier commands are committed."""
        cell = self._host.cells.get(self._turn.chain[-1])
        commit = None if cell is None else cell.commit
        if commit is None or commit.done:
            return
        done: asyncio.Future[None] = self._host.loop.create_future()

        def release(error: RemoraError | None) -> None:
            if not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

        commit.waiters.append(release)
        await done
