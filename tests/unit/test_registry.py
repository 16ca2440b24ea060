"""The registry at work on a store and hosts that a test holds in its hands: who leads, whom it gives up, what it moves."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from remora import (
    App,
    Backoff,
    CannotDrain,
    EntityOptions,
    External,
    HostGroup,
    LeastShards,
    Rule,
    Settings,
    StartError,
    Supervision,
    UnknownNode,
    on,
)
from remora.clock import SystemClock
from remora.errors import ContractError, Fenced, RemoraError
from remora.local import LocalPlatform
from remora.runtime import registry_status
from remora.runtime.host import Host
from remora.runtime.leadership import LOOKS, Leadership
from remora.runtime.rebalance import LOAD_MIN, rates
from remora.runtime.registry import Registry
from remora.sharding import membership
from remora.sharding.allocation import Move
from remora.sharding.membership import HostState
from remora.sharding.table import HostRow
from remora.storage.memory import MemoryStore
from remora.supervision.levels import HOST_DIED
from remora.testing import FaultyStore, ManualClock
from tests import platforms
from tests.clock import turns, until
from tests.things import Till

TTL_S = 0.2
QUICK = Settings(shards=8, lease_ttl_s=0.4, lease_margin_s=0.1, leader_ttl_s=TTL_S, rebalance_s=0.05, unreachable_s=0.3)
quick = App("things", entities=[Till], settings=QUICK)


# -- who leads ---------------------------------------------------------------------------------------


class LookedAt(MemoryStore):
    """Counts looks at the leader's lease."""

    looks = 0

    async def leader(self) -> tuple[int, float]:
        self.looks += 1
        return await super().leader()


async def lead(store: MemoryStore | FaultyStore, name: str) -> str:
    leadership = Leadership(store, SystemClock(), TTL_S)
    term = await leadership.follow(lambda: None)
    keeping = asyncio.create_task(leadership.keep(term))
    keeping.set_name(name)
    LEADERS.append(keeping)
    return name


LEADERS: list[asyncio.Task[None]] = []


@pytest.fixture(autouse=True)
async def _nobody_leads_on() -> AsyncIterator[None]:
    LEADERS.clear()
    yield
    for task in LEADERS:
        task.cancel()
    await asyncio.gather(*LEADERS, return_exceptions=True)


async def test_46_of_several_registries_one_leads_and_another_follows_when_its_lease_is_over() -> None:
    store = LookedAt()
    waiting = [asyncio.create_task(lead(store, f"r{number}")) for number in range(4)]
    for leaders in (1, 2, 3):  # the fourth has nobody left to wait for it
        await until(lambda leaders=leaders: len(LEADERS) == leaders)  # type: ignore[misc]  # a default freezes the loop variable
        looks = store.looks
        await until(lambda looks=looks: store.looks - looks >= 2 * LOOKS * (4 - len(LEADERS)))  # type: ignore[misc]  # two leases long
        assert len(LEADERS) == leaders, "while one renews nobody follows"
        assert (await store.leader())[0] == leaders
        LEADERS[-1].cancel()  # it dies, and renews no more

    await asyncio.gather(*waiting)
    assert (await store.leader())[0] == 4


async def test_48_a_store_that_does_not_answer_makes_nobody_lead() -> None:
    store = FaultyStore()
    first = Leadership(store, SystemClock(), TTL_S)
    keeping = asyncio.create_task(first.keep(await first.take()))
    waiting = asyncio.create_task(lead(store, "second"))
    await turns()
    store.fail_next("leader", times=8)
    store.fail_next("renew_leader", times=3)
    await until(lambda: store.failing == [])
    await until(lambda: not store.failing)

    assert (await store.leader())[0] == 1, "a gap in its own view of the store is nobody's death"
    keeping.cancel()
    assert await waiting == "second"


async def test_a_leader_whose_term_has_ended_learns_it_at_its_next_renewal_and_writes_nothing_more() -> None:
    store, deposed = MemoryStore(), asyncio.Event()
    async with platform_on(store) as platform:
        platform.registry._on_deposed = deposed.set  # noqa: SLF001 - as the actor does
        row = platform.registry.current.hosts[1]
        await store.lead()

        async with asyncio.timeout(5):
            await deposed.wait()

        with pytest.raises(Fenced):
            await platform.registry.gone([row.incarnation])
        assert [host.incarnation for host in (await store.read_table()).hosts.values()] == [1, 2]
        assert not platform.registry.detection.acting


