"""A host's way to the supervisors of its app: asked about failures, in bounded time and number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from remora.errors import RemoraError, Unavailable
from remora.supervision.failure import Failure
from remora.supervision.rules import Directive

if TYPE_CHECKING:
    from remora.runtime.host import Host

Ask = Callable[[str, bytes], Awaitable[str]]
"""Asks the supervisor of that name about a ``Failure`` as JSON; returns the directive's name, empty for None."""
ASKS_MAX = 64
"""Failures that a host has asked about and not been answered; of a storm, the others are told later, many as one."""
AWAY_S = 1.0
"""Seconds that a supervisor which did not answer is left alone: entities must not wait for it one after the other."""
_encode = msgspec.json.Encoder().encode


class Advice:
    """What a host asks supervisors.

    Args:
        host: The host.
        ask: The way to them; None: there is none, and they are told later.
    """

    def __init__(self, host: Host, ask: Ask | None) -> None:
        self._host = host
        self._ask = ask
        self._asking: set[asyncio.Task[None]] = set()
        self._away_until_s: dict[str, float] = {}
        self.unanswered = 0
        """Failures that a supervisor was asked about and did not answer in time."""
        self.closed = False

    def supervised(self, kind: str) -> bool:
        """Return whether entities of a type have a supervisor, which is to hear of each of their failures."""
        return kind in self._host.app.supervisors

    def way(self, kind: str) -> Ask | None:
        """Return the way to a type's supervisor; None if it is not to be asked now."""
        supervisor = self._host.app.supervisors.get(kind)
        if supervisor is None or self.closed or len(self._asking) >= ASKS_MAX:
            return None
        away = self._away_until_s.get(supervisor.name, 0.0) > self._host.clock.monotonic_s()
        return None if away else self._ask

    def begin(self, asking: asyncio.Task[None]) -> None:
        """Count one that asks."""
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def close(self) -> None:
        """Ask no more, and wait for no answer."""
        self.closed = True
        await asyncio.sleep(0)  # noqa: TID251 - one that is cancelled before its first step notes nothing
        for asking in self._asking:
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def ask(self, way: Ask, kind: str, failure: Failure) -> Directive | None:
        """Ask a type's supervisor about a failure, by what ``way`` returned.

        Raises:
            Unavailable: It did not answer, or not within ``Settings.supervisor_ask_s``.
        """
        name = self._host.app.supervisors[kind].name
        try:
            async with asyncio.timeout(self._host.settings.supervisor_ask_s):
                answer = await way(name, _encode(failure))
        except (RemoraError, TimeoutError) as error:
            self.unanswered += 1
            self._away_until_s[name] = self._host.clock.monotonic_s() + AWAY_S
            self._host.log.warning("supervisor %s did not answer, the declared rules decide: %r", name, error)
            msg = f"Supervisor {name} did not answer."
            raise Unavailable(msg, entity=failure.entity) from error
        return Directive(answer) if answer else None
