"""Finds handlers that hold up their host: those that compute or block without an ``await``.

A host's entities share one event loop. While one handler keeps it, nothing else moves: no command,
no answer, no timer (the lease is renewed by a thread of its own). A thread watches that the loop
comes round, and when it does not names the entity, its handler and the line it is at.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback

from remora.why import Glance

LOOKS = 4
"""Looks per bound: a blockade is found between one and 1.25 bounds after it began."""
TURN_MAX_S = 0.25
"""Longest time between signs of life of the loop, in seconds: what ``glance`` can be off by."""
LATE_S = 0.1
"""Seconds that a sign of life may be late on a busy machine before the loop counts as kept, and that one run has to last."""
SHOWN = 3
"""Innermost lines of the stack that are shown."""


# Of the machine, whatever clock the platform is given: a loop is blocked in real time, and other threads ask.
_real_s = time.monotonic  # noqa: TID251 - as above


class Running:
    """What a host's loop runs at this moment, where it runs a handler that never awaits."""

    __slots__ = ("entity", "method", "runs")

    def __init__(self) -> None:
        self.entity = ""
        self.method = ""
        self.runs = 0
        """Runs so far: tells one that lasts from many behind each other."""


class Watchdog:
    """Watches one host's loop.

    Args:
        running: Kept up to date by the host's cells.
        blocked_s: Seconds without a turn of the loop after which it counts as blocked.
    """

    def __init__(self, running: Running, blocked_s: float) -> None:
        self._running = running
        self._blocked_s = blocked_s
        self._turn_s = min(blocked_s / LOOKS, TURN_MAX_S)
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._turned_s = 0.0
        self._seen: tuple[int, str] | None = None
        self._seen_s = 0.0
        """The run that the last look saw, and since when looks have seen it."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="remora-watchdog", daemon=True)
        self._beat: asyncio.TimerHandle | None = None
        self._log = logging.getLogger("remora.watchdog")
        self.blocked = 0
        """How often the loop was found blocked."""

    def start(self) -> None:
        """Begin to watch; called in the loop."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._stopped.set()
        if self._beat is not None:
            self._beat.cancel()

    def _turn(self) -> None:
        self._turned_s = _real_s()
        self._beat = self._loop.call_later(self._turn_s, self._turn)

    def _watch(self) -> None:
        told: tuple[int, str] | None = None
        while not self._stopped.wait(self._turn_s):
            now_s, run = _real_s(), self._run()
            if run != self._seen:
                self._seen, self._seen_s = run, now_s
            if run is None or run == told or self._kept_s(now_s) < self._blocked_s:
                continue
            told = run  # once per blockade
            self.blocked += 1
            self._log.warning(
                "%s has kept its host from everything else for %.1f s: it neither ends nor awaits. "
                "Run it with run_in='thread', or await in between. It is here:\n%s",
                run[1], self._kept_s(now_s), self._where(),
            )  # fmt: skip

    def _kept_s(self, now_s: float) -> float:
        """Return for how long the run that was seen last has kept the loop: many short ones behind each other have not."""
        return now_s - max(self._turned_s, self._seen_s)

    def glance(self) -> Glance:
        """Return whose handler keeps the loop at this moment; to be called from another thread."""
        now_s, run = _real_s(), self._run()
        turned_late = now_s - self._turned_s > self._turn_s + LATE_S
        if run is None or run != self._seen or self._kept_s(now_s) <= LATE_S or not turned_late:
            return Glance()
        entity, _, method = run[1].rpartition(".")
        return Glance(entity=entity, method=method, for_s=round(self._kept_s(now_s), 3), where=self._where())

    def _run(self) -> tuple[int, str] | None:
        """Return which run of which handler the loop is in: its number or its task, and ``entity.method``."""
        running = self._running
        if running.entity:
            return running.runs, f"{running.entity}.{running.method}"
        task = asyncio.current_task(self._loop)
        name = "" if task is None else task.get_name()
        return (id(task), name) if "/" in name else None  # a handler's task; what else blocks is not an entity's

    def _where(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the documented way to see another thread's stack
        try:
            return "" if frame is None else "".join(traceback.format_stack(frame)[-SHOWN:])
        except Exception:  # noqa: BLE001 - the frame runs on while it is read and may have no line at this instant
            return "(it moved on while it was looked at)"
