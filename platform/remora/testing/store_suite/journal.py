"""Entries: all or nothing, one writer, in order, also in numbers; trimmed and deleted without going back.

Scenarios 61 to 67 are those of the contract suites that Akka and Pekko give to authors of journals.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest

from remora.errors import Fenced, RemoraError
from remora.journal import PAGE_ENTRIES, Append, EntryRow, Known, Span, Store, Want
from remora.sharding.table import ShardRow
from remora.testing.store_suite.rows import HOST, OnAStore, committed, entry, fenced_out, loaded, numbers

MORE_THAN_A_PAGE = PAGE_ENTRIES + 3


class JournalContract(OnAStore):
    """Appends, and reading entries and events back."""

    # -- append: all or nothing, fenced, one writer --------------------------------------------------

    async def test_an_append_writes_all_its_parts(self, store: Store) -> None:
        host = await store.join(HOST)
        append = Append(
            entries=[entry("a/1", 1), entry("a/2", 1), entry("a/1", 2)],
            states={"a/1": ("a/1", 2, 2, b'{"x":1}', 1)},
            marks={"a/1": ("a/1", 2, b'{"b/1":257}')},
            outbox=[("a/1", 1, "3", b'[["b","1","hear",{}]]')],
            reminders={("a/1", "tick"): ("a/1", "tick", "3", 5_000, 0, 0)},
        )
        assert append

        await store.append(host, append)

        one, two = await store.load([Want("a/1", 1_000), Want("a/2", 1_000)])
        assert (one.last, one.last_seq, one.tail) == (2, 2, []), "all of it is in the state"
        assert (one.oldest_n, one.oldest_ms) == (1, 1_001)
        entries = await store.entries("a/1", 0, 9)
        assert [(t.n, t.seq, t.events, t.command_id, t.verdict, t.reply, t.at) for t in entries] == [
            (1, 1, "[]", "c1", 0, '"ok"', 1_001),
            (2, 2, "[]", "c2", 0, '"ok"', 1_002),
        ]
        assert (one.state_n, one.state_seq, one.state, one.marks_n, one.marks) == (2, 2, '{"x":1}', 2, '{"b/1":257}')
        assert [(t.n, t.events) for t in two.tail] == [(1, "[]")]
        assert [(row.entity, row.n, row.sends) for row in await store.outbox(["3"], 10)] == [
            ("a/1", 1, '[["b","1","hear",{}]]')
        ]
        assert [(row.entity, row.name, row.due) for row in await store.due(["3"], 5_000, 10)] == [
            ("a/1", "tick", 5_000)
        ]

    async def test_an_append_with_one_bad_row_writes_nothing_of_the_others(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers([entry("a/1", 1)]))
        bad = Append(
            entries=[entry("a/2", 1), entry("a/3", 1), entry("a/1", 1)],
            states={"a/2": ("a/2", 1, 1, b"{}", 1)},
            marks={"a/2": ("a/2", 1, b"{}")},
            outbox=[("a/2", 1, "3", b"[]")],
            reminders={("a/2", "tick"): ("a/2", "tick", "3", 1, 0, 0)},
        )

        with pytest.raises(Fenced):
            await store.append(host, bad)

        assert [
            (found.tail, found.state, found.marks) for found in await store.load([Want("a/2", 9), Want("a/3", 9)])
        ] == [([], None, None)] * 2
        assert await store.outbox(["3"], 10) == []
        assert await store.due(["3"], 10, 10) == []

    async def test_a_second_writer_of_an_entry_number_fails_and_changes_nothing(self, store: Store) -> None:
        first, second = await store.join(HOST), await store.join(HOST)
        await store.append(first, numbers([entry("a/1", 1, command_id="mine")]))

        with pytest.raises(Fenced, match="Another writer was first"):
            await store.append(second, numbers([entry("a/1", 1, command_id="theirs")]))

        (found,) = await store.load([Want("a/1", 9)])
        assert [one.command_id for one in found.tail] == ["mine"]

    async def test_one_entity_cannot_get_one_number_twice_in_one_append(self, store: Store) -> None:
        host = await store.join(HOST)

        with pytest.raises(Fenced):
            await store.append(host, numbers([entry("a/1", 1), entry("a/1", 1)]))

        assert await committed(store, "a/1") == []

    async def test_an_unknown_incarnation_commits_nothing(self, store: Store) -> None:
        with pytest.raises(Fenced, match="has ended"):
            await store.append(99, numbers([entry("a/1", 1)]))

        assert await committed(store, "a/1") == []

    async def test_a_fenced_incarnation_commits_nothing(self, store: Store) -> None:
        host, other = await store.join(HOST), await store.join(HOST)
        await store.append(host, numbers([entry("a/1", 1)]))
        await store.write_table(await store.lead(), 1, [host], {"3": ShardRow(other, 2)})

        with pytest.raises(Fenced, match="has ended"):
            await store.append(host, numbers([entry("a/1", 2)]))
        await store.append(other, numbers([entry("a/1", 2)]))

        assert await committed(store, "a/1") == [1, 2]

    @pytest.mark.parametrize("rows", [1, 3, 5, 63, 64, 65, 256, 257, 1_000])
    async def test_every_row_of_an_append_of_any_size_arrives(self, store: Store, rows: int) -> None:
        host = await store.join(HOST)

        await store.append(host, numbers([entry(f"a/{n % 7}", n // 7 + 1) for n in range(rows)]))

        found = await store.load([Want(f"a/{n}", 1_000) for n in range(7)])
        assert sum(len(one.tail) for one in found) == rows

    async def test_text_of_any_alphabet_and_numbers_of_64_bits_come_back_as_written(self, store: Store) -> None:
        host = await store.join(HOST)
        key = "konto/Ärger 😀 'x' \"y\" \\ %_;--"
        row: EntryRow = (key, 1, 1, '[["E",{"t":"日本"}]]'.encode(), "ид-1", 1, '"né"'.encode(), 2**62, -(2**63))

        await store.append(host, Append(entries=[row], reminders={(key, "ü"): (key, "ü", "1", 2**62, 0, 0)}))

        (found,) = await store.load([Want(key, 9)])
        tail = found.tail[0]
        assert (found.entity, tail.events, tail.command_id, tail.reply, tail.at) == (
            key,
            '[["E",{"t":"日本"}]]',
            "ид-1",
            '"né"',
            2**62,
        )
        assert [(r.entity, r.name, r.due) for r in await store.due(["1"], 2**62, 9)] == [(key, "ü", 2**62)]

    async def test_what_was_decided_is_known_without_its_answers(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers([entry("a/1", 1, command_id="ид-1"), entry("a/1", 2), entry("a/2", 1)]))

        assert await store.known([Span("a/1", 0, 9)]) == [[Known(1, "ид-1", 1_001), Known(2, "c2", 1_002)]]

    async def test_what_several_entities_have_decided_comes_in_the_order_asked_for_and_nothing_of_those_without(
        self, store: Store
    ) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers([*(entry("a/1", n) for n in range(1, 5)), entry("a/2", 1), entry("a/3", 1)]))
        spans = [Span("a/3", 0, 9), Span("a/0", 0, 9), Span("a/1", 2, 9), Span("a/2", 1, 9), Span("a/1", 0, 2)]

        found = await store.known(spans)

        assert [[one.n for one in known] for known in found] == [[1], [], [3, 4], [], [1, 2]]
        assert await store.known([]) == []

    # A window that is whole, one that reaches a part of the journal, and none.
    @pytest.mark.parametrize(("window", "found"), [(9, [2, 4]), (5, [2, 4]), (4, [4]), (1, []), (0, [])])
    async def test_commands_that_wait_are_looked_up_by_id_within_the_window(
        self, store: Store, window: int, found: list[int]
    ) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers([*(entry("a/1", n) for n in range(1, 7)), entry("a/2", 1)]))

        one, two = await store.load(
            [
                Want("a/1", window, events=False, ids=("c4", "new", "c2", "c4")),
                Want("a/2", 9, events=False, ids=("c4",)),
            ]
        )

        assert [(row.n, row.command_id, row.reply, row.at, row.fingerprint, row.events) for row in one.decided] == [
            (n, f"c{n}", '"ok"', 1_000 + n, 77, None) for n in found
        ]
        assert two.decided == [], "ids are those of one entity"
        oldest = 7 - min(window, 6) if window else 0
        assert (one.oldest_n, one.oldest_ms) == (oldest, 1_000 + oldest if oldest else 0)
        assert one.tail == []

    async def test_of_durable_sends_since_the_marks_the_last_number_of_each_sender_is_told(self, store: Store) -> None:
        host = await store.join(HOST)
        ids = ["b/1>7", "b/1>12", "c/>x>3", "mine", "b/9>", ">5", "12", f"x>{'9' * 19}", "c/>x>21", "b/1>112", "ü/1>5"]
        await store.append(host, numbers(entry("a/1", n, command_id=one) for n, one in enumerate(ids, 1)))

        async def sends(*, events: bool) -> dict[str, int]:
            (found,) = await store.load([Want("a/1", 9, events=events)])
            return found.sends

        assert await sends(events=False) == {"b/1": 112, "c/>x": 21, "": 5, "ü/1": 5}
        assert await sends(events=True) == {}, "all are in the tail"

        await store.append(host, Append(marks={"a/1": ("a/1", 8, b'{"b/1":12,"c/>x":3}')}))
        assert await sends(events=False) == {"c/>x": 21, "b/1": 112, "ü/1": 5}

        await store.append(host, Append(snapshots={"a/1": ("a/1", 10, 10, b"{}", 1, 1)}))
        assert await sends(events=True) == {"c/>x": 21, "b/1": 112}, "the last one is in the tail"

    async def test_an_unknown_entity_loads_empty_and_in_its_place(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers([entry("a/1", 1)]))

        found = {one.entity: one for one in await store.load([Want("a/0", 5), Want("a/1", 5), Want("a/2", 5)])}

        assert sorted(found) == ["a/0", "a/1", "a/2"]
        assert [len(found[key].tail) for key in ("a/0", "a/1", "a/2")] == [0, 1, 0]
        assert (found["a/0"].state_n, found["a/0"].state, found["a/0"].marks) == (0, None, None)

    async def test_events_come_in_order_behind_a_sequence_number_and_leave_out_entries_without_any(
        self, store: Store
    ) -> None:
        host = await store.join(HOST)
        rows = [
            entry("a/1", 1, seq=2, events=b'[["E",{}],["E",{}]]'),
            entry("a/1", 2, seq=2, events=None),
            entry("a/1", 3, seq=3, events=b'[["E",{}]]'),
            entry("a/1", 4, seq=4, events=b'[["E",{}]]'),
        ]
        await store.append(host, numbers([*rows, entry("a/2", 1)]))

        assert [(row.n, row.seq, row.command_id) for row in await store.events("a/1", 0, 2)] == [
            (1, 2, "c1"),
            (3, 3, "c3"),
        ]
        assert [row.seq for row in await store.events("a/1", 2, 10)] == [3, 4]
        assert await store.events("a/1", 4, 10) == []

    async def test_appends_at_the_same_time_from_two_hosts_all_arrive_once(self, store: Store) -> None:
        first, second = await store.join(HOST), await store.join(HOST)
        numbered = itertools.count(1)

        await asyncio.gather(
            *(
                store.append(host, numbers([entry(f"a/{next(numbered)}", 1)]))
                for _ in range(50)
                for host in (first, second)
            )
        )

        found = await store.load([Want(f"a/{n}", 9) for n in range(1, 101)])
        assert [len(one.tail) for one in found] == [1] * 100

    async def test_every_part_of_an_append_is_left_out_when_one_is_refused(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(
            host,
            Append(
                entries=[entry("a/1", 1), entry("a/1", 2)],
                states={"a/1": ("a/1", 1, 1, b'"kept"', 1)},
                snapshots={"a/1": ("a/1", 1, 1, b'"kept"', 1, 2)},
                outbox=[("a/1", 1, "3", b"[]"), ("a/1", 2, "3", b"[]")],
                reminders={("a/1", "tick"): ("a/1", "tick", "3", 5, 0, 0)},
            ),
        )

        with pytest.raises(Fenced):
            await store.append(
                host,
                Append(
                    entries=[entry("a/1", 2)],
                    deletions={"a/1": ("a/1", 2, 1)},
                    states={"a/1": ("a/1", 2, 2, b'"lost"', 1)},
                    snapshots={"a/1": ("a/1", 2, 2, b'"lost"', 1, 1)},
                    delivered=[("a/1", 1)],
                    parked=[("why", b"[]", "a/1", 2)],
                    reminders={("a/1", "tick"): None},
                    trims={"a/1": ("a/1", 1)},
                ),
            )

        found = await loaded(store, "a/1")
        assert (found.state, await committed(store, "a/1")) == ('"kept"', [1, 2])
        assert await store.outbox_counts() == (2, 0)
        assert [row.name for row in await store.due(["3"], 9, 9)] == ["tick"]
        assert [row.state for row in await store.scan_states("", 9)] == ['"kept"']

    # Scenario 63: something in the middle of an atomic batch cannot be written. Here the batch is all or nothing.
    @pytest.mark.parametrize("with_others", [False, True], ids=["entries alone", "with a snapshot"])
    @pytest.mark.parametrize("place", [0, 1, 2])
    async def test_a_row_that_cannot_be_written_takes_its_whole_append_along_and_nothing_else(
        self,
        store: Store,
        place: int,
        with_others: bool,  # noqa: FBT001 - a parameter of pytest
    ) -> None:
        host = await store.join(HOST)
        rows = [entry(f"a/{n}", 1) for n in range(3)]
        rows[place] = entry("a/bad", 1, events=b'[["E",{"t":"\xff"}]]')
        append = numbers(rows)
        if with_others:
            append.states["a/0"] = ("a/0", 1, 1, b"{}", 1)

        with pytest.raises(RemoraError):
            await store.append(host, append)

        assert [found.last for found in await store.load([Want(f"a/{n}", 9) for n in (0, 1, 2, "bad")])] == [0] * 4
        await store.append(host, numbers([entry("a/1", 1)]))
        assert await committed(store, "a/1") == [1]

    # Scenario 63: a text that is no Unicode, as a key.
    async def test_a_key_that_is_no_unicode_is_refused_with_an_error_of_the_port(self, store: Store) -> None:
        host = await store.join(HOST)

        with pytest.raises(RemoraError):
            await store.append(host, numbers([entry("a/\ud800", 1)]))

        await store.append(host, numbers([entry("a/1", 1)]))
        assert await committed(store, "a/1") == [1]

    # Scenario 65: a write on a stale revision. Scenario 66: overlapping writers, refused as they write.
    async def test_a_writer_that_missed_an_entry_changes_nothing(self, store: Store) -> None:
        first, second = await store.join(HOST), await store.join(HOST)
        for n in (1, 2):
            await store.append(
                first, Append(entries=[entry("a/1", n)], states={"a/1": ("a/1", n, n, str(n).encode(), 1)})
            )

        stale = Append(
            entries=[entry("a/1", 2, command_id="stale")],
            states={"a/1": ("a/1", 2, 2, b"99", 1)},
            deletions={"a/1": ("a/1", 2, 1)},
        )
        with pytest.raises(Fenced):
            await store.append(second, stale)

        found = await loaded(store, "a/1")
        assert (found.state, [one.command_id for one in await store.entries("a/1", 0, 9)]) == ("2", ["c1", "c2"])

    # Scenario 66: the loser of a race fails as a whole, whoever it is.
    async def test_of_two_writers_of_one_number_at_the_same_time_one_wins(self, store: Store) -> None:
        first, second = await store.join(HOST), await store.join(HOST)

        results = await asyncio.gather(
            *(
                store.append(host, numbers([entry("a/1", 1, command_id=name), entry(f"a/{name}", 1)]))
                for host, name in ((first, "first"), (second, "second"))
            ),
            return_exceptions=True,
        )

        assert sorted(type(result).__name__ for result in results) == ["Fenced", "NoneType"]
        winner, loser = ("first", "second") if results[0] is None else ("second", "first")
        assert [one.command_id for one in (await loaded(store, "a/1")).tail] == [winner]
        assert await committed(store, f"a/{winner}") == [1]
        assert await committed(store, f"a/{loser}") == []

    async def test_a_fenced_incarnation_reads_what_it_may_not_write(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers([entry("a/1", 1)]))
        await fenced_out(store, host)

        assert await committed(store, "a/1") == [1]

    async def test_an_append_of_nothing_is_no_error(self, store: Store) -> None:
        host = await store.join(HOST)

        assert not Append()
        await store.append(host, Append())

        assert await store.scan(0, 10) == []

    # -- reading: bounds, limits, pages ----------------------------------------------------------------

    # Scenario 61: bounds and counts (0, 1, n); a lower bound at and beyond the end; an id that is unknown.
    @pytest.mark.parametrize(
        ("after", "limit", "expected"),
        [
            (0, 100, [1, 2, 3, 4, 5]),
            (0, 0, []),
            (0, 1, [1]),
            (0, 3, [1, 2, 3]),
            (2, 2, [3, 4]),
            (4, 1, [5]),
            (4, 100, [5]),
            (5, 100, []),
            (99, 100, []),
            (99, 0, []),
        ],
    )
    async def test_entries_and_events_come_behind_a_number_up_to_a_limit(
        self, store: Store, after: int, limit: int, expected: list[int]
    ) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers(entry("a/1", n) for n in range(1, 6)))
        await store.append(host, numbers([entry("a/2", 1)]))

        assert [one.n for one in await store.entries("a/1", after, limit)] == expected
        assert [one.n for one in await store.events("a/1", after, limit)] == expected
        assert [one.n for one in (await store.known([Span("a/1", after, after + limit)]))[0]] == expected

    # Scenario 61: an id that is unknown.
    async def test_an_unknown_entity_has_neither_entries_nor_events(self, store: Store) -> None:
        assert await store.entries("a/0", 0, 10) == []
        assert await store.events("a/0", 0, 10) == []
        assert await store.known([Span("a/0", 0, 10)]) == [[]]
        assert (await loaded(store, "a/0")).last == 0

    async def test_keys_that_begin_alike_or_differ_in_case_are_different_entities(self, store: Store) -> None:
        host = await store.join(HOST)
        keys = ["a/1", "a/10", "a/1 ", "A/1", "a/%", "a/_", "ab/1"]
        await store.append(host, numbers(entry(key, 1, command_id=key) for key in keys))

        for key in keys:
            assert [one.command_id for one in await store.entries(key, 0, 10)] == [key]
            assert [one.command_id for one in (await loaded(store, key)).tail] == [key]

    # Scenario 67, without its clock: many entries are written and read back whole.
    async def test_a_long_journal_is_read_in_pages_without_a_gap(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers(entry("a/1", n) for n in range(1, MORE_THAN_A_PAGE + 1)))

        found = await loaded(store, "a/1", window=10)

        assert [one.n for one in found.tail] == list(range(1, PAGE_ENTRIES + 1)), "the first page"
        assert found.last == MORE_THAN_A_PAGE
        first, last = await store.known([Span("a/1", 0, found.last), Span("a/1", PAGE_ENTRIES, found.last)])
        for read in (await store.entries("a/1", PAGE_ENTRIES, PAGE_ENTRIES), last):
            assert [one.n for one in read] == list(range(PAGE_ENTRIES + 1, MORE_THAN_A_PAGE + 1))
        assert len(first) == PAGE_ENTRIES

    async def test_the_last_number_is_told_also_when_the_tail_is_empty(self, store: Store) -> None:
        host = await store.join(HOST)
        append = numbers(entry("a/1", n) for n in range(1, 4))
        append.states["a/1"] = ("a/1", 3, 3, b"{}", 1)
        append.marks["a/1"] = ("a/1", 3, b"{}")
        await store.append(host, append)

        found = await loaded(store, "a/1", window=0)

        assert (found.tail, found.last) == ([], 3)

    @pytest.mark.parametrize("fingerprint", [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1])
    async def test_fingerprints_of_64_bits_come_back_to_the_last_one(self, store: Store, fingerprint: int) -> None:
        host = await store.join(HOST)
        row = (*entry("a/1", 1)[:8], fingerprint)
        await store.append(host, numbers([row]))
        beside = Append(entries=[(*entry("a/2", 1)[:8], fingerprint)], marks={"a/2": ("a/2", 0, b"{}")})
        await store.append(host, beside)

        found = await store.load([Want("a/1", 9), Want("a/2", 9)])

        assert [one.tail[0].fingerprint for one in found] == [fingerprint] * 2
        assert [one.fingerprint for one in await store.entries("a/1", 0, 9)] == [fingerprint]

    async def test_a_reader_of_everything_gets_events_of_all_entities_in_the_order_of_commits(
        self, store: Store
    ) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers([entry("a/1", 1), entry("b/1", 1), entry("a/1", 2, events=None)]))
        await store.append(host, numbers([entry("a/1", 3, events=b'[["E",{"x":1}]]')]))

        rows = await store.scan(0, 10)

        assert [(row.entity, row.n, row.events) for row in rows] == [
            ("a/1", 1, "[]"),
            ("b/1", 1, "[]"),
            ("a/1", 3, '[["E",{"x":1}]]'),
        ]
        positions = [row.position for row in rows]
        assert positions == sorted(set(positions))
        paged = [row for after in [0, *positions] for row in await store.scan(after, 1)]
        assert paged == rows
        assert await store.scan(positions[-1], 10) == []
        assert await store.scan(0, 0) == []

    # -- trimming and deletion -------------------------------------------------------------------------

    # Scenario 62: bounds before, inside, at the end of and behind what there is.
    @pytest.mark.parametrize(("upto", "left"), [(0, [1, 2, 3, 4, 5]), (1, [2, 3, 4, 5]), (3, [4, 5]), (4, [5])])
    async def test_what_is_trimmed_is_gone_and_the_rest_stays(self, store: Store, upto: int, left: list[int]) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers([*(entry("a/1", n) for n in range(1, 6)), entry("a/2", 1)]))

        await store.append(host, Append(trims={"a/1": ("a/1", upto)}))

        found = await loaded(store, "a/1")
        assert ([one.n for one in found.tail], found.last, found.oldest_n) == (left, 5, left[0])
        assert [one.n for one in await store.entries("a/1", 0, 9)] == left
        assert [one.n for one in await store.events("a/1", 0, 9)] == left
        assert [one.n for one in await store.entries("a/1", 3, 9)] == [n for n in left if n > 3]
        assert [row.n for row in await store.scan(0, 9) if row.entity == "a/1"] == left
        assert await committed(store, "a/2") == [1], "neighbours keep theirs"

    # Scenario 62: the highest number is not reset, not even by a full clean-up.
    @pytest.mark.parametrize("upto", [4, 5, 99])
    async def test_numbers_never_go_back_whatever_is_trimmed(self, store: Store, upto: int) -> None:
        host = await store.join(HOST)
        await store.append(host, numbers(entry("a/1", n) for n in range(1, 6)))
        await store.append(host, Append(trims={"a/1": ("a/1", upto)}))
        await store.append(host, Append(trims={"a/1": ("a/1", upto)}))

        assert (await loaded(store, "a/1")).last == 5
        with pytest.raises(Fenced):
            await store.append(host, numbers([entry("a/1", 5)]))
        await store.append(host, numbers([entry("a/1", 6)]))
        assert (await loaded(store, "a/1")).last == 6

    async def test_an_entity_that_is_unknown_can_be_trimmed(self, store: Store) -> None:
        host = await store.join(HOST)

        await store.append(host, Append(trims={"a/0": ("a/0", 7)}))

        assert (await loaded(store, "a/0")).last == 0

    # Scenario 62, and 65: deletion at an entry, after which the entity goes on.
    async def test_what_is_deleted_is_gone_and_ids_and_replies_of_the_window_stay(self, store: Store) -> None:
        host = await store.join(HOST)
        before = numbers([*(entry("a/1", n) for n in range(1, 6)), entry("a/2", 1)])
        before.states = {key: (key, 1, 1, b'"old"', 1) for key in ("a/1", "a/2")}
        before.snapshots = {key: (key, 1, 1, b'"old"', 1, 2) for key in ("a/1", "a/2")}
        before.marks["a/1"] = ("a/1", 5, b'{"b/1":257}')
        before.outbox = [("a/1", 5, "3", b"[]")]
        before.reminders = {(key, "old"): (key, "old", "3", 5, 0, 0) for key in ("a/1", "a/2")}
        await store.append(host, before)

        await store.append(
            host,
            Append(
                entries=[entry("a/1", 6, events=b'[["Closed",{}]]')],
                deletions={"a/1": ("a/1", 6, 2)},
                reminders={("a/1", "new"): ("a/1", "new", "3", 6, 0, 0)},
            ),
        )

        found = await loaded(store, "a/1")
        assert [(one.n, one.command_id, one.reply, one.events) for one in found.tail] == [
            (3, "c3", '"ok"', None),
            (4, "c4", '"ok"', None),
            (5, "c5", '"ok"', None),
            (6, "c6", '"ok"', '[["Closed",{}]]'),
        ]
        assert (found.state, found.state_n, found.last) == (None, 0, 6)
        assert (found.marks_n, found.marks) == (5, '{"b/1":257}'), "durable sends that arrived stay known"
        assert [one.n for one in await store.events("a/1", 0, 9)] == [6]
        assert [row.n for row in await store.scan(0, 9) if row.entity == "a/1"] == [6]
        assert [(row.entity, row.name) for row in await store.due(["3"], 9, 9)] == [("a/2", "old"), ("a/1", "new")]
        assert [row.entity for row in await store.scan_states("", 9)] == ["a/2"]
        assert await store.outbox_counts() == (1, 0), "what it owes others is still owed"
        assert (await loaded(store, "a/2")).state == '"old"', "neighbours keep theirs"

    # Scenario 65: a write after a deletion continues; its state is the new one.
    async def test_a_deleted_entity_goes_on_with_the_state_and_snapshot_of_the_same_append(self, store: Store) -> None:
        host = await store.join(HOST)
        for n in (1, 2):
            await store.append(
                host,
                Append(entries=[entry("a/1", n)], snapshots={"a/1": ("a/1", n, n, str(n).encode(), 1, 5)}),
            )
        await store.append(host, Append(entries=[entry("b/1", 1)], states={"b/1": ("b/1", 1, 1, b"1", 1)}))

        await store.append(
            host,
            Append(
                entries=[entry("a/1", 3), entry("b/1", 2)],
                deletions={"a/1": ("a/1", 3, 1), "b/1": ("b/1", 2, 1)},
                snapshots={"a/1": ("a/1", 3, 3, b'"new"', 1, 1)},
                states={"b/1": ("b/1", 2, 2, b'"new"', 1)},
            ),
        )
        await store.append(host, numbers([entry("a/1", 4), entry("b/1", 3)]))

        one, two = await store.load([Want("a/1", 1), Want("b/1", 1)])
        assert (one.state_n, one.state, one.last) == (3, '"new"', 4)
        assert (two.state_n, two.state, two.last) == (2, '"new"', 3)
        assert (await loaded(store, "a/1", below=3)).state is None, "older snapshots are gone"

    async def test_an_entity_can_be_deleted_again_and_again(self, store: Store) -> None:
        host = await store.join(HOST)
        for n in range(1, 5):
            await store.append(host, Append(entries=[entry("a/1", n)], deletions={"a/1": ("a/1", n, max(n - 2, 0))}))

        found = await loaded(store, "a/1")
        assert ([(one.n, one.events) for one in found.tail], found.last) == ([(3, None), (4, "[]")], 4)
