"""The process around a registry: who starts an app is told how that ended, who stops it has nothing started after that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError

from entities.counter import Counter
from remora.app import App, AppSource
from remora.cluster.registry_actor import RegistryActor
from remora.errors import NotLeader, StartError, StoreUnavailable
from tests.clock import until

TERM = 3


class Standing(RegistryActor):
    """A registry that leads as soon as it stands by, and whose leading begins when the test lets it."""

    def __init__(self, other: Any = None) -> None:  # noqa: ANN401 - a handle
        super().__init__(cast("AppSource", None), "", 1, "registry")
        self._app = App("bank", entities=[Counter])
        self.other = other
        """The registry that leads."""
        self.begun: list[int] = []
        """Terms in which it began to lead; 0: somebody starts the app."""
        self.filled = 0
        """How often the hosts that are missing were started."""
        self.hosts: dict[int, str] = {1: "a host"}
        self.let = asyncio.get_running_loop().create_future()
        self.told = asyncio.Event()
        """Whether the other registry has said whether it leads."""
        self.told.set()

    async def _open(self) -> None:
        return

    async def _other_leader(self) -> Any:  # noqa: ANN401 - a handle
        await self.told.wait()
        return self.other

    def _candidate(self) -> Any:  # noqa: ANN401 - what of a registry is asked for here
        async def stand_by() -> int:
            return TERM

        async def close() -> None:
            return

        async def start_missing() -> None:
            self.filled += 1

        self._hosts = cast("Any", SimpleNamespace(step_down=lambda: None, start_missing=start_missing))
        return SimpleNamespace(
            stand_by=stand_by, close=close, app=self._app, current=SimpleNamespace(hosts=self.hosts),
            levels=SimpleNamespace(halted=""),
            startup=SimpleNamespace(stopping=False, order=self._app.order),
        )  # fmt: skip

    async def _lead(self, registry: Any, term: int, *, anew: bool) -> None:  # noqa: ANN401 - see _candidate
        assert anew == (term == 0)
        self._registry = registry
        self.begun.append(term)
        await self.let
        self._leads.set()

    async def end(self) -> None:
        await self._end_leading()


@asynccontextmanager
async def beginning(other: Any = None) -> AsyncIterator[Standing]:  # noqa: ANN401 - a handle
    """Yield a registry that has just begun to lead, because it stands by."""
    actor = Standing(other)
    task = asyncio.create_task(actor.stand_by())
    await until(lambda: actor.begun == [TERM])
    try:
        yield actor
    finally:
        task.cancel()
        await actor.end()


async def not_yet(start: "asyncio.Task[None]") -> None:
    done, _ = await asyncio.wait([start], timeout=0.01)
    assert not done, "nothing is started yet"


async def test_who_starts_the_app_while_a_registry_begins_to_lead_is_answered_when_it_does() -> None:
    async with beginning() as standing:
        start = asyncio.create_task(standing.start())
        await not_yet(start)

        standing.let.set_result(None)
        await start
        assert (standing.begun, standing.filled) == ([TERM], 0)


async def test_a_client_that_asks_while_the_app_is_being_started_makes_nobody_lead() -> None:
    standing = Standing()
    standing.told.clear()
    start = asyncio.create_task(standing.start())
    await not_yet(start)

    with pytest.raises(NotLeader):
        await standing.suspect("a host")
    standing.told.set()
    await until(lambda: standing.begun == [0])
    standing.let.set_result(None)

    await start
    assert standing.begun == [0]
    await standing.end()


async def test_who_starts_an_app_whose_registry_leads_without_a_host_has_its_hosts_started() -> None:
    async with beginning() as standing:  # because a client asked it for the table
        standing.hosts.clear()
        standing.let.set_result(None)

        await standing.start()
        assert (standing.begun, standing.filled) == ([TERM], 1)


async def test_who_starts_the_app_while_a_registry_fails_to_lead_has_it_started() -> None:
    async with beginning() as standing:
        start = asyncio.create_task(standing.start())
        await not_yet(start)

        failing, standing.let = standing.let, asyncio.get_running_loop().create_future()
        standing.let.set_result(None)
        failing.set_exception(StoreUnavailable("disk is full"))

        await start
        assert standing.begun == [TERM, 0]
        assert await standing.leads()


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "silent"])
async def test_a_start_does_not_wait_for_a_registry_that_led_and_is_lost_but_for_the_one_that_follows_it(
    *, lost: bool
) -> None:
    async def start(*_: object) -> None:
        if lost:
            raise ActorDiedError
        await asyncio.Event().wait()

    standing = Standing(SimpleNamespace(start=SimpleNamespace(remote=start)))
    starting = asyncio.create_task(standing.start())
    await until(lambda: standing.begun == [TERM])
    await not_yet(starting)
    standing.let.set_result(None)

    await starting
    assert await standing.leads()
    await standing.end()


async def test_what_is_stopped_starts_no_host_and_no_other_registry_any_more_also_without_an_order() -> None:
    async with beginning() as standing:
        standing.let.set_result(None)
        await standing.start()

        assert await standing.stop() == []
        with pytest.raises(StartError, match="bank is being stopped"):
            await standing.start()
