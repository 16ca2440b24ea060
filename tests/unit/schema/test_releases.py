"""Callers and hosts of two releases of one app: a type's name and its commands are what they have in common."""

from typing import Any

import pytest
from pydantic import BaseModel

from remora import App, Durable, InvalidArgument, Settings, UnknownCommand, command
from tests.platforms import move, running

SETTINGS = Settings(shards=4, rebalance_s=10**6)


class Sum(BaseModel):
    total: int = 0


def former_release() -> Any:  # noqa: ANN401 - one of two classes of one name
    """Return the type as it was."""

    class Jar(Durable[Sum]):
        @command
        async def add(self, amount: int) -> int:
            self.state.total += amount
            return self.state.total

    return Jar


def next_release() -> Any:  # noqa: ANN401 - the other
    """Return the type as it is: it takes a note, and can be emptied."""

    class Jar(Durable[Sum]):
        @command
        async def add(self, amount: int, note: str = "") -> int:
            self.state.total += amount + len(note)
            return self.state.total

        @command
        async def clear(self) -> None:
            self.state.total = 0

    return Jar


async def test_24_a_caller_of_the_former_release_reaches_hosts_of_the_next_one_before_and_after_a_move() -> None:
    former, app = former_release(), App("jars", entities=[next_release()], settings=SETTINGS)
    async with running(app, hosts=2) as (platform, client):
        assert await client.ref(former, "a").add(1) == 1
        await move(platform, "jar/a")
        assert await client.ref(former, "a").add(1) == 2


async def test_24_a_caller_of_the_next_release_is_understood_by_hosts_of_the_former_as_far_as_they_know_the_words() -> (
    None
):
    later, app = next_release(), App("jars", entities=[former_release()], settings=SETTINGS)
    async with running(app, hosts=2) as (_, client):
        with pytest.raises(InvalidArgument, match="note"):
            await client.ref(later, "a").add(1, note="x")
        with pytest.raises(UnknownCommand):
            await client.ref(later, "a").clear()
