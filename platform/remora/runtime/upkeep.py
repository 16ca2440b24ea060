"""Keeps the process of one supervisor running, by the rules that are declared for supervisors.

::

    starting ──▶ up ──▶ down ──pause──▶ starting
        └────────────────▶│
                          └──the rules say stop──▶ stopped
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any, Protocol

from remora.app import App
from remora.clock import Clock
from remora.errors import RemoraError
from remora.supervision.decisions import History, decide
from remora.supervision.levels import SUPERVISOR_DIED
from remora.supervision.restarts import restarts_at_once
from remora.supervision.rules import Directive, kinds_of


class SupervisorActors(Protocol):
    """How supervisors' processes are run; Ray behind it."""

    async def stand(self, name: str, *, restarts: int, avoid: str) -> tuple[str, int]:
        """See to it that a supervisor's process runs and has started; return its node and pid.

        Args:
            name: The supervisor.
            restarts: How often the process may be restarted at once without being asked about, -1: always.
            avoid: A node to keep away from, if there is another.

        Raises:
            RemoraError: It did not start.
        """
        ...

    async def ended(self, name: str) -> str:
        """Wait until a supervisor's process has ended; return what is known of why."""
        ...


class Upkeep:
    """Looks after one supervisor's process.

    Args:
        app: The app.
        name: The supervisor.
        actors: Runs its process.
        clock: Time.
        seed: Seeds the jitter of pauses.
    """

    def __init__(self, app: App, name: str, actors: SupervisorActors, clock: Clock, *, seed: int = 0) -> None:
        self._rules = app.supervision.supervisor_rules
        self._name = name
        self._actors = actors
        self._clock = clock
        self._rng = random.Random(seed)
        self._history: History = {}
        self._avoid = ""
        self._said: dict[str, Any] = {"state": "starting", "node": "", "pid": 0, "restarts": 0, "because": ""}
        self._log = logging.getLogger("remora.registry")

    def told(self) -> dict[str, Any]:
        """Return what is to be shown: ``name``, ``state``, ``node``, ``pid``, ``restarts``, and ``because`` of the last."""
        return {"name": self._name, **self._said}

    async def run(self) -> None:
        """Start the process, again and again, until the rules say stop."""
        while True:
            kinds, because = await self._live()
            now_s = self._clock.monotonic_s()
            decision, self._history = decide(self._rules, kinds, self._history, now_s, self._rng)
            if decision.directive is not Directive.RESTART:
                self._said |= {"state": "stopped", "because": f"its supervision rules say stop, after: {because}"}
                self._log.error("supervisor %s is not started again, after: %s", self._name, because)
                return
            self._said |= {"state": "down", "because": because, "restarts": self._said["restarts"] + 1}
            self._log.warning("supervisor %s is started again in %.1f s: %s", self._name, decision.after_s, because)
            # The first pause comes with the second failure in a row: it may be the node's fault.
            self._avoid = self._said["node"] if decision.after_s else ""
            await asyncio.sleep(decision.after_s)  # noqa: TID251 - the pause that is declared

    async def _live(self) -> tuple[tuple[str, ...], str]:
        """Start it and wait for its end; return what rules know that by, and why."""
        at_once = restarts_at_once(self._rules, SUPERVISOR_DIED, self._history, self._clock.monotonic_s())
        try:
            node, pid = await self._actors.stand(self._name, restarts=at_once, avoid=self._avoid)
            self._said |= {"state": "up", "node": node, "pid": pid}
            return (SUPERVISOR_DIED,), await self._actors.ended(self._name)
        except RemoraError as error:
            return kinds_of(error), error.message
