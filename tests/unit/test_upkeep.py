"""The processes of supervisors: what Ray may restart by itself, and what is done above it, by declared rules."""

import asyncio
import random

import pytest

from remora import App, Backoff, StartError, Supervision, on
from remora.cluster.registry_actor import registry_options
from remora.errors import RemoraError
from remora.runtime.upkeep import Upkeep
from remora.supervision.decisions import History, decide
from remora.supervision.levels import HOST_DEFAULTS, HOST_DIED, SUPERVISOR_DEFAULTS, SUPERVISOR_DIED
from remora.supervision.restarts import UNLIMITED, restarts_at_once
from remora.supervision.rules import Rules
from remora.testing import ManualClock
from tests.clock import turns, until
from tests.unit.test_supervisor import Foreman, Job

AT_ONCE = Backoff(min_s=0)
DIED = SUPERVISOR_DIED


@pytest.mark.parametrize(
    ("rules", "restarts"),
    [
        ((on(DIED).restart(AT_ONCE),), UNLIMITED),
        ((on(DIED).restart(AT_ONCE, at_most=4),), 4),
        ((on(DIED).restart(AT_ONCE, at_most=0),), 0),
        ((on(DIED).restart(Backoff(first_s=0, min_s=1, max_s=2)),), 1),
        ((on(DIED).restart(Backoff(min_s=1)),), 0),
        ((on(DIED).stop(),), 0),
        ((on("Other").stop(), on(DIED).restart(AT_ONCE, at_most=2)), 2),
        ((), 0),
        (SUPERVISOR_DEFAULTS, 1),
    ],
)
def test_ray_is_left_what_needs_no_pause(rules: Rules, restarts: int) -> None:
    assert restarts_at_once(rules, DIED, {}, 0.0) == restarts


def test_what_was_used_of_a_limit_is_not_left_to_ray_again() -> None:
    rules = (on(DIED).restart(AT_ONCE, at_most=3),)
    history: History = {}
    for left in (3, 2, 1, 0):
        assert restarts_at_once(rules, DIED, history, 1.0) == left
        _, history = decide(rules, (DIED,), history, 1.0, random.Random(1))
    assert restarts_at_once(rules, DIED, history, 100.0) == 3, "the window is over"


def test_the_registry_is_restarted_without_end_and_no_call_of_ours_is_repeated_by_ray() -> None:
    options = registry_options("remora/bank/registry")
    assert (options["max_restarts"], options["max_task_retries"]) == (UNLIMITED, 0)


def test_the_actor_of_a_dedicated_entity_is_left_to_ray_once_where_nothing_is_declared() -> None:
    assert restarts_at_once(HOST_DEFAULTS, HOST_DIED, {}, 0.0) == 1


class Actors:
    """Processes that start and end when the test says."""

    def __init__(self) -> None:
        self.started: list[tuple[int, str]] = []
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self.refuse: list[RemoraError] = []

    async def stand(self, name: str, *, restarts: int, avoid: str) -> tuple[str, int]:
        assert name == "foreman"
        self.started.append((restarts, avoid))
        if self.refuse:
            raise self.refuse.pop(0)
        return f"node-{len(self.started)}", len(self.started)

    async def ended(self, name: str) -> str:
        assert name == "foreman"
        return await self.ends.get()


def _upkeep(actors: Actors, *rules: object, clock: ManualClock | None = None) -> Upkeep:
    supervision = Supervision.model_validate({"supervisor": rules})
    app = App("works", entities=[Job], supervisors=[Foreman], supervision=supervision)
    return Upkeep(app, "foreman", actors, clock or ManualClock())


async def test_a_supervisor_that_ended_is_started_again_on_another_node_from_the_second_time_on() -> None:
    actors = Actors()
    upkeep = _upkeep(actors, on(DIED).restart(Backoff(first_s=0, min_s=0.01, max_s=0.02)))
    running = asyncio.create_task(upkeep.run())
    await until(lambda: upkeep.told()["state"] == "up")

    for end in ("killed", "killed again"):
        actors.ends.put_nowait(end)
        await until(lambda: upkeep.told()["state"] == "up" and actors.ends.empty())
        await turns()
    await until(lambda: len(actors.started) == 3)
    await turns()

    assert actors.started == [(1, ""), (0, ""), (0, "node-2")]
    assert upkeep.told() == {
        "name": "foreman", "state": "up", "node": "node-3", "pid": 3, "restarts": 2, "because": "killed again"
    }  # fmt: skip
    running.cancel()


async def test_one_that_cannot_start_is_tried_by_the_rules_for_that_then_not_at_all() -> None:
    actors = Actors()
    actors.refuse = [StartError("It raised.") for _ in range(9)]
    upkeep = _upkeep(actors, on(StartError).restart(Backoff(min_s=0.001, max_s=0.002), at_most=2))

    await asyncio.wait_for(upkeep.run(), 5)

    assert len(actors.started) == 3
    assert upkeep.told()["state"] == "stopped"
    assert upkeep.told()["because"] == "its supervision rules say stop, after: It raised."


async def test_after_an_hour_without_a_failure_it_is_started_at_once_again() -> None:
    actors, clock = Actors(), ManualClock()
    upkeep = _upkeep(actors, on(DIED).restart(Backoff(first_s=0, min_s=500, max_s=500)), clock=clock)
    running = asyncio.create_task(upkeep.run())
    for count in (2, 3):
        actors.ends.put_nowait("killed")
        await until(lambda count=count: len(actors.started) == count)  # type: ignore[misc]  # a default freezes the loop variable
        clock.advance(3600.0)
    assert [avoid for _, avoid in actors.started] == ["", "", ""]
    running.cancel()


def test_a_supervisor_is_restarted_or_stopped_and_nothing_else() -> None:
    with pytest.raises(ValueError, match="a process is restarted or stopped"):
        Supervision(supervisor=(on(DIED).resume(),))
