"""The registry's way to hosts: it finds those of the one before it, ends none for being slow, and hears what took one down."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from entities.counter import Counter
from remora.app import App, AppSource
from remora.cluster import host_calls, ray_hosts
from remora.cluster.ray_hosts import NEIGHBOURS_ASKED, WORDS_AFTER_S, RayHosts
from remora.errors import HostGone, NotLeader
from remora.process import machine_identity
from remora.runtime.blackbox import LastWords
from remora.runtime.quarantine import HEARD_S
from remora.runtime.registry import Registry
from remora.sharding.table import HostRow
from tests.clock import until

BANK = App("bank", entities=[Counter])
ROWS = [HostRow(number, f"remora/bank/host/{number}/{number}-1", pid=number, started=1.0) for number in (1, 2)]


@dataclass
class Cluster:
    """Actors as Ray has them, and what the registry that leads hears of hosts."""

    actors: dict[str, Any] = field(default_factory=dict)
    died: list[int] = field(default_factory=list)
    reported: list[int] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    watch: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(suspicions={}, held=set()))
    hosts: dict[int, HostRow] = field(default_factory=lambda: {row.incarnation: row for row in ROWS})

    def has(self, *rows: HostRow) -> None:
        self.hosts.clear()
        self.hosts.update((row.incarnation, row) for row in rows)

    def stands(self, row: HostRow, start: Any) -> None:  # noqa: ANN401 - a coroutine function
        self.actors[row.name] = SimpleNamespace(start=SimpleNamespace(remote=start))

    def spawn(self, work: Any) -> asyncio.Task[None]:  # noqa: ANN401 - any coroutine
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def hear(self, number: int, because: str, *, proven: bool) -> None:
        assert because
        assert not proven
        self.died.append(number)

    async def suspect(self, number: int, because: str) -> None:
        assert "does not answer this registry yet" in because
        self.reported.append(number)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    one = Cluster()

    async def names(prefix: str) -> set[str]:
        return {name for name in one.actors if name.startswith(prefix)}

    async def find(name: str) -> Any:  # noqa: ANN401 - a handle
        if name not in one.actors:
            raise HostGone(name)
        return one.actors[name]

    async def end(name: str) -> None:
        one.actors.pop(name, None)
        one.ended.append(name)

    monkeypatch.setattr(ray_hosts, "actors", names)
    monkeypatch.setattr(ray_hosts, "end_actor", end)
    for module in (host_calls, ray_hosts):
        monkeypatch.setattr(module, "find_actor", find)
    monkeypatch.setattr(ray_hosts, "WATCH_AGAIN_S", 0.001)
    monkeypatch.setattr(ray_hosts, "ASK_S", 0.01)
    monkeypatch.setattr(RayHosts, "_begin_watch", lambda _, row: one.watched.append(row.name))
    return one


@pytest.fixture
def hosts(cluster: Cluster) -> RayHosts:
    found = RayHosts(BANK, cast("AppSource", None), "", 2)
    found.registry = cast(
        "Registry",
        SimpleNamespace(
            spawn=cluster.spawn,
            term=2,
            current=SimpleNamespace(hosts=cluster.hosts),
            detection=SimpleNamespace(died=cluster.hear, reported=cluster.suspect, watch=cluster.watch),
        ),
    )
    return found


def answers(row: HostRow) -> Any:  # noqa: ANN401 - a coroutine function
    async def start() -> HostRow:
        return row

    return start


async def test_a_host_that_does_not_answer_yet_is_not_given_up_and_is_watched_once_it_does(
    cluster: Cluster, hosts: RayHosts
) -> None:
    free = asyncio.Event()

    async def busy() -> HostRow:
        await free.wait()
        return ROWS[0]

    cluster.stands(ROWS[0], busy)
    cluster.stands(ROWS[1], answers(ROWS[1]))

    await hosts.attach(ROWS)
    assert cluster.watched == [ROWS[1].name]

    free.set()
    await asyncio.gather(*cluster.tasks)
    assert cluster.watched == [ROWS[1].name, ROWS[0].name]
    assert cluster.died == []


async def test_a_host_that_ray_does_not_reach_is_suspected_and_asked_again_until_it_is_given_up(
    cluster: Cluster, hosts: RayHosts
) -> None:
    asked = 0

    async def away() -> HostRow:
        nonlocal asked
        asked += 1
        if asked == 3:
            del cluster.hosts[1]  # its lease is over
        msg = "no connection"
        raise ActorUnavailableError(msg, b"1" * 16)

    cluster.stands(ROWS[0], away)
    cluster.stands(ROWS[1], answers(ROWS[1]))

    await hosts.attach(ROWS)
    await asyncio.gather(*cluster.tasks)

    assert asked == 3
    assert cluster.reported == [1, 1, 1]
    assert cluster.died == []
    assert cluster.watched == [ROWS[1].name]


async def test_a_host_without_an_actor_is_lost_and_one_that_was_begun_by_a_former_registry_is_ended(
    cluster: Cluster, hosts: RayHosts
) -> None:
    for name in (ROWS[1].name, "remora/bank/host/3/1-9", "remora/bank/host/3/2-1", "remora/bank/registry"):
        cluster.actors[name] = SimpleNamespace()

    assert await hosts.look(ROWS) == [ROWS[0]]
    assert cluster.ended == ["remora/bank/host/3/1-9"], "not the one that was begun in this term"


async def test_a_host_that_ended_or_was_restarted_has_died(cluster: Cluster, hosts: RayHosts) -> None:
    third = HostRow(3, "remora/bank/entity/a/1", pid=3, started=1.0, dedicated="a/1")
    cluster.hosts[3] = third

    async def ended() -> HostRow:
        raise ActorDiedError

    cluster.stands(ROWS[1], ended)
    cluster.stands(third, answers(HostRow(4, third.name, pid=4, started=2.0, dedicated="a/1")))

    await hosts.attach([ROWS[1], third])
    await asyncio.gather(*cluster.tasks)

    assert sorted(cluster.died) == [2, 3]
    assert cluster.watched == []


async def test_a_host_that_took_a_new_incarnation_meanwhile_is_the_same_process_and_stays(
    cluster: Cluster, hosts: RayHosts
) -> None:
    cluster.stands(ROWS[0], answers(HostRow(7, ROWS[0].name, pid=1, started=1.0)))

    await hosts.attach(ROWS[:1])
    await asyncio.gather(*cluster.tasks)

    assert (cluster.watched, cluster.died) == ([ROWS[0].name], [])


async def test_all_hosts_of_the_table_are_shown_those_too_that_were_not_found_again_yet_or_have_no_actor(
    cluster: Cluster, hosts: RayHosts
) -> None:
    async def counters() -> dict[str, Any]:
        return {"name": ROWS[0].name, "live": 7}

    cluster.actors[ROWS[0].name] = SimpleNamespace(status=SimpleNamespace(remote=counters))

    assert await hosts.statuses() == [
        {"name": ROWS[0].name, "live": 7},
        {"name": ROWS[1].name, "error": ROWS[1].name},  # as `find` says it here
    ]


# -- entities with a host of their own ------------------------------------------------------------------


async def test_who_waits_for_an_entitys_host_no_longer_ends_it_for_nobody_else_and_a_registry_that_leads_no_more_says_so(
    hosts: RayHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    async def dedicate(_: RayHosts, key: str) -> None:
        begun.append(key)
        await asyncio.Event().wait()

    monkeypatch.setattr(RayHosts, "_dedicate", dedicate)
    impatient, patient = (asyncio.create_task(hosts.dedicate("a/1")) for _ in range(2))
    await until(lambda: begun == ["a/1"])

    impatient.cancel()
    await asyncio.wait([impatient])
    done, _ = await asyncio.wait([patient], timeout=0.01)
    assert not done

    hosts.step_down()
    with pytest.raises(NotLeader, match="starts a/1"):
        await patient
    with pytest.raises(NotLeader, match="starts a/1"):
        await hosts.dedicate("a/1")
    assert begun == ["a/1"]


# -- what a host left behind ---------------------------------------------------------------------------

HERE, THERE = machine_identity(), "another machine"
AWAY = [HostRow(number, f"remora/bank/host/{number}/{number}-1", machine=THERE, pid=number) for number in (1, 2)]


async def test_what_a_host_of_another_machine_left_is_read_by_a_host_beside_it(
    cluster: Cluster, hosts: RayHosts
) -> None:
    cluster.has(*AWAY)

    async def read(pid: int, started: float) -> LastWords:
        assert (pid, started) == (1, 0.0)
        return LastWords("Segmentation fault", ("counter/a", "add"))

    cluster.actors[AWAY[1].name] = SimpleNamespace(last_words=SimpleNamespace(remote=read))

    assert hosts.near(AWAY[0])
    cluster.watch.held = {2}
    assert not hosts.near(AWAY[0]), "it may be gone too"
    cluster.watch.held = set()
    assert await hosts.last_words(AWAY[0]) == LastWords("Segmentation fault", ("counter/a", "add"))


@pytest.mark.parametrize("beside", [1, 2, 3])
async def test_those_asked_what_took_a_host_down_share_the_time_there_is(
    cluster: Cluster, hosts: RayHosts, monkeypatch: pytest.MonkeyPatch, beside: int
) -> None:
    rows = [HostRow(n, f"remora/bank/host/{n}/{n}-1", machine=THERE, pid=n) for n in range(beside + 1)]
    cluster.has(*rows)
    given: list[float] = []

    async def tell(_: object, host: HostRow, *__: object, within_s: float) -> LastWords:
        given.append(within_s)
        if len(given) < min(beside, NEIGHBOURS_ASKED):
            raise HostGone(host.name)
        return LastWords("Aborted", None)

    monkeypatch.setattr(host_calls.HostCalls, "tell", tell)

    assert await hosts.last_words(rows[0]) == LastWords("Aborted", None)
    assert given == [HEARD_S / len(given)] * min(beside, NEIGHBOURS_ASKED)


async def test_nobody_is_near_a_host_that_was_alone_on_another_machine(cluster: Cluster, hosts: RayHosts) -> None:
    alone = msgspec.structs.replace(AWAY[1], machine="a third")
    cluster.has(AWAY[0], alone)

    assert not hosts.near(AWAY[0])
    assert hosts.near(msgspec.structs.replace(AWAY[0], machine=HERE)), "the registry is"


async def test_where_no_host_beside_it_answers_a_task_is_started_but_only_after_the_survivors_had_their_time(
    cluster: Cluster, hosts: RayHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.has(*AWAY)
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    async def words() -> LastWords:
        assert paused == [WORDS_AFTER_S]
        return LastWords("Aborted", None)

    task = SimpleNamespace(remote=lambda *_: words())
    monkeypatch.setattr(ray_hosts, "_LAST_WORDS", SimpleNamespace(options=lambda **_: task))
    monkeypatch.setattr(ray_hosts, "asyncio", SimpleNamespace(sleep=pause, timeout=asyncio.timeout))

    assert await hosts.last_words(AWAY[0]) == LastWords("Aborted", None)
