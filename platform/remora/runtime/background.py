"""What runs beside the work of its owner, and ends with it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any


class Background:
    """Tasks of one owner.

    Args:
        log: Where is told what a task raised: nobody waits for it.
        whose: Names the owner there.
    """

    def __init__(self, log: logging.Logger, whose: str) -> None:
        self._log = log
        self._whose = whose
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - any coroutine
        """Begin a coroutine."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("background work of %s failed", self._whose, exc_info=task.exception())

    def cancel(self) -> None:
        """End all, without waiting for that."""
        for task in list(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """End all."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
