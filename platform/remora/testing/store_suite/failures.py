"""What failed: one row for all failures of an entity's command with one exception, the latest kept."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from remora import journal
from remora.journal import FailureRow, Store
from remora.testing.store_suite.rows import MakeStore, OnAStore


def failed(entity: str, at_ms: int, *, command: str = "add", kind: str = "ValueError", times: int = 1) -> FailureRow:
    """Return what is added for failures at one time."""
    return FailureRow(entity, command, kind, at_ms, at_ms, times, f'{{"message":"at {at_ms}"}}')


def untold(entity: str, at_ms: int, times: int, *, command: str = "add") -> FailureRow:
    """Return what is added for failures that a supervisor has not heard of."""
    return msgspec.structs.replace(failed(entity, at_ms, command=command, times=times), untold=times)


class FailureContract(OnAStore):
    """Failures are added up and read, the latest first."""

    async def test_failures_of_one_command_with_one_exception_are_one_row_that_has_the_latest(
        self, store: Store
    ) -> None:
        await store.add_failures([failed("a/1", 50, times=3)])
        await store.add_failures([failed("a/1", 90, times=2)])
        await store.add_failures([failed("a/1", 20)])

        assert await store.failures(10) == [FailureRow("a/1", "add", "ValueError", 20, 90, 6, '{"message":"at 90"}')]

    async def test_failures_are_read_the_latest_first_of_all_of_a_type_or_of_an_entity(self, store: Store) -> None:
        rows = [
            failed("a/1", 1), failed("a/1", 2, command="take"), failed("a/1", 3, kind="shop.é😀"),
            failed("a/2/x", 4), failed("ab/1", 5),
        ]  # fmt: skip
        await store.add_failures(rows)

        assert await store.failures(10) == rows[::-1]
        assert await store.failures(2) == rows[:2:-1]
        assert await store.failures(10, "a") == rows[3::-1]
        assert await store.failures(10, "a/1") == rows[2::-1]
        assert await store.failures(10, "a/2/x") == [rows[3]]
        assert await store.failures(10, "b") == []

    async def test_so_many_rows_are_kept_and_those_go_that_were_seen_last_the_longest_ago(self, store: Store) -> None:
        kept = journal.FAILURES_KEPT
        await store.add_failures([failed(f"a/{n}", n) for n in range(kept)])
        assert len(await store.failures(kept + 10)) == kept

        await store.add_failures([failed("a/0", kept), failed("b/1", kept + 1)])

        found = await store.failures(kept + 10)
        assert [row.entity for row in found[:3]] == ["b/1", "a/0", f"a/{kept - 1}"]
        assert [row.entity for row in found[-2:]] == ["a/3", "a/2"]
        assert len(found) == kept

    async def test_what_is_untold_is_kept_longer_and_goes_too_in_the_end(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("memory", "postgres", "sqlite"):
            monkeypatch.setattr(f"remora.storage.{module}.FAILURES_KEPT", 3)
            monkeypatch.setattr(f"remora.storage.{module}.UNTOLD_KEPT", 6)
        for n in range(5):
            await store.add_failures([untold(f"a/{n}", n, 1)])
        for n in range(5, 8):
            await store.add_failures([failed(f"b/{n}", n)])
        assert [row.entity for row in await store.failures(10)] == ["b/7", "b/6", "b/5", "a/4", "a/3", "a/2"]

        await store.told([untold("a/3", 3, 1)])
        await store.add_failures([failed("b/8", 8)])

        assert [row.entity for row in await store.failures(10)] == ["b/8", "b/7", "b/6", "a/4", "a/2"]

    async def test_nothing_is_lost_when_several_add_the_same_at_once(self, store: Store) -> None:
        rows = [failed(f"a/{n}", 7) for n in range(20)]

        await asyncio.gather(*(store.add_failures(rows[:: 1 if n % 2 else -1]) for n in range(8)))

        assert {row.times for row in await store.failures(100)} == {8}

    async def test_what_a_supervisor_has_still_to_be_told_of_is_read_the_oldest_first_until_it_was_told(
        self, store: Store
    ) -> None:
        rows = [
            untold("a/1", 30, 2), failed("a/2", 10), untold("a/3/x", 20, 1), untold("ab/1", 5, 4),
            untold("a/1", 40, 1, command="take"),
        ]  # fmt: skip
        await store.add_failures(rows)
        await store.add_failures([untold("a/1", 50, 3)])
        await store.add_failures([failed("a/1", 60)])

        found = await store.untold_failures(["a", "c"], 10)
        assert [(row.entity, row.command, row.untold, row.times) for row in found] == [
            ("a/3/x", "add", 1, 1), ("a/1", "take", 1, 1), ("a/1", "add", 5, 6)
        ]  # fmt: skip
        assert await store.untold_failures(["a"], 1) == found[:1]
        assert await store.untold_failures(["ab"], 10) == [rows[3]]
        assert await store.untold_failures([], 10) == []

        await store.add_failures([untold("a/1", 70, 1)])
        await store.told([*found, untold("gone/1", 1, 9)])

        left = await store.untold_failures(["a", "ab", "gone"], 10)
        assert [(row.entity, row.untold, row.times) for row in left] == [("ab/1", 4, 4), ("a/1", 1, 7)]
        await store.told(left)
        await store.told(left)
        assert await store.untold_failures(["a", "ab"], 10) == []
        assert {row.times for row in await store.failures(10, "a/1")} == {1, 7}

    async def test_they_are_there_when_the_store_is_opened_again(self, store: Store, make_store: MakeStore) -> None:
        await store.add_failures([failed("a/1", 1)])
        again = make_store()
        await again.open("bank", 8)
        try:
            assert await again.failures(10) == [failed("a/1", 1)]
        finally:
            await again.close()
