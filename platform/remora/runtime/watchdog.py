"""Finds handlers that hold up their host: those that compute or block without an ``await``, and those that eat its memory.

A host's entities share one event loop. While one handler keeps it, nothing else moves: no command,
no answer, no timer (the lease is renewed by a thread of its own). A thread watches that the loop
comes round, and when it does not names the entity, its handler and the line it is at. A host that would
not come back, or that the kernel would soon kill for its memory, is ended by it, with the culprit's name left behind:
whoever finds out what happened (``runtime.quarantine``) has to know whose fault it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterator

from remora.process import memory_limit_bytes, memory_used_bytes, resident_bytes
from remora.runtime.blackbox import BlackBox
from remora.settings import Settings
from remora.why import Glance

LOOKS = 4
"""Looks per bound: a blockade is found between one and 1.25 bounds after it began."""
TURN_MAX_S = 0.25
"""Longest time between signs of life of the loop, in seconds: what ``glance`` can be off by."""
LATE_S = 0.1
"""Seconds that a sign of life may be late on a busy machine before the loop counts as kept, and that one run has to last."""
GREEDY_SHARE = 0.5
"""Share of the process's memory that has to have come while one handler ran for it to be the one to blame."""
GREEDY_LEAST_SHARE = 0.02
"""Share of all memory there is that it has to be at least: half a gigabyte of 24."""
WINDOW_S = 2.0
"""Within which it has to have come where other handlers run beside it, in seconds."""
STILL_S = 1.0
"""Seconds that a look may be late before the machine counts as having stood still."""
TOUCH_S = 60.0
"""Seconds between signs of life of this process for those that tidy up after others."""
SHOWN = 3
"""Innermost lines of the stack that are shown."""


# Of the machine, whatever clock the platform is given: a loop is blocked in real time, and other threads ask.
_real_s = time.monotonic  # noqa: TID251 - as above


class Running:
    """What a host's loop runs at this moment: of an entity, and without an ``await``.

    Args:
        box: Where that is written too, for whoever asks when this process is gone; None where hosts share a process.
    """

    __slots__ = ("box", "entity", "method", "place", "runs")

    def __init__(self, box: BlackBox | None = None) -> None:
        self.box = box
        self.place = None if box is None else box.loop
        self.entity = ""
        self.method = ""
        self.runs = 0
        """Runs so far: tells one that lasts from many behind each other."""

    def enter(self, entity: str, method: str) -> None:
        """Say what runs from now on."""
        self.runs, self.entity, self.method = self.runs + 1, entity, method
        if self.place is not None:
            self.place.enter(entity, method)

    @contextlib.contextmanager
    def within(self, entity: str, method: str) -> Iterator[None]:
        """Say what runs meanwhile."""
        self.enter(entity, method)
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Say that nothing runs."""
        self.entity = ""
        if self.place is not None:
            self.place.leave()


class Watchdog:
    """Watches one host's loop.

    Args:
        running: Kept up to date by the host's cells. Only one that has a box, and so a process of its own, is ended.
        settings: The app's.
    """

    def __init__(self, running: Running, settings: Settings) -> None:
        self._running = running
        self._blocked_s = blocked_s = settings.blocked_s
        self._hung_s = settings.hung_s
        self._limit_bytes = memory_limit_bytes()
        self._memory_end_bytes = settings.memory_end_share * self._limit_bytes
        self._turn_s = min(blocked_s / LOOKS, TURN_MAX_S)
        self._resident: dict[Hashable, deque[int]] = {}
        """What runs → the process's memory at the looks that saw it run, in bytes: the first, where it runs alone."""
        self._window = max(1, round(WINDOW_S / self._turn_s))
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
        looked_s = touched_s = _real_s()
        while not self._stopped.wait(self._turn_s):
            now_s, run = _real_s(), self._run()
            # After a look that comes late itself the machine stood still, or native code kept the interpreter: not the run's time.
            if run != self._seen or now_s - looked_s > self._turn_s + STILL_S:
                self._seen, self._seen_s = run, now_s
            looked_s = now_s
            if (box := self._running.box) is not None:
                self._judge(box, run, now_s)
                if now_s - touched_s > TOUCH_S:
                    touched_s = now_s
                    box.touch()
            if run is None or run == told or self._kept_s(now_s) < self._blocked_s:
                continue
            told = run  # once per blockade
            self.blocked += 1
            self._log.warning(
                "%s has kept its host from everything else for %.1f s: it neither ends nor awaits. "
                "Run it with run_in='thread', or await in between. It is here:\n%s",
                run[1], self._kept_s(now_s), self._where(),
            )  # fmt: skip

    def _judge(self, box: BlackBox, run: tuple[int, str] | None, now_s: float) -> None:
        """End this process if one handler keeps it from everything else, or has all but used up the memory there is."""
        if run is not None and (kept_s := self._kept_s(now_s)) > self._hung_s:
            cause = f"it kept its host from everything else for {kept_s:.0f} s"
            self._end(box, cause, run[1], lambda: self._run() == run)
        resident = resident_bytes()
        threads: dict[Hashable, str] = {taken: taken.what for taken in box.taken()}
        runs: dict[Hashable, str] = {**threads} if run is None else {**threads, run: run[1]}
        self._resident = {one: self._resident.get(one, deque()) for one in runs}
        for seen in self._resident.values():
            seen.append(resident)
            if threads:  # beside others it answers for what came at one go: the rest may be theirs
                while len(seen) > self._window + 1:
                    seen.popleft()
        least = max(resident * GREEDY_SHARE, self._limit_bytes * GREEDY_LEAST_SHARE)
        culprits = [one for one, seen in self._resident.items() if resident - seen[0] > least]
        # Of several it is not known whose it is. How much is in use is read last: it takes several files.
        if len(culprits) == 1 and memory_used_bytes() >= self._memory_end_bytes:
            (culprit,) = culprits
            took, has = (resident - self._resident[culprit][0]) / 2**30, resident / 2**30
            cause = f"it took {took:.1f} GiB of memory, with which its host had {has:.1f}"
            self._end(box, cause, runs[culprit], lambda: culprit in {self._run(), *box.taken()})

    def _end(self, box: BlackBox, cause: str, what: str, still: Callable[[], bool]) -> None:
        """End this process, unless what is to blame has ended meanwhile: it serves nobody any more, or soon will not."""
        self._log.error("the process is ended, because of %s: %s. The loop was here:\n%s", what, cause, self._where())
        if still():
            entity, _, command = what.rpartition(".")
            box.say(cause, what=(entity, command))
            os.kill(os.getpid(), signal.SIGKILL)

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
