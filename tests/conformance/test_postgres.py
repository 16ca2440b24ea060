"""What only the store on PostgreSQL has to prove: its fence under real concurrency, and a server that goes and comes."""

# ruff: noqa: ANN401, SLF001 - the driver has no types; the fence is looked at from inside

import asyncio
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from remora.errors import Fenced, RemoraError, StoreMismatch, StoreUnavailable
from remora.journal import Append, EntryRow, Want
from remora.sharding.table import HostRow, ShardRow
from remora.storage import postgres as adapter
from remora.storage.open import open_store, open_to_read, visible_url
from remora.storage.postgres import PostgresStore
from tests import postgres
from tests.clock import turns, until
from tests.proxy import Proxy

APP, SHARDS = "bank", 8
HOST = HostRow(0, "host-1", node="n", machine="m", pid=7, started=1.5)
SECRET = "hunter2/§:!"  # noqa: S105 - looked for in everything that is said
QUOTED = "hunter2%2F%C2%A7%3A!"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    made = await postgres.fresh_database()
    yield made
    await postgres.drop_database(made)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(url)
    await made.open(APP, SHARDS)
    yield made
    await made.close()


@pytest.fixture
async def beside(url: str, store: PostgresStore) -> AsyncIterator[Any]:
    """A session of somebody else on the same schema."""
    del store  # it makes the schema
    connection = await asyncpg.connect(url, server_settings={"search_path": f"remora_{APP}"})
    yield connection
    await connection.close()


@pytest.fixture
async def watch(url: str) -> AsyncIterator[Any]:
    """A session that looks on; one within a transaction sees what was when that began."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A server to stop, start and fill up."""
    made = postgres.new_server()
    yield made
    made.delete()


def entry(entity: str, n: int) -> EntryRow:
    return (entity, n, n, b"[]", f"c{n}", 0, b'"ok"', 1_000 + n, 77)


def entries(*rows: EntryRow) -> Append:
    return Append(entries=list(rows))


def general(*rows: EntryRow) -> Append:
    """An append that takes the way of those with more than entries."""
    return Append(entries=list(rows), marks={row[0]: (row[0], row[1], b"{}") for row in rows})


async def committed(store: PostgresStore, entity: str) -> list[int]:
    (found,) = await store.load([Want(entity, 1_000)])
    return [one.n for one in found.tail]


async def waits_for_a_lock(watch: Any, sessions: int = 1) -> None:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(5):
        while await watch.fetchval(statement) < sessions:
            await turns(5)


# -- the fence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [entries, general])
async def test_an_append_that_meets_a_fence_under_way_waits_for_it_and_writes_nothing(
    store: PostgresStore, url: str, watch: Any, make: Callable[..., Append]
) -> None:
    host = await store.join(HOST)
    fencing = await asyncpg.connect(url, server_settings={"search_path": f"remora_{APP}"})
    transaction = fencing.transaction()
    await transaction.start()
    await fencing.execute("UPDATE hosts SET fenced = true WHERE incarnation = $1", host)
    append = asyncio.create_task(store.append(host, make(entry("a/1", 1))))
    await waits_for_a_lock(watch)
    assert not append.done()

    await transaction.commit()

    with pytest.raises(Fenced, match="has ended"):
        await append
    assert await committed(store, "a/1") == []
    await fencing.close()


async def test_a_check_that_takes_no_lock_would_let_a_fenced_host_commit(store: PostgresStore, beside: Any) -> None:
    """Shows that the test above sees what it is there to see."""
    host = await store.join(HOST)
    unlocked = adapter._APPEND_ENTRIES.replace("FOR SHARE", "")
    transaction = beside.transaction()
    await transaction.start()
    await beside.execute("UPDATE hosts SET fenced = true WHERE incarnation = $1", host)

    assert store._writer is not None
    await store._writer.run(lambda connection: connection.execute(unlocked, host, *adapter._columns([entry("a/1", 1)])))
    await transaction.commit()

    assert await committed(store, "a/1") == [1]


