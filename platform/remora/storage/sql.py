"""What the stores on SQL databases share: numbered migrations, whose store it is, rows as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from remora.errors import Fenced, StoreMismatch

_encode = msgspec.json.Encoder().encode
SCHEMAS = Path(__file__).parent / "schema"


def migrations(database: str) -> list[Path]:
    """Return the scripts that make a schema, in order; the number that a name begins with is its version."""
    return sorted((SCHEMAS / database).glob("*.sql"))


def newest(database: str) -> int:
    """Return the version of the schema that this release works with."""
    return int(migrations(database)[-1].name[:4])


def check_identity(url: str, meta: Mapping[str, str], app: str, shards: int) -> None:
    """Refuse a store that was made for another app or shard count.

    Args:
        url: The store, as it may be shown.
        meta: What the store says of itself.
        app: Name of the app that opens it.
        shards: That app's shard count.

    Raises:
        StoreMismatch: With what the store holds.
    """
    if meta["app"] != app:
        msg = f"{url} belongs to the app {meta['app']!r}, not {app!r}: give each app a store of its own."
        raise StoreMismatch(msg)
    if meta["shards"] != str(shards):
        msg = (
            f"{url} was created with {meta['shards']} shards, the app asks for {shards}: "
            f"the count is fixed at creation; set Settings(shards={meta['shards']}) or use a new store."
        )
        raise StoreMismatch(msg)


def newer_release(url: str, version: int, known: int) -> StoreMismatch:
    """Return the error about a store whose schema this release does not know."""
    return StoreMismatch(
        f"{url} was written by a newer release (schema {version}, this one knows {known}): upgrade Remora."
    )


def rows_as_json(rows: Sequence[tuple[Any, ...]]) -> str | None:
    """Return rows as one JSON array. Payloads become quoted texts: none can spoil the rows beside it."""
    if not rows:
        return None
    return _encode([[cell.decode() if type(cell) is bytes else cell for cell in row] for row in rows]).decode()


def term_ended(term: int, current: int) -> Fenced:
    """Return the error about a leader whose term is over."""
    return Fenced(f"Leader term {term} has ended: a registry of term {current} leads.")
