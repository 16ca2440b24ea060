"""Every store that ships: what is parametrised over them runs on each."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from remora.storage.memory import MemoryStore
from remora.storage.open import open_store
from remora.testing.store_suite import MakeStore
from tests import postgres


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    """Yield what makes a store object, not opened, on data that is empty at first; each call on the same data."""
    if request.param == "memory":
        only = MemoryStore()
        yield lambda: only
    elif request.param == "sqlite":
        yield partial(open_store, f"sqlite:///{tmp_path / 'bank.db'}")
    else:
        url = await postgres.fresh_database()
        yield partial(open_store, url)
        await postgres.drop_database(url)