@pytest.mark.parametrize("make", [entries, general])
async def test_a_fence_that_meets_an_append_under_way_waits_for_it_and_its_entries_are_there_after_it(
    store: PostgresStore, beside: Any, watch: Any, make: Callable[..., Append]
) -> None:
    host, other = await store.join(HOST), await store.join(HOST)
    term = await store.lead()
    # Another writer's entry, not committed yet: the append stands in the middle, its check done.
    held = beside.transaction()
    await held.start()
    await beside.execute("INSERT INTO entries VALUES (1, 'a/1', 1, 1, NULL, 'x', 0, '', 0, 0)")
    append = asyncio.create_task(store.append(host, make(entry("a/1", 1))))
    await waits_for_a_lock(watch)
    fence = asyncio.create_task(store.write_table(term, 1, [host], {"3": ShardRow(other, 2)}))
    await waits_for_a_lock(watch, 2)
    assert not fence.done()

    await held.rollback()

    await append
    await fence
    assert await committed(store, "a/1") == [1]
    with pytest.raises(Fenced):
        await store.append(host, make(entry("a/1", 2)))


async def test_nothing_of_a_host_appears_after_its_fence_however_they_race(store: PostgresStore, url: str) -> None:
    registry = PostgresStore(url)
    await registry.open(APP, SHARDS)
    term = await registry.lead()
    for round_number in range(25):
        host = await store.join(HOST)
        entity = f"a/{round_number}"
        acknowledged: list[int] = []

        async def write(host: int = host, entity: str = entity, acknowledged: list[int] = acknowledged) -> None:
            for n in range(1, 1_000):
                await store.append(host, entries(entry(entity, n)))
                acknowledged.append(n)

        writing = asyncio.create_task(write())
        await turns(round_number * 3)
        await registry.write_table(term, round_number, [host], {})
        found = await committed(registry, entity)

        with pytest.raises(Fenced, match="has ended"):
            await writing
        assert await committed(registry, entity) == found
        assert acknowledged == found
    await registry.close()


async def test_a_host_that_freezes_before_the_last_bytes_of_a_commit_holds_up_its_fence_for_less_than_a_lease(
    store: PostgresStore, url: str
) -> None:
    async with Proxy(url) as proxy:
        frozen = PostgresStore(proxy.url)
        await frozen.open(APP, SHARDS)
        host = await store.join(HOST)
        await frozen.append(host, entries(entry("a/1", 1)))
        term = await store.lead()
        proxy.cut = (
            5  # the message that ends a statement: its rows are written, its lock is held, its commit is not asked for
        )
        append = asyncio.create_task(frozen.append(host, entries(entry("a/1", 2))))
        await until(lambda: not proxy.cut)

        began_s = time.perf_counter()
        while True:
            try:
                await store.write_table(term, 1, [host], {})
                break
            except StoreUnavailable:
                assert time.perf_counter() - began_s < 3
        assert 0.5 < time.perf_counter() - began_s < 2, "it had to wait, and not for long"

        with pytest.raises(StoreUnavailable):
            await append
        proxy.let_go()
        assert await committed(store, "a/1") == [1]
        with pytest.raises(Fenced):
            await frozen.append(host, entries(entry("a/1", 2)))
        await frozen.close()


async def test_a_new_incarnation_that_is_asked_for_again_after_a_lost_answer_is_the_same(
    store: PostgresStore, beside: Any
) -> None:
    host = await store.join(HOST)
    await store.write_table(await store.lead(), 1, [], {"0": ShardRow(host, 1)})
    store._attempts[host] = "first try"
    lost = await beside.fetchval("SELECT reincarnate($1, 'first try')", host)

    successor = await store.reincarnate(host)

    assert successor == lost
    assert (await store.read_table()).shards == {"0": ShardRow(successor, 2)}
    with pytest.raises(Fenced):
        await store.reincarnate(host)


async def test_a_network_that_delivers_late_what_was_given_up_makes_one_new_incarnation_and_not_two(
    store: PostgresStore, url: str
) -> None:
    async with Proxy(url) as proxy:
        cut_off = PostgresStore(proxy.url)
        await cut_off.open(APP, SHARDS)
        host = await cut_off.reincarnate(await store.join(HOST))
        await store.write_table(await store.lead(), 1, [], {"0": ShardRow(host, 1)})
        proxy.hold()
        with pytest.raises(StoreUnavailable):
            await cut_off.reincarnate(host)
        proxy.let_go()

        successor = await cut_off.reincarnate(host)

        table = await store.read_table()
        assert list(table.hosts) == [successor]
        assert table.shards == {"0": ShardRow(successor, 2)}
        await cut_off.close()


