"""The stores that ship, held to the contract of all stores, and what is each one's own."""

# ruff: noqa: SLF001 - tables are broken by hand

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from remora.errors import Fenced, RemoraError, StoreMismatch, StoreUnavailable
from remora.journal import Want
from remora.storage.memory import MemoryStore
from remora.storage.open import open_store
from remora.storage.sqlite import SqliteStore
from remora.testing.store_suite import MakeStore, StoreContract
from remora.testing.store_suite.rows import APP, HOST, SHARDS, committed, entry, numbers


class TestStores(StoreContract):
    """Every store that Remora ships, made by the fixture of this folder."""

    @pytest.fixture
    def make_store(self, make_store: MakeStore) -> MakeStore:
        return make_store


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "bank.db")
    await made.open(APP, SHARDS)
    yield made
    await made.close()


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
    await break_tables(sqlite, "entries", "outbox", "reminders", "remembered", "shards", "meta")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "append": lambda: sqlite.append(host, numbers([entry("a/1", 1)])),
        "load": lambda: sqlite.load([Want("a/1", 9)]),
        "events": lambda: sqlite.events("a/1", 0, 9),
        "outbox": lambda: sqlite.outbox(["0"], 9),
        "outbox_counts": sqlite.outbox_counts,
        "due": lambda: sqlite.due(["0"], 9, 9),
        "remembered": lambda: sqlite.remembered(["0"], 9),
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
