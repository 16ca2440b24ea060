"""One committer per host: group commit, double-buffered, with the output gate.

Entities add what they did to the open commit and go on; while one commit is being written the
next one fills. Nothing that could have seen an effect leaves the host before the commit that
holds the effect: answers wait in the commit and are released when it is done. If a commit fails,
every commit behind it fails too, since its entries stand on state that vanished.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from remora.errors import RemoraError, StoreUnavailable
from remora.journal import Append

if TYPE_CHECKING:
    from remora.runtime.cell import Cell


class Sink(Protocol):
    """Takes answers on their way to a client session."""

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        """Give the answer to ask ``n``."""
        ...


class Commit:
    """What one transaction writes, and what waits for it."""

    __slots__ = ("answers", "append", "cells", "done", "waiters")

    def __init__(self) -> None:
        self.append = Append()
        self.answers: list[tuple[Sink, int, int, bytes]] = []
        self.waiters: list[Callable[[RemoraError | None], None]] = []
        self.cells: set[Cell] = set()
        self.done = False


class Committer:
    """Writes a host's commits one after the other.

    Args:
        write: Writes an append under the host's incarnation.
        rows_max: Entries per commit.
        timeout_s: Seconds after which a commit counts as of unknown outcome.
        on_failed: Told about failed commits, before anything else is written.
    """

    def __init__(
        self,
        write: Callable[[Append], Awaitable[None]],
        rows_max: int,
        timeout_s: float,
        on_failed: Callable[[list[Commit], RemoraError], Awaitable[None]],
    ) -> None:
        self._write = write
        self._rows_max = rows_max
        self._timeout_s = timeout_s
        self._on_failed = on_failed
        self._queue: deque[Commit] = deque()
        self._writing: Commit | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.commits = 0
        self.rows = 0
        self.busy_s = 0.0
        """Seconds spent waiting for the store to confirm commits."""
        self.writing_since_s: float | None = None
        """Since when, on the loop's clock, the store has had a commit that it has not confirmed."""

    def open(self) -> Commit:
        """Return the commit that takes entries now; it will be written soon."""
        queue = self._queue
        if not queue or len(queue[-1].append.entries) >= self._rows_max:
            queue.append(Commit())
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
        return queue[-1]

    def refuse_open(self, error: RemoraError) -> list[Commit]:
        """Fail all that waits to be written and return it; its waiters are still to be told."""
        refused = list(self._queue)
        self._queue.clear()
        for commit in refused:
            commit.done = True
        payload = error.encode()
        for commit in refused:
            for sink, n, _, _ in commit.answers:
                sink.answer(n, 1, payload)
        return refused

    async def flush(self) -> None:
        """Wait until all that is open now is written or has failed; what is opened meanwhile is not waited for."""
        last = self._queue[-1] if self._queue else self._writing
        if last is None or self._task is None:
            return
        written = self._loop.create_future()
        last.waiters.append(lambda _: None if written.done() else written.set_result(None))
        # The task too: it ends without telling anybody when the host is abandoned.
        await asyncio.wait([written, self._task], return_when=asyncio.FIRST_COMPLETED)

    def abandon(self) -> None:
        """Stop at once; what is open is never written."""
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._queue:
                self._writing = self._queue.popleft()
                await self._next(self._writing)
                self._writing = None
        finally:
            self._task = None
            if self._queue:  # something was added between the last look and here
                self._task = asyncio.get_running_loop().create_task(self._run())

    async def _next(self, commit: Commit) -> None:
        began_s = self.writing_since_s = self._loop.time()
        try:
            if commit.append:
                async with asyncio.timeout(self._timeout_s):
                    await self._write(commit.append)
        except RemoraError as error:
            await self._failed(commit, error)
            return
        except TimeoutError:
            msg = f"The store did not confirm a commit within {self._timeout_s} s; its outcome is unknown."
            await self._failed(commit, StoreUnavailable(msg, retry_after_s=0.2))
            return
        except Exception as error:  # noqa: BLE001 - whatever a store raises: what it did not confirm must not be built on
            msg = f"The store failed with {error!r}; the outcome of a commit is unknown."
            await self._failed(commit, StoreUnavailable(msg, retry_after_s=0.2))
            return
        self.writing_since_s = None
        self.commits += 1
        self.busy_s += self._loop.time() - began_s
        self.rows += len(commit.append.entries)
        commit.done = True
        commit.cells.clear()
        for sink, n, verdict, payload in commit.answers:
            sink.answer(n, verdict, payload)
        for waiter in commit.waiters:
            waiter(None)
        # Cells keep their last commit, to see that it is done: not what it held.
        commit.answers.clear()
        commit.waiters.clear()
        del commit.append

    async def _failed(self, commit: Commit, error: RemoraError) -> None:
        self.writing_since_s = None
        self._queue.appendleft(commit)
        failed = self.refuse_open(error)
        await self._on_failed(failed, error)
        for one in failed:
            for waiter in one.waiters:
                waiter(error)
