"""Handlers that compute or block: in threads of their own, or found and named."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

import remora
from remora import (
    App,
    ContractError,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    HandlerFailed,
    Settings,
    command,
    query,
)
from remora.runtime.watchdog import Running, Watchdog
from tests import platforms, things
from tests.clock import until
from tests.platforms import host_of
from tests.things import Boom

GO: dict[str, threading.Event] = {}
IN: dict[str, threading.Event] = {}
LIMIT_S = 5.0
"""Bound of every wait in a thread, so that a test that fails does not hang."""


class Sum(BaseModel):
    total: int = 0
    parts: list[int] = []


class Added(Event):
    amount: int


def wait(name: str) -> None:
    IN[name].set()
    assert GO[name].wait(LIMIT_S)


class Solver(EventSourced[Sum, Added]):
    """Computes in a thread."""

    options = EntityOptions(deadline_s=4.0)

    @command(run_in="thread")
    async def solve(self, amount: int, name: str = "") -> str:
        if name:
            wait(name)
        self.emit(Added(amount=amount))
        return threading.current_thread().name

    @command(run_in="thread")
    async def solve_and_raise(self, amount: int) -> None:
        self.emit(Added(amount=amount))
        raise Boom

    @command(run_in="thread")
    async def leave(self) -> None:
        raise SystemExit(3)

    @command
    async def add(self, amount: int) -> int:
        self.emit(Added(amount=amount))
        return self.state.total

    @command
    async def hog(self, name: str) -> None:
        wait(name)

    @command
    async def hog_between_awaits(self, name: str) -> None:
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
        wait(name)

    @query(run_in="thread")
    async def total(self) -> int:
        return self.state.total

    def apply(self, event: Added) -> None:
        self.state.total += event.amount
        self.state.parts.append(event.amount)


app = App("solvers", entities=[Solver], settings=Settings(shards=8, blocked_s=0.05, threads_max=2))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    things.forget()
    for events in (GO, IN):
        events.clear()
        events.update((name, threading.Event()) for name in "abc")
    yield
    for event in GO.values():
        event.set()


async def test_a_handler_in_a_thread_leaves_the_loop_to_others_and_is_alone_in_its_entity() -> None:
    async with platforms.running(app) as (platform, client):
        one, other = client.ref(Solver, "one"), client.ref(Solver, "other")
        solving = asyncio.ensure_future(one.solve(5, "a"))
        await until(IN["a"].is_set)
        assert await other.add(1) == 1
        behind = asyncio.ensure_future(one.add(1))
        assert not behind.done()

        GO["a"].set()

        assert (await solving).startswith("remora-handler")
        assert (await behind, await one.total()) == (6, 6)
        await platform.crash(host_of(platform, "solver/one").name)
        assert await one.total() == 6


async def test_a_handler_in_a_thread_that_raises_leaves_nothing() -> None:
    async with platforms.running(app) as (_, client):
        solver = client.ref(Solver, "s")
        await solver.add(1)
        with pytest.raises(HandlerFailed, match="Boom"):
            await solver.solve_and_raise(5)
        with pytest.raises(HandlerFailed, match="exit"):
            await solver.leave()

        assert await solver.total() == 1


async def test_what_a_thread_does_after_its_deadline_reaches_nothing() -> None:
    async with platforms.running(app) as (_, client):
        solver = client.ref(Solver, "s")
        await solver.add(1)
        with pytest.raises(remora.DeadlineExceeded):
            await solver.with_options(command_id="late", deadline_s=0.1).solve(5, "a")
        assert await solver.total() == 1

        GO["a"].set()
        assert await solver.add(1) == 2
        assert [event["data"]["amount"] for event in await solver.history()] == [1, 1]
        await solver.with_options(command_id="late").solve(5, "a")
        assert await solver.total() == 7


async def test_no_more_threads_run_at_once_than_are_allowed() -> None:
    async with platforms.running(app) as (_, client):
        solving = [asyncio.ensure_future(client.ref(Solver, name).solve(1, name)) for name in "abc"]
        await until(lambda: sum(event.is_set() for event in IN.values()) == 2)
        assert not all(event.is_set() for event in IN.values())

        for event in GO.values():
            event.set()
        await asyncio.gather(*solving)


def test_a_handler_that_is_to_run_in_a_thread_cannot_await() -> None:
    with pytest.raises(ContractError, match="is to run in a thread and awaits"):

        class Waits(Durable[Sum]):
            @command(run_in="thread")
            async def wait(self) -> None:
                await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop

    with pytest.raises(ContractError, match="runs in 'loop' or in a 'thread'"):
        command(run_in="process")  # type: ignore[call-overload]  # that is the point


async def test_many_handlers_behind_each_other_that_keep_the_loop_together_are_none_to_be_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = Running()
    watchdog = Watchdog(running, Settings(blocked_s=0.05))
    watchdog.start()
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while len(seen) < 20:
            seen.append(watchdog.glance().entity)
            done.wait(0.01)
        done.set()

    with caplog.at_level(logging.WARNING):
        running.entity, running.method = "solver/s", "add"
        thread = threading.Thread(target=look)
        thread.start()
        while not done.is_set():  # the loop does not turn here
            running.runs += 1
        thread.join(LIMIT_S)
    watchdog.stop()

    assert (set(seen), watchdog.blocked, caplog.messages) == ({""}, 0, [])


@pytest.mark.parametrize("method", ["hog", "hog_between_awaits"])
async def test_a_handler_that_neither_ends_nor_awaits_is_named_with_its_line_and_costs_no_lease(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Freed(logging.Handler):
        """Ends the blockade once it has been reported."""

        def emit(self, record: logging.LogRecord) -> None:
            reported.append(record.getMessage())
            GO["a"].set()

    reported: list[str] = []
    logger = logging.getLogger("remora.watchdog")
    logger.addHandler(freed := Freed())
    try:
        with caplog.at_level(logging.WARNING):
            async with platforms.running(app) as (platform, client):
                await getattr(client.ref(Solver, "s"), method)("a")
                host = host_of(platform, "solver/s")
                assert host.watchdog.blocked == host.status()["blocked"] == 1
                assert host.may_answer(host.clock.monotonic_s())
    finally:
        logger.removeHandler(freed)

    (message,) = reported
    assert message.startswith(f"solver/s.{method} has kept its host from everything else for 0.")
    assert "GO[name].wait(LIMIT_S)" in message
