"""What every store must do, whatever it is built on. One suite over all of them."""

# ruff: noqa: SLF001 - tables are broken by hand

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from remora.errors import Fenced, RemoraError, StoreMismatch, StoreUnavailable
from remora.journal import Append, EntryRow, Store, Want
from remora.sharding.table import HostRow, ShardRow
from remora.storage.memory import MemoryStore
from remora.storage.open import open_store
from remora.storage.sqlite import SqliteStore

APP, SHARDS = "bank", 8
HOST = HostRow(0, "host-1", node="n", machine="m", pid=7, started=1.5)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "bank.db")
    await made.open(APP, SHARDS)
    yield made
    await made.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "bank.db")
    await made.open(APP, SHARDS)
    yield made
    await made.close()


def entry(
    entity: str, n: int, *, seq: int | None = None, command_id: str = "", events: bytes | None = b"[]"
) -> EntryRow:
    return (entity, n, n if seq is None else seq, events, command_id or f"c{n}", 0, b'"ok"', 1_000 + n, 77)


def numbers(rows: list[EntryRow]) -> Append:
    return Append(entries=rows)


async def committed(store: Store, entity: str) -> list[int]:
    (found,) = await store.load([Want(entity, 1_000)])
    return [one.n for one in found.tail]


# -- append: all or nothing, fenced, one writer ------------------------------------------------------


async def test_an_append_writes_all_its_parts(store: Store) -> None:
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
    assert [(t.n, t.seq, t.events, t.command_id, t.verdict, t.reply, t.at) for t in one.tail] == [
        (1, 1, "[]", "c1", 0, '"ok"', 1_001),
        (2, 2, "[]", "c2", 0, '"ok"', 1_002),
    ]
    assert (one.state_n, one.state_seq, one.state, one.marks_n, one.marks) == (2, 2, '{"x":1}', 2, '{"b/1":257}')
    assert [t.n for t in two.tail] == [1]
    assert [(row.entity, row.n, row.sends) for row in await store.outbox(["3"], 10)] == [
        ("a/1", 1, '[["b","1","hear",{}]]')
    ]
    assert [(row.entity, row.name, row.due) for row in await store.due(["3"], 5_000, 10)] == [("a/1", "tick", 5_000)]


async def test_an_append_with_one_bad_row_writes_nothing_of_the_others(store: Store) -> None:
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

    assert [(found.tail, found.state, found.marks) for found in await store.load([Want("a/2", 9), Want("a/3", 9)])] == [
        ([], None, None)
    ] * 2
    assert await store.outbox(["3"], 10) == []
    assert await store.due(["3"], 10, 10) == []


async def test_a_second_writer_of_an_entry_number_fails_and_changes_nothing(store: Store) -> None:
    first, second = await store.join(HOST), await store.join(HOST)
    await store.append(first, numbers([entry("a/1", 1, command_id="mine")]))

    with pytest.raises(Fenced, match="Another writer was first"):
        await store.append(second, numbers([entry("a/1", 1, command_id="theirs")]))

    (found,) = await store.load([Want("a/1", 9)])
    assert [one.command_id for one in found.tail] == ["mine"]


async def test_one_entity_cannot_get_one_number_twice_in_one_append(store: Store) -> None:
    host = await store.join(HOST)

    with pytest.raises(Fenced):
        await store.append(host, numbers([entry("a/1", 1), entry("a/1", 1)]))

    assert await committed(store, "a/1") == []


async def test_an_unknown_incarnation_commits_nothing(store: Store) -> None:
    with pytest.raises(Fenced, match="has ended"):
        await store.append(99, numbers([entry("a/1", 1)]))

    assert await committed(store, "a/1") == []


async def test_a_fenced_incarnation_commits_nothing(store: Store) -> None:
    host, other = await store.join(HOST), await store.join(HOST)
    await store.append(host, numbers([entry("a/1", 1)]))
    await store.write_table(await store.lead(), 1, [host], {"3": ShardRow(other, 2)})

    with pytest.raises(Fenced, match="has ended"):
        await store.append(host, numbers([entry("a/1", 2)]))
    await store.append(other, numbers([entry("a/1", 2)]))

    assert await committed(store, "a/1") == [1, 2]


