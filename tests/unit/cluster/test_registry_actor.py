"""The process around a registry: who starts the app is told how that ended."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from remora.app import AppSource
from remora.cluster.registry_actor import RegistryActor
from remora.errors import StoreUnavailable
from tests.clock import until

TERM = 3


class Standing(RegistryActor):
    """A registry that leads as soon as it stands by, and whose leading begins when the test lets it."""

    def __init__(self) -> None:
        super().__init__(cast("AppSource", None), "", 1, "registry")
        self.begun: list[int] = []
        """Terms in which it began to lead; 0: somebody starts the app."""
        self.let = asyncio.get_running_loop().create_future()

    async def _open(self) -> None:
        return

    async def _other_leader(self) -> None:
        return

    def _candidate(self) -> Any:  # noqa: ANN401 - what of a registry is asked for here
        async def stand_by() -> int:
            return TERM

        async def close() -> None:
            return

        self._hosts = cast("Any", SimpleNamespace(step_down=lambda: None))
        return SimpleNamespace(
            stand_by=stand_by, close=close, levels=SimpleNamespace(halted=""), startup=SimpleNamespace(stopping=False)
        )

    async def _lead(self, registry: Any, term: int, *, anew: bool) -> None:  # noqa: ANN401 - see _candidate
        assert anew == (term == 0)
        self._registry = registry
        self.begun.append(term)
        await self.let
        self._leads.set()

    async def end(self, standing: asyncio.Task[None]) -> None:
        standing.cancel()
        await self._end_leading()


@pytest.fixture
async def standing() -> AsyncIterator[Standing]:
    """A registry that has just begun to lead."""
    actor = Standing()
    task = asyncio.create_task(actor.stand_by())
    await until(lambda: actor.begun == [TERM])
    yield actor
    await actor.end(task)


async def test_who_starts_the_app_while_a_registry_begins_to_lead_is_answered_when_it_does(standing: Standing) -> None:
    start = asyncio.create_task(standing.start())
    done, _ = await asyncio.wait([start], timeout=0.01)
    assert not done, "nothing is started yet"

    standing.let.set_result(None)
    await start
    assert standing.begun == [TERM]


async def test_who_starts_the_app_while_a_registry_fails_to_lead_has_it_started(standing: Standing) -> None:
    start = asyncio.create_task(standing.start())
    await asyncio.wait([start], timeout=0.01)

    failing, standing.let = standing.let, asyncio.get_running_loop().create_future()
    standing.let.set_result(None)
    failing.set_exception(StoreUnavailable("disk is full"))

    await start
    assert standing.begun == [TERM, 0]
    assert await standing.leads()
