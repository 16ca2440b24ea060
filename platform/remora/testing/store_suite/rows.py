"""What the suite's tests write, and the fixtures they run on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

import pytest
import pytest_asyncio

from remora.journal import Append, EntryRow, Recovered, Store, Want
from remora.sharding.table import HostRow, ShardRow

APP, SHARDS = "bank", 8
HOST = HostRow(0, "host-1", node="n", machine="m", pid=7, started=1.5)
MakeStore = Callable[[], Store]


class OnAStore:
    """The fixtures of all contracts: give ``make_store``, get ``store``."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Return what makes a store object that is not opened; called again: another one on the same data.

        Override it. The data must be empty at the beginning of every test. A store in memory gives
        the same object every time.
        """
        msg = f"{type(self).__name__} must define the fixture make_store: a function that returns a store, not opened."
        raise NotImplementedError(msg)

    @pytest_asyncio.fixture
    async def store(self, make_store: MakeStore) -> AsyncIterator[Store]:
        """Open the store of this test, and close it."""
        made = make_store()
        await made.open(APP, SHARDS)
        yield made
        await made.close()


def entry(
    entity: str, n: int, *, seq: int | None = None, command_id: str = "", events: bytes | None = b"[]"
) -> EntryRow:
    """Return one entry."""
    return (entity, n, n if seq is None else seq, events, command_id or f"c{n}", 0, b'"ok"', 1_000 + n, 77)


def numbers(rows: Iterable[EntryRow]) -> Append:
    """Return an append of entries alone."""
    return Append(entries=list(rows))


async def committed(store: Store, entity: str) -> list[int]:
    """Return the numbers of an entity's entries."""
    return [one.n for one in await store.entries(entity, 0, 1_000)]


async def loaded(store: Store, entity: str, window: int = 1_000, below: int = 0) -> Recovered:
    """Return what the store holds of an entity."""
    (found,) = await store.load([Want(entity, window, below)])
    return found


async def fenced_out(store: Store, incarnation: int) -> int:
    """End an incarnation as a takeover does; return the one that took over."""
    other = await store.join(HOST)
    await store.write_table(await store.lead(), 1, [incarnation], {"3": ShardRow(other, 2)})
    return other