async def test_every_append_waits_for_the_disk_whatever_the_server_does_by_default(url: str) -> None:
    await postgres.execute(url, "ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    store = PostgresStore(url)
    await store.open(APP, SHARDS)

    assert store._writer is not None
    assert await store._writer.run(lambda connection: connection.fetchval("SHOW synchronous_commit")) == "on"
    await store.close()
    await postgres.execute(url, "ALTER ROLE CURRENT_USER RESET synchronous_commit")


async def test_settings_in_the_url_go_before_the_stores_own(url: str) -> None:
    store = PostgresStore(f"{url}?synchronous_commit=remote_apply&statement_timeout=900")
    await store.open(APP, SHARDS)

    assert store._writer is not None
    shown = "SELECT current_setting('synchronous_commit') || current_setting('statement_timeout')"
    assert await store._writer.run(lambda connection: connection.fetchval(shown)) == "remote_apply900ms"
    await store.close()


# -- reading -----------------------------------------------------------------------------------------


async def test_a_reader_of_the_whole_journal_passes_over_nothing_that_was_committed_out_of_order(
    store: PostgresStore, beside: Any
) -> None:
    first, second = await store.join(HOST), await store.join(HOST)
    await store.append(second, entries(entry("a/0", 1)))
    slow = beside.transaction()
    await slow.start()
    await beside.execute(adapter._APPEND_ENTRIES, first, *adapter._columns([entry("a/1", 1)]))
    await store.append(second, entries(entry("a/2", 1), entry("a/3", 1)))

    begun = await store.scan(0, 10)
    await slow.commit()
    rest = await store.scan(begun[-1].position, 10)

    assert [row.entity for row in begun] == ["a/0"]
    assert [row.entity for row in rest] == ["a/1", "a/2", "a/3"]
    assert sorted(row.position for row in rest) == [row.position for row in rest]


async def test_positions_go_on_rising_on_a_server_that_a_journal_was_brought_to(
    store: PostgresStore, url: str, beside: Any
) -> None:
    host = await store.join(HOST)
    await beside.execute(
        "UPDATE journal SET base = 1000000"
    )  # as if the transactions of the former server had been so many more
    await store.append(host, entries(entry("a/1", 1)))
    (last,) = await store.scan(0, 10)
    await beside.execute("UPDATE journal SET base = 0")
    brought = PostgresStore(url)

    await brought.open(APP, SHARDS)

    await brought.append(host, entries(entry("a/1", 2)))
    assert [row.n for row in await brought.scan(last.position, 10)] == [2]
    await brought.close()


async def test_keys_are_listed_in_the_order_of_their_bytes(store: PostgresStore) -> None:
    host = await store.join(HOST)
    keys = ["a/B", "a/a", "a/_", "a/Z", "a/é", "a/1", "b/A", "a-b/1"]
    await store.append(host, Append(states={key: (key, 1, 1, b"{}", 1) for key in keys}))

    assert [row.entity for row in await store.scan_states("", 10)] == sorted(keys)


# -- opening -----------------------------------------------------------------------------------------


async def test_two_apps_share_a_database_and_see_nothing_of_each_other(store: PostgresStore, url: str) -> None:
    shop = PostgresStore(url)
    await shop.open("shop-2", 16)
    for one in (store, shop):
        assert await one.join(HOST) == 1
        await one.append(1, entries(entry("a/1", 1)))
    await store.append(1, entries(entry("a/1", 2)))

    assert (await committed(store, "a/1"), await committed(shop, "a/1")) == ([1, 2], [1])
    await shop.close()


async def test_many_that_open_an_empty_database_at_once_make_one_schema(url: str) -> None:
    stores = [PostgresStore(url) for _ in range(6)]

    await asyncio.gather(*(one.open(APP, SHARDS) for one in stores))

    assert [await one.join(HOST) for one in stores] == [1, 2, 3, 4, 5, 6]
    for one in stores:
        await one.close()


async def test_a_schema_written_by_a_newer_release_is_refused(store: PostgresStore, url: str, beside: Any) -> None:
    await beside.execute("INSERT INTO migrations VALUES (99)")
    del store
    again = PostgresStore(url)

    with pytest.raises(StoreMismatch, match=r"newer release.*upgrade Remora"):
        await again.open(APP, SHARDS)

    await again.close()


async def test_a_user_who_may_not_make_the_schema_is_told_which_right_is_missing(url: str) -> None:
    await postgres.execute(url, f"DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN PASSWORD '{SECRET}'")
    store = PostgresStore(url.replace(url.partition("@")[0], f"postgresql://clerk:{QUOTED}"))

    with pytest.raises(StoreMismatch, match="GRANT CREATE ON DATABASE"):
        await store.open(APP, SHARDS)

    name = url.rpartition("/")[2]
    await postgres.execute(url, f"GRANT CREATE ON DATABASE {name} TO clerk")
    await store.open(APP, SHARDS)
    await store.close()
    await postgres.execute(url, "DROP OWNED BY clerk; DROP ROLE clerk")


async def test_a_schema_that_an_administrator_made_is_enough(url: str) -> None:
    await postgres.execute(url, f"DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN PASSWORD '{SECRET}'")
    await postgres.execute(url, "CREATE SCHEMA remora_bank AUTHORIZATION clerk")
    store = PostgresStore(url.replace(url.partition("@")[0], f"postgresql://clerk:{QUOTED}"))

    await store.open(APP, SHARDS)

    assert await store.join(HOST) == 1
    await store.close()
    await postgres.execute(url, "DROP OWNED BY clerk; DROP ROLE clerk")


def wrong_password(url: str) -> str:
    return url.replace(url.partition("@")[0], f"postgresql://postgres:{QUOTED}")


def wrong_host(url: str) -> str:
    return f"postgresql://postgres:{QUOTED}@127.0.0.1:1/{url.rpartition('/')[2]}"


def wrong_database(url: str) -> str:
    return url.rpartition("/")[0] + "/nowhere"


@pytest.mark.parametrize("make", [wrong_password, wrong_host, wrong_database])
async def test_what_cannot_be_opened_is_refused_soon_with_the_fix_and_without_the_password(
    url: str, make: Callable[[str], str]
) -> None:
    store = open_store(make(url))

    began_s = time.perf_counter()
    with pytest.raises(StoreMismatch, match=r"Check (user, password|host and port)") as caught:
        await store.open(APP, SHARDS)

    assert time.perf_counter() - began_s < 5
    said = [*traceback.format_exception(caught.value), repr(store), str(store), store.url, repr(vars(store))]
    for text in said:
        for secret in (SECRET, QUOTED, postgres.Server.password):
            assert secret not in text
    await store.close()


@pytest.mark.parametrize(
    "bad",
    [
        "postgresql://user:hunter2/x@host/db",
        "postgresql://user:hunter2#x@host/db",
        "postgresql://user:1?hunter2=x@host/db",
        "postgresql://user:hunter2@host:hunter2/db",
        "postgresql://user:[hunter2@host/db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_repeating_any_of_it(bad: str) -> None:
    with pytest.raises(StoreMismatch, match="percent-encoded") as caught:
        open_store(bad)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value)[1:]).replace(bad, "")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        ("postgres://teller:hunter2@db.example:5433/bank", "postgresql://teller@db.example:5433/bank"),
        ("postgresql://db.example/bank?user=teller&password=hunter2", "postgresql://db.example/bank"),
        (
            "postgresql://teller:hunter2@one:1,two:2/bank?target_session_attrs=read-write",
            "postgresql://teller@one:1,two:2/bank",
        ),
        ("postgresql:///bank?host=/run/postgresql&password=hunter2", "postgresql:///run/postgresql/bank"),
        ("postgresql://teller:hunter2@[::1]:5432/bank", "postgresql://teller@[::1]:5432/bank"),
    ],
)
def test_what_a_store_shows_of_its_url_has_no_password(url: str, visible: str) -> None:
    store = open_store(url)

    assert store.url == visible
    assert "hunter2" not in repr(store) + repr(vars(store))


