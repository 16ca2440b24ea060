"""A store that fails on demand, around one that works."""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any

from remora.errors import RemoraError, StoreUnavailable
from remora.journal import Append, Store
from remora.storage.memory import MemoryStore


class Fault(Enum):
    """When an append fails."""

    BEFORE_WRITE = "before write"
    AFTER_WRITE = "after write"


class FaultyStore:
    """Passes everything on; appends can be held and failed.

    Args:
        inner: The store that works.
    """

    def __init__(self, inner: Store | None = None) -> None:
        self.inner: Store = inner or MemoryStore()
        self.appends: list[tuple[int, Append]] = []
        """(incarnation, append) of those that were written."""
        self.faults: list[Fault] = []
        """For the next appends, one each."""
        self.error: Callable[[], Exception] = lambda: StoreUnavailable("The disk is full.")
        self.decide: Callable[[Append], Fault | None] = lambda _: None
        """Decides about each append that no listed fault is for."""
        self.waiting = 0
        """Appends that are held."""
        self._open = asyncio.Event()
        self._open.set()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - every other method of the store
        return getattr(self.inner, name)

    def hold(self) -> None:
        """Let no append begin from now on."""
        self._open.clear()

    def let_go(self) -> None:
        """Let held appends and all others go on."""
        self._open.set()

    async def append(self, incarnation: int, append: Append) -> None:
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1
        fault = self.faults.pop(0) if self.faults else self.decide(append)
        if fault is Fault.BEFORE_WRITE:
            raise self.error()
        await self.inner.append(incarnation, append)
        self.appends.append((incarnation, append))
        if fault is Fault.AFTER_WRITE:
            raise self.error()


def is_retryable(error: RemoraError) -> bool:
    """Return whether asking again with the same id is what the error says to do."""
    return error.verdict.value != "reject"
