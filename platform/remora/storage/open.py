"""From a store URL to a store."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from remora.errors import StoreMismatch
from remora.journal import Store
from remora.storage.memory import MemoryStore
from remora.storage.postgres import PostgresStore
from remora.storage.sql import newest
from remora.storage.sqlite import SqliteStore


def open_store(url: str) -> Store:
    """Return the store a URL names; it still has to be opened.

    Args:
        url: ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``,
            ``postgresql://user:password@host:port/database``, ``memory://``, or ``env:NAME`` for a URL
            that an environment variable holds (secrets stay out of files).

    Raises:
        StoreMismatch: No adapter for it, or the variable is not set.
    """
    if url.startswith("env:"):
        name = url.removeprefix("env:")
        value = os.environ.get(name)
        if not value:
            msg = f"The store is to come from the environment variable {name}, which is not set: set it to a store URL."
            raise StoreMismatch(msg)
        url = value
    if url == "memory://":
        return MemoryStore()
    path = url.removeprefix("sqlite:///")
    if path != url and path:
        return SqliteStore(Path(path))
    scheme = url.partition(":")[0]
    if scheme in {"postgresql", "postgres"} and "://" in url:
        return PostgresStore(url)
    msg = f"No store adapter for {scheme!r}: use sqlite:///PATH, postgresql://… or memory://."
    raise StoreMismatch(msg)


def visible_url(url: str) -> str:
    """Return a store URL as it may be shown and recorded: without a password."""
    return url if url.startswith("env:") else open_store(url).url


@contextmanager
def open_to_read(url: str) -> Iterator[Store]:
    """Give a store that is only looked into, so that neither is one made nor an older one brought up to this release.

    The release that runs on it could not open it any more. So an SQLite store whose tables are older is
    copied, and the copy is given; on PostgreSQL it is refused when it is opened.

    Args:
        url: As for ``open_store``.

    Raises:
        StoreMismatch: No adapter for it, or nothing is there.
    """
    store = open_store(url)
    if isinstance(store, PostgresStore):
        store.migrates = False
    if not isinstance(store, SqliteStore):
        yield store
        return
    if not store.path.is_file():
        msg = f"There is no store at {store.url}: correct the path."
        raise StoreMismatch(msg)
    with tempfile.TemporaryDirectory(prefix="remora-") as folder:
        try:
            with closing(sqlite3.connect(f"{store.path.as_uri()}?mode=ro", uri=True)) as connection:
                present = connection.execute("PRAGMA user_version").fetchone()[0]
                if present < newest("sqlite"):
                    copy = Path(folder) / store.path.name
                    with closing(sqlite3.connect(copy)) as target:
                        connection.backup(target)
                    store = SqliteStore(copy)
        except sqlite3.Error as error:
            msg = f"Cannot read the store {store.url}: {error}. Give the path of a Remora database."
            raise StoreMismatch(msg) from error
        yield store