def test_a_driver_that_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    with pytest.raises(StoreMismatch, match=r"pip install 'remora\[postgres\]'"):
        open_store("postgresql://localhost/bank")


# -- a server that fails -----------------------------------------------------------------------------


def calls(store: PostgresStore, host: int) -> dict[str, Callable[[], Any]]:
    """Every method of the port that asks the server."""

    async def renew() -> None:
        await asyncio.to_thread(store.renew, host, 1.0)

    return {
        "append": lambda: store.append(host, entries(entry("a/1", 1))),
        "append of everything": lambda: store.append(host, general(entry("a/1", 1))),
        "load": lambda: store.load([Want("a/1", 9)]),
        "entries": lambda: store.entries("a/1", 0, 9),
        "events": lambda: store.events("a/1", 0, 9),
        "outbox": lambda: store.outbox(["0"], 9),
        "outbox_counts": store.outbox_counts,
        "parked": lambda: store.parked(9),
        "due": lambda: store.due(["0"], 9, 9),
        "remembered": lambda: store.remembered(["0"], 9),
        "schema": store.schema,
        "set_schema": lambda: store.set_schema("{}"),
        "scan": lambda: store.scan(0, 9),
        "scan_states": lambda: store.scan_states("", 9),
        "join": lambda: store.join(HOST),
        "reincarnate": lambda: store.reincarnate(host),
        "renew": renew,
        "leases": store.leases,
        "lead": store.lead,
        "read_table": store.read_table,
        "write_table": lambda: store.write_table(1, 1, [], {}),
        "release": lambda: store.release(host, ["0"]),
    }