async def test_a_fenced_incarnation_can_neither_release_shards_nor_go_on_as_a_new_one(store: Store) -> None:
    host, other = await store.join(HOST), await store.join(HOST)
    await store.write_table(await store.lead(), 1, [host], {"3": ShardRow(other, 2)})

    with pytest.raises(Fenced):
        await store.release(host, ["3"])
    with pytest.raises(Fenced):
        await store.reincarnate(host)

    assert (await store.read_table()).shards == {"3": ShardRow(other, 2)}


@pytest.mark.parametrize("rows", [1, 3, 5, 63, 64, 65, 256, 257, 1_000])
async def test_every_row_of_an_append_of_any_size_arrives(store: Store, rows: int) -> None:
    host = await store.join(HOST)

    await store.append(host, numbers([entry(f"a/{n % 7}", n // 7 + 1) for n in range(rows)]))

    found = await store.load([Want(f"a/{n}", 1_000) for n in range(7)])
    assert sum(len(one.tail) for one in found) == rows


async def test_text_of_any_alphabet_and_numbers_of_64_bits_come_back_as_written(store: Store) -> None:
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


# -- load: snapshot, tail, dedup window --------------------------------------------------------------


async def test_an_unknown_entity_loads_empty_and_in_its_place(store: Store) -> None:
    host = await store.join(HOST)
    await store.append(host, numbers([entry("a/1", 1)]))

    found = {one.entity: one for one in await store.load([Want("a/0", 5), Want("a/1", 5), Want("a/2", 5)])}

    assert sorted(found) == ["a/0", "a/1", "a/2"]
    assert [len(found[key].tail) for key in ("a/0", "a/1", "a/2")] == [0, 1, 0]
    assert (found["a/0"].state_n, found["a/0"].state, found["a/0"].marks) == (0, None, None)


@pytest.mark.parametrize(
    ("state_n", "marks_n", "window", "first"),
    [
        (0, 0, 3, 1),  # no snapshot: all of it
        (8, 8, 3, 8),  # the dedup window reaches behind the snapshot
        (8, 8, 1, 9),  # the tail behind the snapshot
        (8, 5, 1, 6),  # the older of the two snapshots
        (10, 10, 1, 10),
        (10, 10, 100, 1),  # a window longer than the journal
    ],
)
async def test_load_returns_the_tail_behind_the_snapshots_and_the_dedup_window(
    store: Store, state_n: int, marks_n: int, window: int, first: int
) -> None:
    host = await store.join(HOST)
    append = numbers([entry("a/1", n) for n in range(1, 11)])
    if state_n:
        append.states["a/1"] = ("a/1", state_n, state_n, b"{}", 1)
    if marks_n:
        append.marks["a/1"] = ("a/1", marks_n, b"{}")
    await store.append(host, append)

    (found,) = await store.load([Want("a/1", window)])

    assert [one.n for one in found.tail] == list(range(first, 11))


async def test_the_latest_snapshot_is_the_one_loaded(store: Store) -> None:
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


async def test_events_come_in_order_behind_a_sequence_number_and_leave_out_entries_without_any(store: Store) -> None:
    host = await store.join(HOST)
    rows = [
        entry("a/1", 1, seq=2, events=b'[["E",{}],["E",{}]]'),
        entry("a/1", 2, seq=2, events=None),
        entry("a/1", 3, seq=3, events=b'[["E",{}]]'),
        entry("a/1", 4, seq=4, events=b'[["E",{}]]'),
    ]
    await store.append(host, numbers([*rows, entry("a/2", 1)]))

    assert [(row.n, row.seq, row.command_id) for row in await store.events("a/1", 0, 2)] == [(1, 2, "c1"), (3, 3, "c3")]
    assert [row.seq for row in await store.events("a/1", 2, 10)] == [3, 4]
    assert await store.events("a/1", 4, 10) == []


# -- outbox and reminders ----------------------------------------------------------------------------


async def test_the_outbox_lists_undelivered_sends_of_the_asked_shards_oldest_first_per_entity(store: Store) -> None:
    host = await store.join(HOST)
    rows = [("a/1", 2, "3", b"[2]"), ("a/1", 1, "3", b"[1]"), ("a/2", 1, "4", b"[1]"), ("a/1", 10, "3", b"[10]")]
    await store.append(host, Append(outbox=rows))

    assert [(row.entity, row.n) for row in await store.outbox(["3", "5"], 10)] == [("a/1", 1), ("a/1", 2), ("a/1", 10)]
    assert [(row.entity, row.n) for row in await store.outbox(["3", "4"], 2)] == [("a/1", 1), ("a/1", 2)]
    assert await store.outbox([], 10) == []


async def test_delivered_sends_leave_the_outbox_and_parked_ones_are_counted_apart(store: Store) -> None:
    host = await store.join(HOST)
    await store.append(host, Append(outbox=[("a/1", n, "3", b"[]") for n in (1, 2, 3)]))
    assert await store.outbox_counts() == (3, 0)

    await store.append(host, Append(delivered=[("a/1", 1), ("a/9", 1)], parked=[("no such command", b"[]", "a/1", 2)]))

    assert [row.n for row in await store.outbox(["3"], 10)] == [3]
    assert await store.outbox_counts() == (1, 1)


async def test_a_fenced_incarnation_cannot_take_sends_out_of_the_outbox(store: Store) -> None:
    host, other = await store.join(HOST), await store.join(HOST)
    await store.append(host, Append(outbox=[("a/1", 1, "3", b"[]")]))
    await store.write_table(await store.lead(), 1, [host], {"3": ShardRow(other, 2)})

    with pytest.raises(Fenced):
        await store.append(host, Append(delivered=[("a/1", 1)]))

    assert [row.n for row in await store.outbox(["3"], 10)] == [1]


async def test_reminders_are_replaced_cancelled_and_listed_when_due(store: Store) -> None:
    host = await store.join(HOST)
    first = {("a/1", name): ("a/1", name, "3", due, 0, 0) for name, due in (("x", 300), ("y", 100), ("z", 200))}
    await store.append(host, Append(reminders={**first, ("a/2", "x"): ("a/2", "x", "4", 1, 0, 0)}))
    await store.append(host, Append(reminders={("a/1", "x"): ("a/1", "x", "3", 50, 0, 0), ("a/1", "z"): None}))

    assert [(row.name, row.due) for row in await store.due(["3"], 1_000, 10)] == [("x", 50), ("y", 100)]
    assert [row.name for row in await store.due(["3"], 99, 10)] == ["x"]
    assert [row.name for row in await store.due(["3"], 1_000, 1)] == ["x"]
    assert [row.entity for row in await store.due(["4"], 1_000, 10)] == ["a/2"]
    assert await store.due([], 1_000, 10) == []


async def test_cancelling_a_reminder_that_does_not_exist_is_no_error(store: Store) -> None:
    host = await store.join(HOST)

    await store.append(host, Append(reminders={("a/1", "x"): None}))

    assert await store.due(["3"], 1_000, 10) == []


# -- hosts, shards, leaders --------------------------------------------------------------------------


async def test_every_incarnation_is_higher_than_any_before_also_after_fencing(store: Store) -> None:
    first, second = await store.join(HOST), await store.join(HOST)
    await store.write_table(await store.lead(), 1, [first, second], {})

    third = await store.join(HOST)
    fourth = await store.reincarnate(third)

    assert 0 < first < second < third < fourth


async def test_the_table_shows_the_hosts_that_stand_and_who_owns_what(store: Store) -> None:
    first, second = await store.join(HOST), await store.join(HostRow(0, "host-2", dedicated="a/1"))

    await store.write_table(
        await store.lead(), 5, [first], {"0": ShardRow(second, 1), "1": ShardRow(0, 3), "a/1": ShardRow(second, 1)}
    )

    table = await store.read_table()
    assert table.version == 5
    assert table.hosts == {second: HostRow(second, "host-2", dedicated="a/1")}
    assert table.shards == {"0": ShardRow(second, 1), "1": ShardRow(0, 3), "a/1": ShardRow(second, 1)}


async def test_what_a_host_said_about_itself_when_it_joined_comes_back(store: Store) -> None:
    number = await store.join(HOST)

    row = (await store.read_table()).hosts[number]

    assert (row.name, row.node, row.machine, row.pid, row.started) == ("host-1", "n", "m", 7, 1.5)


async def test_release_gives_up_own_shards_only_and_keeps_their_epoch(store: Store) -> None:
    mine, other = await store.join(HOST), await store.join(HOST)
    rows = {"0": ShardRow(mine, 4), "1": ShardRow(mine, 4), "2": ShardRow(other, 6)}
    await store.write_table(await store.lead(), 1, [], rows)

    await store.release(mine, ["0", "2", "7"])

    assert (await store.read_table()).shards == {"0": ShardRow(0, 4), "1": ShardRow(mine, 4), "2": ShardRow(other, 6)}


async def test_assigning_raises_the_epoch_as_told(store: Store) -> None:
    mine, other = await store.join(HOST), await store.join(HOST)
    term = await store.lead()
    await store.write_table(term, 1, [], {"0": ShardRow(mine, 1)})
    await store.release(mine, ["0"])

    await store.write_table(term, 2, [], {"0": ShardRow(other, 2)})

    assert (await store.read_table()).shards == {"0": ShardRow(other, 2)}


async def test_a_new_incarnation_takes_the_shards_of_the_old_one_in_one_step_and_the_old_one_is_fenced(
    store: Store,
) -> None:
    mine, other = await store.join(HOST), await store.join(HostRow(0, "host-2"))
    await store.write_table(await store.lead(), 1, [], {"0": ShardRow(mine, 1), "1": ShardRow(other, 1)})

    successor = await store.reincarnate(mine)

    table = await store.read_table()
    assert table.shards == {"0": ShardRow(successor, 2), "1": ShardRow(other, 1)}
    assert {number: row.name for number, row in table.hosts.items()} == {other: "host-2", successor: "host-1"}
    with pytest.raises(Fenced):
        await store.append(mine, numbers([entry("a/1", 1)]))
    await store.append(successor, numbers([entry("a/1", 1)]))


async def test_a_leader_of_an_earlier_term_writes_nothing(store: Store) -> None:
    host = await store.join(HOST)
    old = await store.lead()
    new = await store.lead()
    assert new > old

    with pytest.raises(Fenced, match="term"):
        await store.write_table(old, 7, [host], {"0": ShardRow(host, 1)})

    table = await store.read_table()
    assert (table.version, table.shards, list(table.hosts)) == (0, {}, [host])
    await store.write_table(new, 1, [], {"0": ShardRow(host, 1)})
    assert (await store.read_table()).version == 1


@pytest.mark.parametrize("overtaken", [ShardRow(7, 2), ShardRow(7, 3)])
async def test_owners_that_were_decided_on_before_a_later_change_are_not_written(
    store: Store, overtaken: ShardRow
) -> None:
    mine, other = await store.join(HOST), await store.join(HOST)
    term = await store.lead()
    await store.write_table(term, 1, [], {"0": ShardRow(mine, 2), "1": ShardRow(other, 1)})
    successor = await store.reincarnate(mine)

    with pytest.raises(StoreUnavailable, match="Shard 0 has got another owner meanwhile"):
        await store.write_table(term, 2, [other], {"1": ShardRow(successor, 2), "0": overtaken})

    table = await store.read_table()
    assert (table.version, sorted(table.hosts)) == (1, [other, successor])
    assert table.shards == {"0": ShardRow(successor, 3), "1": ShardRow(other, 1)}


async def test_an_incarnation_that_has_ended_is_given_nothing(store: Store) -> None:
    mine, other = await store.join(HOST), await store.join(HOST)
    term = await store.lead()
    successor = await store.reincarnate(mine)

    for fence in ([], [other]):
        with pytest.raises(StoreUnavailable, match="has ended meanwhile"):
            await store.write_table(term, 2, fence, {"1": ShardRow(other, 1), "0": ShardRow(mine, 1)})
    with pytest.raises(StoreUnavailable, match="has ended meanwhile"):
        await store.write_table(term, 2, [other], {"1": ShardRow(other, 1)})

    table = await store.read_table()
    assert (table.version, sorted(table.hosts), table.shards) == (0, [other, successor], {})


async def test_writing_the_same_owners_twice_is_the_same_as_once(store: Store) -> None:
    host = await store.join(HOST)
    term = await store.lead()
    for _ in range(2):
        await store.write_table(term, 1, [], {"0": ShardRow(host, 2), "1": ShardRow(0, 2)})

    assert (await store.read_table()).shards == {"0": ShardRow(host, 2), "1": ShardRow(0, 2)}


async def test_a_fenced_incarnation_renews_no_lease(store: Store) -> None:
    host, other = await store.join(HOST), await store.join(HOST)
    store.renew(host, 1.0)
    await store.write_table(await store.lead(), 1, [host], {"3": ShardRow(other, 2)})

    with pytest.raises(Fenced, match="has ended"):
        store.renew(host, 2.0)
    store.renew(other, 2.0)


async def test_leases_are_the_last_renewal_per_incarnation(store: Store) -> None:
    first, second = await store.join(HOST), await store.join(HOST)
    for number, at_s in ((first, 1.25), (second, 2.0), (first, 3.5)):
        store.renew(number, at_s)

    leases = await store.leases()

    assert (leases[first], leases[second]) == (3.5, 2.0)


async def test_appends_at_the_same_time_from_two_hosts_all_arrive_once(store: Store) -> None:
    first, second = await store.join(HOST), await store.join(HOST)
    numbered = itertools.count(1)

    await asyncio.gather(
        *(store.append(host, numbers([entry(f"a/{next(numbered)}", 1)])) for _ in range(50) for host in (first, second))
    )

    found = await store.load([Want(f"a/{n}", 9) for n in range(1, 101)])
    assert [len(one.tail) for one in found] == [1] * 100


# -- opening -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("app", "shards", "fix"), [("shop", SHARDS, "bank"), (APP, 16, "8")])
async def test_a_store_of_another_app_or_shard_count_is_refused_and_the_message_says_what_it_holds(
    store: Store, tmp_path: Path, app: str, shards: int, fix: str
) -> None:
    again = store if isinstance(store, MemoryStore) else SqliteStore(tmp_path / "bank.db")

    with pytest.raises(StoreMismatch, match=fix):
        await again.open(app, shards)

    if again is not store:
        await again.close()
    await store.append(await store.join(HOST), numbers([entry("a/1", 1)]))


async def test_opening_the_same_store_again_finds_everything(store: Store, tmp_path: Path) -> None:
    host = await store.join(HOST)
    await store.write_table(await store.lead(), 3, [], {"0": ShardRow(host, 1)})
    await store.append(
        host,
        Append(
            entries=[entry("a/1", 1)],
            states={"a/1": ("a/1", 1, 1, b'{"x":1}', 1)},
            marks={"a/1": ("a/1", 1, b"{}")},
            outbox=[("a/1", 1, "0", b"[]"), ("a/1", 2, "0", b"[]")],
            parked=[("why", b"[]", "a/1", 2)],
            reminders={("a/1", "tick"): ("a/1", "tick", "0", 9, 0, 0)},
        ),
    )
    await store.close()
    again: Store = store if isinstance(store, MemoryStore) else SqliteStore(tmp_path / "bank.db")

    await again.open(APP, SHARDS)

    (found,) = await again.load([Want("a/1", 9)])
    assert ([one.command_id for one in found.tail], found.state) == (["c1"], '{"x":1}')
    assert await again.outbox_counts() == (1, 1)
    assert [row.name for row in await again.due(["0"], 9, 9)] == ["tick"]
    table = await again.read_table()
    assert (table.version, table.shards, list(table.hosts)) == (3, {"0": ShardRow(host, 1)}, [host])
    assert await again.join(HOST) > host
    assert await again.lead() > 1
    await again.close()


# -- SQLite's own ------------------------------------------------------------------------------------


async def test_a_sqlite_store_waits_for_the_disk_on_every_commit(sqlite: SqliteStore) -> None:
    written = await sqlite._on(sqlite._writer, lambda: sqlite._write.execute("PRAGMA synchronous").fetchone())

    assert written == (2,), "2 is FULL"


async def test_a_store_written_by_a_newer_release_is_refused(sqlite: SqliteStore, tmp_path: Path) -> None:
    await sqlite.close()
    with sqlite3.connect(tmp_path / "bank.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    again = SqliteStore(tmp_path / "bank.db")

    with pytest.raises(StoreMismatch, match=r"newer release.*upgrade Remora"):
        await again.open(APP, SHARDS)
    await again.close()


def a_folder(path: Path) -> Path:
    (path / "folder.db").mkdir()
    return path / "folder.db"


def under_a_file(path: Path) -> Path:
    (path / "file").write_text("")
    return path / "file" / "bank.db"


def no_database(path: Path) -> Path:
    (path / "letter.db").write_text("Dear bank, " * 200)
    return path / "letter.db"


@pytest.mark.parametrize("make", [a_folder, under_a_file, no_database])
async def test_a_path_that_cannot_be_opened_is_refused_with_the_fix(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    store = SqliteStore(make(tmp_path))

    with pytest.raises(StoreMismatch, match=r"(?i)choose a folder|give a path"):
        await store.open(APP, SHARDS)

    await store.close()


async def test_folders_on_the_way_to_a_store_are_made(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "some" / "where" / "bank.db")

    await store.open(APP, SHARDS)

    await store.close()
    assert (tmp_path / "some" / "where" / "bank.db").is_file()


async def break_tables(store: SqliteStore, *names: str) -> None:
    def drop() -> None:
        for name in names:
            store._write.execute(f"DROP TABLE {name}")

    await store._on(store._writer, drop)


async def test_no_error_of_the_driver_ever_escapes(sqlite: SqliteStore) -> None:
    host = await sqlite.join(HOST)
    await break_tables(sqlite, "entries", "outbox", "reminders", "shards", "meta")
    calls = {
        "append": lambda: sqlite.append(host, numbers([entry("a/1", 1)])),
        "load": lambda: sqlite.load([Want("a/1", 9)]),
        "events": lambda: sqlite.events("a/1", 0, 9),
        "outbox": lambda: sqlite.outbox(["0"], 9),
        "outbox_counts": sqlite.outbox_counts,
        "due": lambda: sqlite.due(["0"], 9, 9),
        "read_table": sqlite.read_table,
        "write_table": lambda: sqlite.write_table(1, 1, [], {}),
        "release": lambda: sqlite.release(host, ["0"]),
        "reincarnate": lambda: sqlite.reincarnate(host),
        "lead": sqlite.lead,
    }
    for name, call in calls.items():
        with pytest.raises(RemoraError) as caught:
            await call()
        assert isinstance(caught.value, StoreUnavailable), name


async def test_what_the_driver_cannot_write_is_no_error_of_the_driver_either(sqlite: SqliteStore) -> None:
    host = await sqlite.join(HOST)

    with pytest.raises(RemoraError):
        await sqlite.append(host, numbers([entry("a/\ud800", 1)]))

    await sqlite.append(host, numbers([entry("a/1", 1)]))
    assert await committed(sqlite, "a/1") == [1]


async def test_a_closed_store_says_that_it_is_closed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "bank.db")
    await store.open(APP, SHARDS)
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.load([Want("a/1", 9)])
    with pytest.raises(RemoraError):
        store.renew(1, 1.0)


async def test_a_store_can_be_closed_twice(store: Store) -> None:
    await store.close()


async def test_a_failed_append_leaves_the_store_ready_for_the_next(sqlite: SqliteStore) -> None:
    host = await sqlite.join(HOST)
    with pytest.raises(Fenced):
        await sqlite.append(99, numbers([entry("a/1", 1)]))

    await sqlite.append(host, numbers([entry("a/1", 1)]))

    assert await committed(sqlite, "a/1") == [1]


# -- URLs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "bank.db", "sqlite://bank.db", "sqlite:///", "mysql://db/bank", "memory:"])
def test_a_url_without_an_adapter_is_refused_and_the_message_lists_those_there_are(url: str) -> None:
    with pytest.raises(StoreMismatch, match="sqlite:///PATH"):
        open_store(url)


def test_a_url_may_come_from_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANK_STORE", "memory://")

    assert isinstance(open_store("env:BANK_STORE"), MemoryStore)


def test_an_environment_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BANK_STORE", raising=False)

    with pytest.raises(StoreMismatch, match="BANK_STORE"):
        open_store("env:BANK_STORE")


def test_a_sqlite_url_names_an_absolute_or_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    absolute, relative = open_store(f"sqlite:///{tmp_path}/bank.db"), open_store("sqlite:///bank.db")

    assert isinstance(absolute, SqliteStore)
    assert isinstance(relative, SqliteStore)
    assert absolute.path == relative.path == tmp_path / "bank.db"
