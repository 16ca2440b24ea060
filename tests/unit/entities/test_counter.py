import pytest

import remora
from entities.counter import ONLINE_FOR, Counter, Presence, app
from remora.clock import SystemClock
from remora.storage.memory import MemoryStore


class Wall(SystemClock):
    """The machine's clock with a wall clock that tests turn."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return 1_357_000_000_000 + self.ahead_ms

    def turn(self, seconds: float) -> None:
        self.ahead_ms += int(seconds * 1000)


async def test_a_counter_counts_up_and_starts_over() -> None:
    async with remora.local(app) as client:
        visits = client.ref(Counter, "visits")

        assert await visits.increment() == 1
        assert await visits.increment(by=4) == 5
        assert await visits.reset() == 5
        assert await visits.value() == 0


async def test_a_counter_does_not_count_down() -> None:
    async with remora.local(app) as client:
        with pytest.raises(remora.InvalidArgument, match="by"):
            await client.ref(Counter, "visits").increment(-1)


async def test_a_counter_keeps_its_value_over_a_restart_and_presence_does_not() -> None:
    store = MemoryStore()
    async with remora.local(app, store=store) as client:
        await client.ref(Counter, "visits").increment(3)
        await client.ref(Presence, "lobby").seen("ann")

    async with remora.local(app, store=store) as client:
        assert await client.ref(Counter, "visits").value() == 3
        assert await client.ref(Presence, "lobby").online() == []


async def test_people_are_online_in_the_place_where_they_were_seen_until_they_leave() -> None:
    async with remora.local(app) as client:
        lobby = client.ref(Presence, "lobby")
        await lobby.seen("bob")
        await lobby.seen("ann")

        assert await lobby.online() == ["ann", "bob"]
        assert await client.ref(Presence, "cellar").online() == []
        await lobby.left("bob")
        await lobby.left("nobody")
        assert await lobby.online() == ["ann"]


async def test_people_who_show_no_sign_of_life_go_offline() -> None:
    wall = Wall()
    async with remora.local(app, clock=wall) as client:
        lobby = client.ref(Presence, "lobby")
        await lobby.seen("ann")
        wall.turn(ONLINE_FOR.total_seconds())
        await lobby.seen("bob")
        assert await lobby.online() == ["ann", "bob"]

        wall.turn(0.001)

        assert await lobby.online() == ["bob"]


async def test_the_list_of_people_is_cleared_of_those_who_left_without_a_word() -> None:
    wall = Wall()
    async with remora.local(app, clock=wall) as client:
        lobby = client.ref(Presence, "lobby")
        await lobby.seen("ann")
        wall.turn(ONLINE_FOR.total_seconds() + 1)
        await lobby.seen("bob")

        assert list((await lobby.snapshot())["last"]) == ["bob"]