async def test_no_error_of_the_driver_ever_escapes(store: PostgresStore, beside: Any) -> None:
    host = await store.join(HOST)
    await beside.execute("DROP SCHEMA remora_bank CASCADE")

    for name, call in calls(store, host).items():
        with pytest.raises(RemoraError) as caught:
            await call()
        assert isinstance(caught.value, StoreUnavailable), name


async def test_no_error_of_a_server_that_is_away_escapes_and_each_comes_in_bounded_time(
    server: postgres.Server,
) -> None:
    store = PostgresStore(server.url())
    await store.open(APP, SHARDS)
    host = await store.join(HOST)
    await asyncio.to_thread(server.stop, "immediate")
    wanted = calls(store, host)

    began_s = time.perf_counter()
    answers = await asyncio.gather(*(call() for call in wanted.values()), return_exceptions=True)

    assert time.perf_counter() - began_s < 8
    assert {name for name, a in zip(wanted, answers, strict=True) if not isinstance(a, StoreUnavailable)} == set()
    await asyncio.to_thread(server.start)
    await store.close()


async def test_what_the_driver_cannot_write_is_no_error_of_the_driver_either(store: PostgresStore) -> None:
    host = await store.join(HOST)

    for bad in ("a/\ud800", "a/\0"):
        for make in (entries, general):
            with pytest.raises(RemoraError):
                await store.append(host, make(entry(bad, 1)))
    with pytest.raises(RemoraError):
        await store.append(host, entries(entry("a/1", 2**70)))

    await store.append(host, entries(entry("a/1", 1)))
    assert await committed(store, "a/1") == [1]


async def test_a_read_whose_session_is_killed_fails_as_unavailable_and_the_next_one_works(
    store: PostgresStore, beside: Any, watch: Any
) -> None:
    host = await store.join(HOST)
    await store.append(host, entries(entry("a/1", 1)))
    async with beside.transaction():
        await beside.execute("LOCK TABLE marks IN ACCESS EXCLUSIVE MODE")
        load = asyncio.create_task(store.load([Want("a/1", 9)]))
        await waits_for_a_lock(watch)
        await watch.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with pytest.raises(StoreUnavailable):
            await load

    assert await committed(store, "a/1") == [1]


async def test_a_write_that_meets_a_lock_which_is_never_released_ends_before_a_lease_does(
    store: PostgresStore, beside: Any
) -> None:
    host = await store.join(HOST)
    await store.append(host, entries(entry("a/1", 1)))
    async with beside.transaction():
        await beside.execute("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")

        began_s = time.perf_counter()
        with pytest.raises(StoreUnavailable):
            await store.append(host, entries(entry("a/1", 2)))
        assert time.perf_counter() - began_s < 1.75

    await store.append(host, entries(entry("a/1", 2)))


async def test_an_append_that_its_caller_gave_up_does_not_spoil_the_next(
    store: PostgresStore, beside: Any, watch: Any
) -> None:
    host = await store.join(HOST)
    async with beside.transaction():
        await beside.execute("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")
        append = asyncio.create_task(store.append(host, entries(entry("a/1", 1))))
        await waits_for_a_lock(watch)
        append.cancel()
        await asyncio.gather(append, return_exceptions=True)

    successor = await store.reincarnate(host)
    n = len(await committed(store, "a/1")) + 1
    await store.append(successor, entries(entry("a/1", n)))
    assert await committed(store, "a/1") == list(range(1, n + 1))


