"""Stores and processes of the crash tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.crash.lives import Life


@pytest.fixture(params=["sqlite", "postgres"])
async def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The store of a test, empty."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/crash.db"
    else:
        url = await postgres.fresh_database()
        yield url
        await postgres.drop_database(url)


class Lives:
    """Starts processes on a store; what still runs at the end of the test is killed."""

    def __init__(self, store_url: str, folder: Path) -> None:
        self.store_url = store_url
        self._folder = folder
        self._all: list[Life] = []

    def ready(self, name: str, *options: str) -> Life:
        """Return a process that has loaded all it needs and waits to begin."""
        life = Life(self.store_url, self._folder / f"{name}.socket", name, *options)
        self._all.append(life)
        return life

    def begun(self, name: str, *options: str) -> Life:
        life = self.ready(name, *options)
        life.begin()
        return life

    def end(self) -> None:
        for life in self._all:
            life.kill()


@pytest.fixture
def lives(store_url: str, tmp_path: Path) -> Iterator[Lives]:
    started = Lives(store_url, tmp_path)
    yield started
    started.end()
