"""States and snapshots: which is the newest, how many are kept, where the tail behind them begins."""

from __future__ import annotations

import pytest

from remora.journal import Append, Store, Want
from remora.testing.store_suite.rows import HOST, OnAStore, entry, loaded, numbers


def snapshot(n: int, keep: int = 2, *, version: int = 1, state: bytes = b"") -> tuple[str, int, int, bytes, int, int]:
    """Return a snapshot of ``a/1``."""
    return ("a/1", n, n, state or str(n).encode(), version, keep)


async def with_snapshots(store: Store, *numbered: int, keep: int = 5, entries: int = 10) -> int:
    """Write entries and then snapshots, one append each; return the incarnation."""
    host = await store.join(HOST)
    await store.append(host, numbers(entry("a/1", n) for n in range(1, entries + 1)))
    for n in numbered:
        await store.append(host, Append(snapshots={"a/1": snapshot(n, keep)}))
    return host


class SnapshotContract(OnAStore):
    """What makes recovery short."""

    @pytest.mark.parametrize("marks_n", [0, 5, 8])
    @pytest.mark.parametrize("window", [0, 1, 3, 100])
    @pytest.mark.parametrize(("state_n", "behind"), [(0, 10), (8, 2), (10, 0)])
    async def test_load_returns_the_entries_behind_the_state_whatever_the_window_and_the_marks(
        self, store: Store, state_n: int, behind: int, window: int, marks_n: int
    ) -> None:
        host = await store.join(HOST)
        append = numbers([entry("a/1", n) for n in range(1, 11)])
        if state_n:
            append.states["a/1"] = ("a/1", state_n, state_n, b"{}", 1)
        if marks_n:
            append.marks["a/1"] = ("a/1", marks_n, b"{}")
        await store.append(host, append)

        of_events, of_state = await store.load([Want("a/1", window), Want("a/1", window, events=False)])

        assert [one.n for one in of_events.tail] == list(range(11 - behind, 11))
        assert of_state.tail == [], "not wanted: the state says it all"
        for found in (of_events, of_state):
            assert (found.state_n, found.marks_n, found.last, found.last_seq) == (state_n, marks_n, 10, 10)

    async def test_the_latest_snapshot_is_the_one_loaded(self, store: Store) -> None:
        host = await store.join(HOST)
        for n in (1, 2, 3):
            await store.append(
                host,
                Append(
                    entries=[entry("a/1", n)],
                    states={"a/1": ("a/1", n, n, str(n).encode(), 1)},
                    marks={"a/1": ("a/1", n, b"{}")},
                ),
            )

        (found,) = await store.load([Want("a/1", 1)])

        assert (found.state_n, found.state) == (3, "3")

    # Scenario 64: the newest within bounds; bounds that match nothing.
    @pytest.mark.parametrize(
        ("below", "found"), [(0, 6), (99, 6), (7, 6), (6, 4), (5, 4), (4, 2), (3, 2), (2, 0), (1, 0)]
    )
    async def test_the_newest_snapshot_before_a_number_is_loaded_with_all_entries_behind_it(
        self, store: Store, below: int, found: int
    ) -> None:
        host = await with_snapshots(store, 2, 4, 6)
        await store.append(host, Append(marks={"a/1": ("a/1", 10, b"{}")}))

        one = await loaded(store, "a/1", window=1, below=below)

        assert (one.state_n, one.state) == (found, str(found) if found else None)
        assert [entry.n for entry in one.tail] == list(range(found + 1, 11))

    # Scenario 64: those beyond the number to keep are deleted, the oldest first.
    @pytest.mark.parametrize(("keep", "left"), [(1, [9]), (2, [6, 9]), (3, [4, 6, 9]), (9, [2, 4, 6, 9])])
    async def test_as_many_snapshots_are_kept_as_the_last_one_says(
        self, store: Store, keep: int, left: list[int]
    ) -> None:
        await with_snapshots(store, 2, 4, 6, 9, keep=keep)

        kept, below = [], 0
        while (one := await loaded(store, "a/1", below=below)).state is not None:
            kept.append(one.state_n)
            below = one.state_n
        assert kept == left[::-1]

    async def test_keeping_fewer_than_before_deletes_the_others_of_this_entity_alone(self, store: Store) -> None:
        host = await with_snapshots(store, 2, 4, 6)
        await store.append(host, Append(entries=[entry("a/2", 1)], snapshots={"a/2": ("a/2", 1, 1, b"1", 1, 1)}))

        await store.append(host, Append(snapshots={"a/1": snapshot(8, 1)}))

        assert (await loaded(store, "a/1")).state_n == 8
        assert (await loaded(store, "a/1", below=8)).state is None
        assert (await loaded(store, "a/2")).state_n == 1

    # Scenario 64: the same number is written again.
    async def test_a_snapshot_at_the_same_entry_replaces_the_one_before(self, store: Store) -> None:
        host = await with_snapshots(store, 2, 4)

        await store.append(host, Append(snapshots={"a/1": snapshot(4, version=7, state=b'"again"')}))

        one = await loaded(store, "a/1")
        assert (one.state_n, one.state, one.state_version) == (4, '"again"', 7)
        assert (await loaded(store, "a/1", below=4)).state_n == 2, "it counts once among those kept"

    # Scenario 64: a big one.
    async def test_a_snapshot_of_a_megabyte_comes_back(self, store: Store) -> None:
        host = await store.join(HOST)
        state = b'"' + "ä".encode() * 500_000 + b'"'

        await store.append(host, Append(entries=[entry("a/1", 1)], snapshots={"a/1": snapshot(1, state=state)}))

        assert (await loaded(store, "a/1")).state == state.decode()

    async def test_snapshots_and_states_come_with_the_version_they_were_written_in(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(
            host,
            Append(
                entries=[entry("a/1", 1), entry("b/1", 1), entry("c/1", 1)],
                snapshots={"a/1": snapshot(1, version=3)},
                states={"b/1": ("b/1", 1, 1, b"{}", 2**31)},
            ),
        )

        assert (await loaded(store, "a/1")).state_version == 3
        assert (await loaded(store, "b/1")).state_version == 2**31
        assert (await loaded(store, "c/1")).state_version == 1, "without either, the first"

    async def test_without_a_snapshot_in_the_bounds_the_whole_journal_is_the_tail(self, store: Store) -> None:
        host = await with_snapshots(store, 2, 4)
        await store.append(host, Append(marks={"a/1": ("a/1", 4, b"{}")}))

        one = await loaded(store, "a/1", window=1, below=2)

        assert (one.state, one.state_n, one.state_seq) == (None, 0, 0)
        assert [entry.n for entry in one.tail] == list(range(1, 11))

    async def test_the_sequence_number_of_events_comes_with_the_snapshot(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(
            host,
            Append(entries=[entry("a/1", 1, seq=5)], snapshots={"a/1": ("a/1", 1, 5, b"{}", 1, 2)}),
        )

        one = await loaded(store, "a/1")

        assert (one.state_n, one.state_seq) == (1, 5)

    # Scenario 65: a state is replaced as a whole and read with the entry it stands at.
    async def test_the_latest_state_is_the_one_loaded_and_scanned(self, store: Store) -> None:
        host = await store.join(HOST)
        for n in (1, 2, 3):
            await store.append(
                host, Append(entries=[entry("a/1", n)], states={"a/1": ("a/1", n, n, str(n).encode(), n)})
            )

        one = await loaded(store, "a/1")
        assert (one.state_n, one.state_seq, one.state, one.state_version) == (3, 3, "3", 3)
        assert [(row.entity, row.n, row.version, row.state) for row in await store.scan_states("", 9)] == [
            ("a/1", 3, 3, "3")
        ]

    async def test_states_are_scanned_by_key_behind_a_key_and_snapshots_are_not_among_them(self, store: Store) -> None:
        host = await with_snapshots(store, 2)
        keys = ["b/2", "a/3", "b/10", "c/1"]
        await store.append(
            host,
            Append(entries=[entry(key, 1) for key in keys], states={key: (key, 1, 1, b"{}", 1) for key in keys}),
        )

        assert [row.entity for row in await store.scan_states("", 9)] == ["a/3", "b/10", "b/2", "c/1"]
        assert [row.entity for row in await store.scan_states("", 2)] == ["a/3", "b/10"]
        assert [row.entity for row in await store.scan_states("b/10", 2)] == ["b/2", "c/1"]
        assert await store.scan_states("c/1", 9) == []
        assert await store.scan_states("", 0) == []

    async def test_the_watermarks_of_sends_are_replaced_as_a_whole(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, Append(entries=[entry("a/1", 1)], marks={"a/1": ("a/1", 1, b'{"b/1":1}')}))
        await store.append(host, Append(entries=[entry("a/1", 2)], marks={"a/1": ("a/1", 2, b'{"b/2":9}')}))

        one = await loaded(store, "a/1")

        assert (one.marks_n, one.marks) == (2, '{"b/2":9}')