async def test_a_store_is_back_by_itself_when_its_server_is(server: postgres.Server) -> None:
    store = PostgresStore(server.url())
    await store.open("restarts", SHARDS)
    host = await store.join(HOST)
    await store.append(host, entries(entry("a/1", 1)))
    for n, mode in enumerate(("fast", "immediate"), start=2):
        await asyncio.to_thread(server.stop, mode)
        with pytest.raises(StoreUnavailable):
            await store.append(host, entries(entry("a/1", n)))
        waiting = asyncio.create_task(store.append(host, entries(entry("a/1", n))))
        await asyncio.to_thread(server.start)

        began_s = time.perf_counter()
        await waiting
        assert time.perf_counter() - began_s < 1
        await asyncio.to_thread(store.renew, host, 1.0 * n)
        assert (await committed(store, "a/1"))[-1] == n
        assert await store.leases() == {host: 1.0 * n}
    await store.close()


async def test_a_crash_of_the_server_forgets_leases_and_nothing_else(server: postgres.Server) -> None:
    store = PostgresStore(server.url())
    await store.open("crashes", SHARDS)
    host = await store.join(HOST)
    await store.append(host, entries(entry("a/1", 1)))
    store.renew(host, 5.0)

    await asyncio.to_thread(server.stop, "immediate")
    await asyncio.to_thread(server.start)

    assert await committed(store, "a/1") == [1]
    assert await store.leases() == {}
    assert list((await store.read_table()).hosts) == [host]
    await store.close()


async def test_a_server_without_a_free_connection_is_unavailable_until_it_has_one(url: str) -> None:
    name = url.rpartition("/")[2]
    await postgres.execute(url, f"DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN PASSWORD '{SECRET}'")
    await postgres.execute(url, f"GRANT CREATE ON DATABASE {name} TO clerk")
    theirs = url.replace(url.partition("@")[0], f"postgresql://clerk:{QUOTED}")
    store = PostgresStore(theirs)
    await store.open(APP, SHARDS)
    await store.join(HOST)  # takes one
    await postgres.execute(url, "ALTER ROLE clerk CONNECTION LIMIT 1")

    began_s = time.perf_counter()
    with pytest.raises(StoreUnavailable, match="too many connections"):
        await store.append(1, entries(entry("a/1", 1)))
    assert time.perf_counter() - began_s < 5
    late = PostgresStore(theirs)
    with pytest.raises(StoreUnavailable, match="too many connections"):
        await late.open(APP, SHARDS)

    await postgres.execute(url, "ALTER ROLE clerk CONNECTION LIMIT -1")
    await store.append(1, entries(entry("a/1", 1)))
    await store.close()
    await late.close()
    await postgres.execute(url, "DROP OWNED BY clerk; DROP ROLE clerk")


async def test_a_server_that_only_reads_is_unavailable_for_writes_until_it_writes_again(
    store: PostgresStore, url: str, beside: Any
) -> None:
    host = await store.join(HOST)
    name = url.rpartition("/")[2]
    end_others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await beside.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await beside.execute(end_others)

    for _ in range(2):  # the first may still find out that its session was ended
        with pytest.raises(StoreUnavailable):
            await store.append(host, entries(entry("a/1", 1)))
    assert await committed(store, "a/1") == []

    await beside.execute("SET default_transaction_read_only = off")
    await beside.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await beside.execute(end_others)
    assert store._writer is not None
    await until(store._writer._connection.is_closed)
    await store.append(host, entries(entry("a/1", 1)))
    assert await committed(store, "a/1") == [1]


async def test_a_closed_store_says_that_it_is_closed(store: PostgresStore) -> None:
    host = await store.join(HOST)
    await store.close()

    for call in calls(store, host).values():
        with pytest.raises(StoreUnavailable, match="closed"):
            await call()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.open(APP, SHARDS)


def test_what_is_recorded_of_a_url_has_no_password_and_a_name_of_a_variable_stays_as_it_is() -> None:
    assert visible_url("postgresql://teller:hunter2@db/bank") == "postgresql://teller@db/bank"
    assert visible_url("env:BANK_STORE") == "env:BANK_STORE"


async def test_a_database_that_is_only_looked_into_is_left_as_it_is(url: str, watch: Any) -> None:
    with open_to_read(url) as looked_into, pytest.raises(StoreMismatch, match="no tables of the app 'bank'"):
        await looked_into.open(APP, SHARDS)
    assert await watch.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'remora_bank'") == 0

    store = PostgresStore(url)
    await store.open(APP, SHARDS)
    await store.set_schema("kept")
    await store.close()
    with open_to_read(url) as looked_into:
        await looked_into.open(APP, SHARDS)
        assert await looked_into.schema() == "kept"
        await looked_into.close()
