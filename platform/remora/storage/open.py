"""From a store URL to a store."""

from __future__ import annotations

import os
from pathlib import Path

from remora.errors import StoreMismatch
from remora.journal import Store
from remora.storage.memory import MemoryStore
from remora.storage.postgres import PostgresStore
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