@asynccontextmanager
async def platform_on(
    store: MemoryStore | FaultyStore, app: App = quick, hosts: int = 2
) -> AsyncIterator[LocalPlatform]:
    async with platforms.running(app, store, hosts=hosts) as (platform, _):
        yield platform


async def test_everything_is_read_back_from_the_store_by_a_registry_that_knows_nothing() -> None:
    store = MemoryStore()
    async with platform_on(store) as platform:
        await platform.registry.locate({"3": "host-1"})
        before = platform.registry.current
        await platform.registry.close()
        registry = Registry(quick, store, platform, SystemClock(), name="next")

        table = await registry.start()

        assert (table.hosts, table.shards) == (before.hosts, before.shards)
        assert registry.rebalance.locations == {"3": "host-1"}
        assert registry.term > platform.registry.term
        await registry.close()


# -- who is gone -------------------------------------------------------------------------------------


async def test_51_a_host_whose_end_is_not_proven_keeps_its_shards_until_its_lease_is_over() -> None:
    async with platforms.running(quick, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        lost = platforms.host_of(platform, "till/a")
        number = lost.incarnation
        platform.hosts.pop(lost.name)  # nobody reaches it, and it does not know
        hosts = platform.registry.hosts
        platform.kill = platform.ended = no  # type: ignore[method-assign]  # it is on another machine
        lost.lease.stop()
        last = asyncio.get_running_loop().time()

        await hosts_died(platform, number)
        assert platform.registry.detection.state(number) is HostState.SUSPECT
        assert platform.registry.current.shards[lost.shard_name("till/a")].owner == number

        await until(lambda: number not in platform.registry.current.hosts)
        assert asyncio.get_running_loop().time() - last >= QUICK.lease_ttl_s - QUICK.lease_ttl_s / 4
        assert await client.ref(Till, "a").add(1) == 2
        assert hosts is platform
        await lost.close()
        await lost.client.close()


@pytest.mark.parametrize("renews", [True, False])
async def test_42_a_host_that_renews_its_lease_while_it_is_given_up_keeps_its_shards_for_as_long_as_it_may_answer(
    renews: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    store = FaultyStore()
    async with platforms.running(quick, store, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        frozen = platforms.host_of(platform, "till/a")
        number, shard = frozen.incarnation, frozen.shard_name("till/a")
        freeze(platform, frozen)
        store.hold("write_table")

        await until(lambda: store.waiting)  # its lease is found to be over, and it is to be fenced
        if renews:  # it runs again
            store.renew(number, SystemClock().monotonic_s())
        last = asyncio.get_running_loop().time()
        store.let_go("write_table")

        await until(lambda: platform.registry.current.shards[shard].owner != number)
        waited_s = asyncio.get_running_loop().time() - last
        assert (waited_s >= QUICK.lease_ttl_s) == renews
        with pytest.raises(Fenced):
            store.renew(number, SystemClock().monotonic_s())
        assert await client.ref(Till, "a").add(1) == 2
        await frozen.close()
        await frozen.client.close()


async def test_of_hosts_that_are_given_up_together_one_that_renews_meanwhile_holds_up_no_other_and_gets_nothing() -> (
    None
):
    store = FaultyStore()
    async with platforms.running(quick, store, hosts=3) as (platform, _):
        registry, (first, second) = platform.registry, [platform.hosts[f"host-{n}"] for n in (1, 2)]
        had = registry.current.owned_by(first.incarnation)
        freeze(platform, first, second)
        now_s = SystemClock().monotonic_s()
        for frozen in (first, second):
            store.renew(frozen.incarnation, now_s)  # both end in the same look
        store.hold("write_table")
        await until(lambda: store.waiting)
        store.renew(first.incarnation, now_s + 1)
        store.let_go("write_table")

        await until(lambda: not registry.current.owned_by(second.incarnation))
        assert had
        assert registry.current.owned_by(first.incarnation) == had
        await until(lambda: not registry.current.owned_by(first.incarnation))
        for frozen in (first, second):
            await frozen.close()
            await frozen.client.close()


async def test_a_host_that_goes_on_under_another_incarnation_while_it_is_given_up_keeps_its_shards() -> None:
    store = FaultyStore()
    async with platforms.running(quick, store, hosts=2) as (platform, _):
        registry, frozen = platform.registry, platform.hosts["host-1"]
        had = registry.current.owned_by(frozen.incarnation)
        freeze(platform, frozen)
        store.hold("write_table")
        await until(lambda: store.waiting)

        successor = await store.reincarnate(frozen.incarnation)
        store.renew(successor, SystemClock().monotonic_s())
        store.let_go("write_table")

        await until(lambda: registry.current.owned_by(successor) == had)
        assert frozen.incarnation not in registry.current.hosts
        store.renew(successor, SystemClock().monotonic_s())  # would be refused if it were fenced
        await frozen.close()
        await frozen.client.close()


async def test_a_stop_moves_nothing_more_than_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async with platforms.running(quick, hosts=2) as (platform, _):
        registry, release = platform.registry, platform.release
        source, target = (platform.hosts[f"host-{n}"].incarnation for n in (1, 2))
        before = registry.current.owned_by(source)

        async def then_stop(host: HostRow, targets: Mapping[str, str]) -> None:
            await release(host, targets)
            registry.startup.stopping = True

        monkeypatch.setattr(platform, "release", then_stop)
        await registry.move({shard: Move(source, target) for shard in before})

        assert len(registry.current.owned_by(source)) == len(before) - 1 > 0
        registry.startup.stopping = False


async def test_a_host_that_is_gone_is_shown_as_such_also_while_another_one_does_not_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with platforms.running(quick, hosts=2) as (platform, _):
        registry, lost, heard = platform.registry, platform.hosts["host-1"].row, asyncio.Event()
        own = platform.own

        async def deaf(host: HostRow, shards: dict[str, int]) -> None:
            await heard.wait()
            await own(host, shards)

        monkeypatch.setattr(platform, "own", deaf)
        giving_up = asyncio.create_task(registry.gone([lost.incarnation], replace=False))
        await until(lambda: lost.incarnation not in registry.current.hosts)

        assert [name for name, *_ in registry.gone_lately] == [lost.name]
        assert not giving_up.done()
        heard.set()
        await giving_up


def freeze(platform: LocalPlatform, *hosts: Host) -> None:
    """Have hosts renew no more, on machines where nobody can prove their end."""
    for host in hosts:
        platform.hosts.pop(host.name)
        host.lease.stop()
    platform.kill = platform.ended = no  # type: ignore[method-assign]


async def no(host: HostRow) -> bool:
    del host
    return False


async def hosts_died(platform: LocalPlatform, number: int) -> None:
    await platform.registry.detection.died(number, "its node does not answer", proven=False)


async def test_a_host_that_nobody_reaches_and_that_renews_is_fenced_and_then_waited_for() -> None:
    store = FaultyStore()
    async with platforms.running(quick, store, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        cut_off = platforms.host_of(platform, "till/a")
        number = cut_off.incarnation
        platform.ended = platform.answers = no  # type: ignore[method-assign]  # it runs, on a machine cut off from this

        async def report() -> None:
            while number in platform.registry.current.hosts:
                await platform.registry.suspect(cut_off.name)
                await turns(5)

        async with asyncio.timeout(10):
            await report()

        assert number not in (await store.read_table()).hosts
        assert await client.ref(Till, "a").add(1) == 2


async def test_a_fence_whose_answer_is_lost_is_written_again_and_its_host_keeps_its_shards_until_its_lease_is_over() -> (
    None
):
    store = FaultyStore()
    async with platforms.running(quick, store, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        lost = platforms.host_of(platform, "till/a")
        number, shard = lost.incarnation, lost.shard_name("till/a")
        platform.kill = platform.ended = no  # type: ignore[method-assign]  # it is on another machine
        platform.hosts.pop(lost.name)
        last = asyncio.get_running_loop().time()
        platform.registry.detection.watch = membership.held(platform.registry.detection.watch, [number])
        store.fail_next("write_table", times=2, after=True)

        await platform.registry.fence([number])
        await platform.registry.refresh()

        assert number not in (await store.read_table()).hosts
        assert platform.registry.current.shards[shard].owner == number, "it may still answer from memory"
        await until(lambda: platform.registry.current.shards[shard].owner != number)
        assert asyncio.get_running_loop().time() - last >= QUICK.lease_ttl_s - QUICK.lease_ttl_s / 4
        await lost.close()
        await lost.client.close()


async def test_a_leader_that_finds_fenced_owners_waits_for_their_leases_before_it_gives_anything_away() -> None:
    store = MemoryStore()
    async with platform_on(store) as platform:
        await platform.registry.close()
        await store.write_table(await store.lead(), 9, [1], {})  # and the leader that fenced it died
        registry = Registry(quick, store, platform, SystemClock(), name="next")
        began = asyncio.get_running_loop().time()

        await registry.start()
        await registry.refresh()

        assert asyncio.get_running_loop().time() - began >= QUICK.lease_ttl_s
        assert {row.owner for row in registry.current.shards.values()} == {2}
        await registry.close()


async def test_a_client_that_gets_no_answer_makes_the_registry_look_and_a_host_that_has_ended_is_replaced() -> None:
    async with platforms.running(quick, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        dead = platforms.host_of(platform, "till/a")
        platform.hosts.pop(dead.name).abandon()  # and whoever runs it has not noticed

        assert await client.ref(Till, "a").add(1) == 2

        assert platform.registry.gone_lately[0][:2] == (dead.name, "a client got no answer from it")


async def test_hosts_joining_up_draining_suspect_and_gone_are_shown_and_why_the_last_ones_went() -> None:
    async with platforms.running(quick, hosts=3) as (platform, _):
        registry = platform.registry
        registry.detection.suspect(2, "it does not answer")
        registry.joining.add("host-4")

        shown = {host["name"]: host["state"] for host in (await registry_status.status(registry))["hosts"]}
        assert shown == {"host-1": "up", "host-2": "suspect", "host-3": "up", "host-4": "joining"}

        await platform.crash("host-3")
        told = await registry_status.status(registry)
        assert [one["name"] for one in told["gone"]] == ["host-3"]


async def test_hosts_are_shown_in_the_order_of_their_slots_whichever_joined_first_and_with_the_same_columns() -> None:
    async with platforms.running(quick, hosts=3) as (platform, _):
        registry = platform.registry
        registry.joining |= {"host-10", "host-9", "host-0"}

        shown = (await registry_status.status(registry))["hosts"]
        assert [row["name"] for row in shown] == [f"host-{n}" for n in (0, 1, 2, 3, 9, 10)]
        assert len({frozenset(row) for row in shown}) == 1


def test_a_host_that_joins_stands_where_its_slot_does_though_it_has_only_its_short_name_and_dedicated_ones_come_last() -> (
    None
):
    slots = ["remora/bank/host/9", "remora/bank/host/11", "remora/bank/host/gpu-1", "10", "remora/bank/entity/desk/a"]
    places = {slot: registry_status.place_of(slot, "/entity/" in slot) for slot in slots}

    in_order = [
        "remora/bank/host/9",
        "10",
        "remora/bank/host/11",
        "remora/bank/host/gpu-1",
        "remora/bank/entity/desk/a",
    ]
    assert sorted(slots, key=places.__getitem__) == in_order


async def test_14_a_host_that_cannot_be_started_is_refused_with_the_reason_and_tried_again_later() -> None:
    async with platforms.running(quick, hosts=2) as (platform, client):
        real, why = platform._new_host, "the store was created with 16 shards"  # noqa: SLF001 - a host of another release

        async def refuse(*_: object, **__: object) -> None:
            raise RemoraError(why)

        platform._new_host = refuse  # type: ignore[assignment, method-assign]  # noqa: SLF001 - as above
        await platform.crash("host-1")
        await until(lambda: platform.registry.refused)
        assert (await registry_status.status(platform.registry))["refused"] == {"host-1": why}
        assert await client.ref(Till, "a").add(1) == 1, "the others go on"

        platform._new_host = real  # type: ignore[method-assign]  # noqa: SLF001 - it is mended

        await until(lambda: len(platform.hosts) == 2, within_s=10)
        assert platform.registry.refused == {}


# -- what moves --------------------------------------------------------------------------------------


async def test_16_a_drained_node_is_emptied_and_let_go_and_gets_no_host_that_is_not_wanted_there() -> None:
    async with platforms.running(quick, hosts=2) as (platform, client):
        await platform.add_host(node="second")
        for n in range(20):
            await client.ref(Till, str(n)).add(n)

        told = await platform.registry.drain("sec")

        assert told == {"node": "second", "hosts": ["host-3"], "left": []}
        await until(lambda: set(platform.hosts) == {"host-1", "host-2"})
        assert sorted(len(host.shards) for host in platform.hosts.values()) == [4, 4]
        assert platform.registry.drained == {"second"}
        for n in range(20):
            assert await client.ref(Till, str(n)).total() == n
        assert await platform.registry.undrain("second") == {"nodes": ["second"]}
        with pytest.raises(UnknownNode, match="was not drained"):
            await platform.registry.undrain("second")


async def test_one_host_can_be_drained_by_its_name() -> None:
    async with platforms.running(quick, hosts=3) as (platform, _):
        told = await platform.registry.drain("host-2")

        assert (told["hosts"], told["left"]) == (["host-2"], [])
        assert platform.registry.drained == frozenset()
        await until(lambda: set(platform.hosts) == {"host-1", "host-3"})


async def test_the_last_hosts_are_not_drained_and_a_wrong_name_lists_the_nodes_there_are() -> None:
    async with platforms.running(quick, hosts=2) as (platform, _):
        with pytest.raises(CannotDrain, match="last hosts"):
            await platform.registry.drain("local")
        with pytest.raises(UnknownNode, match="nodes with hosts are: local"):
            await platform.registry.drain("nowhere")

        assert platform.registry.current.draining == frozenset()
        assert platform.registry.drained == frozenset()


async def test_a_node_that_is_about_to_go_is_emptied_and_one_that_stays_after_all_is_kept() -> None:
    async with platforms.running(quick, hosts=2) as (platform, _):
        await platform.add_host(node="leaving")

        await platform.registry.leave(["leaving"])

        await until(lambda: "host-3" not in platform.hosts)
        await platform.registry.leave([])
        assert set(platform.hosts) == {"host-1", "host-2"}


async def test_where_shards_are_wanted_from_outside_they_go_and_that_outlives_the_registry() -> None:
    app = App("things", entities=[Till], settings=QUICK, allocation=External())
    store = MemoryStore()
    async with platforms.running(app, store, hosts=2) as (platform, client):
        await client.ref(Till, "a").add(1)
        shard = platforms.host_of(platform, "till/a").shard_name("till/a")
        other = next(name for name, host in platform.hosts.items() if shard not in host.shards)

        await platform.registry.locate({shard: other})

        await until(lambda: shard in platform.hosts[other].shards)
        assert await client.ref(Till, "a").add(1) == 2
        assert await store.note("locations") is not None


async def test_a_dry_run_says_what_would_move_and_why_and_moves_nothing() -> None:
    settings = Settings(shards=8, rebalance_s=60.0)
    async with platforms.running(App("things", entities=[Till], settings=settings), hosts=1) as (platform, _):
        await platform.add_host()
        await turns()

        told = platform.registry.rebalance.explain()

        assert {(one["source"], one["target"]) for one in told} == {("host-1", "host-2")}
        assert all("source has 8 shards" in one["because"] for one in told)
        assert len(platform.hosts["host-1"].shards) == 8


async def test_the_load_of_shards_is_counted_where_they_are_and_a_hot_one_moves() -> None:
    settings = Settings(shards=4, rebalance_s=60.0, rebalance_share_max=1.0)
    app = App("things", entities=[Till], settings=settings, allocation=LeastShards(load_share=0.9))
    clock = ManualClock()
    async with platforms.running(app, hosts=2, clock=clock) as (platform, client):
        rebalance = platform.registry.rebalance
        busiest = next(iter(platform.hosts.values()))
        first, second = sorted(busiest.shards)
        hot = {
            shard: next(str(n) for n in range(99) if busiest.shard_name(f"till/{n}") == shard)
            for shard in (first, second)
        }
        clock.advance(10)
        await rebalance.round()
        for _ in range(600):
            await asyncio.gather(*(client.ref(Till, name).add(1) for name in hot.values()))
        clock.advance(5)

        await rebalance.round()

        assert rebalance.load[first] >= 100 / 2
        assert {first, second} & set(busiest.shards) != {first, second}, "not both on one host any more"


def test_rates_are_smoothed_and_too_few_commands_say_nothing() -> None:
    counted = {"a": 1000, "b": 0}
    assert rates({}, {}, counted, 5.0) == {}, "nothing was counted before"
    assert rates({}, counted, {"a": 2000, "b": 500}, 5.0) == {"a": 200.0, "b": 100.0}
    assert rates({"a": 100.0}, counted, {"a": 2000, "b": 0}, 5.0) == {"a": 150.0}
    assert rates({}, counted, {"a": 1000 + int(LOAD_MIN * 5) - 1, "b": 0}, 5.0) == {}
    assert rates({}, counted, {"a": 10, "b": 5000}, 5.0) == {"b": 1000.0}, "counted anew by another host"


# -- host groups -------------------------------------------------------------------------------------


class Model(Till):
    """A till whose host group it is."""

    options = EntityOptions(host_group="gpu")


async def test_types_of_a_host_group_live_on_its_hosts_and_no_others() -> None:
    app = App("grouped", entities=[Till, Model], settings=QUICK, host_groups={"gpu": HostGroup(hosts=2)})
    async with platforms.running(app, hosts=1) as (platform, client):
        for n in range(10):
            assert await client.ref(Model, str(n)).add(1) == 1
            assert await client.ref(Till, str(n)).add(2) == 2

        homes = {key.partition("/")[0]: set[str]() for host in platform.hosts.values() for key in host.cells}
        for name, host in platform.hosts.items():
            for key in host.cells:
                homes[key.partition("/")[0]].add(name)
        assert homes == {"till": {"host-1"}, "model": {"gpu-1", "gpu-2"}}
        await platform.crash("gpu-1")
        assert await client.ref(Model, "3").add(1) == 2


def test_a_host_group_that_nobody_declared_is_refused_when_the_app_is_made() -> None:
    with pytest.raises(ContractError, match="asks for the host group 'gpu'"):
        App("grouped", entities=[Model])
    with pytest.raises(ContractError, match="lower-case"):
        App("grouped", entities=[Till], host_groups={"GPU": HostGroup()})
    with pytest.raises(ValueError, match="at least 1"):
        HostGroup(hosts=0)
    with pytest.raises(ValueError, match="for shared entities"):
        EntityOptions(host_group="gpu", placement="dedicated")


async def test_shards_are_shown_with_how_many_entities_of_them_are_in_memory() -> None:
    async with platforms.running(quick, hosts=2) as (platform, client):
        for number in range(20):
            await client.ref(Till, str(number)).add()

        found = {row["shard"]: row["live"] for row in await registry_status.shards(platform.registry)}

        shards = Counter(
            platforms.host_of(platform, f"till/{number}").shard_name(f"till/{number}") for number in range(20)
        )
        assert found == {**dict.fromkeys(found, 0), **shards}


# -- hosts that fail again and again, by the rules ------------------------------------------------------


def ruled(*host: Rule) -> App:
    return App("things", entities=[Till], settings=QUICK, supervision=Supervision(host=host))


async def test_a_host_that_cannot_be_started_is_tried_again_after_growing_pauses_while_the_others_serve() -> None:
    rule = on(HOST_DIED, StartError).restart(Backoff(min_s=0.02, max_s=1, factor=3, jitter=0))
    tried_s: list[float] = []
    async with platforms.running(ruled(rule), hosts=2) as (platform, client):
        await client.ref(Till, "a").add()
        replace, clock = platform.replace, SystemClock()

        async def fails_three_times(host: HostRow) -> None:
            tried_s.append(clock.monotonic_s())
            if len(tried_s) < 4:
                msg = "it crashes as it starts"
                raise StartError(msg)
            await replace(host)

        platform.replace = fails_three_times  # type: ignore[method-assign]  # as a process that ends by itself would
        await platform.crash("host-1")
        assert await client.ref(Till, "a").add() == 2

        await until(lambda: len(platform.hosts) == 2)

        pauses_s = [late - early for early, late in itertools.pairwise(tried_s)]
        assert [pause >= least for pause, least in zip(pauses_s, (0.06, 0.18, 0.54), strict=True)] == [True] * 3
        assert platform.registry.levels.stopped == {}


async def test_beyond_the_limit_a_host_is_not_started_again_which_is_shown_and_the_others_have_its_shards() -> None:
    rule = on(HOST_DIED).restart(Backoff(min_s=0), at_most=1)
    async with platforms.running(ruled(rule), hosts=2) as (platform, client):
        await client.ref(Till, "a").add()
        await platform.crash("host-1")
        await until(lambda: len(platform.hosts) == 2)

        await platform.crash("host-1")
        await until(lambda: platform.registry.levels.stopped)

        assert await client.ref(Till, "a").add() == 2
        assert list(platform.hosts) == ["host-2"]
        status = await registry_status.status(platform.registry)
        assert status["refused"] == {"host-1": "its supervision rules say stop, after: remora.HostDied"}
