"""Who is to blame for a crash, and what becomes of it: held back, then apart, until an operator lets it go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from remora import (
    App,
    Backoff,
    Blame,
    Client,
    Quarantined,
    Settings,
    StoreUnavailable,
    Supervision,
    Unavailable,
    UnknownEntity,
)
from remora.clock import Clock, SystemClock
from remora.local import LocalPlatform
from remora.runtime import registry_status
from remora.runtime.blackbox import LastWords
from remora.runtime.quarantine import HEARD_S
from remora.runtime.registry import Registry
from remora.sharding.table import HostRow
from remora.supervision.blame import Crash, judged
from remora.supervision.failure import RECOVERY
from remora.testing import FaultyStore, ManualClock
from tests import platforms
from tests.clock import until
from tests.things import Till

RULE = Blame(at_most=2, within_s=60, backoff=Backoff(min_s=1, factor=2, max_s=10))
NOW_MS = 1_700_000_000_000


def crash(entity: str = "till/bad", command: str = "add", at_s: float = 0.0) -> Crash:
    return Crash(entity, command, "Segmentation fault", "host-1", 1, NOW_MS + int(at_s * 1000))


# -- the decision ------------------------------------------------------------------------------------


def test_what_takes_its_host_down_is_held_back_for_longer_each_time_and_then_apart() -> None:
    first = judged([], crash(), RULE)
    second = judged([crash()], crash(at_s=5), RULE)
    third = judged([crash(), crash(at_s=5)], crash(at_s=9), RULE)

    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.until_ms - first.since_ms, second.until_ms - second.since_ms) == (1000, 2000)
    assert (third.until_ms, third.entity, third.command, third.crashes) == (0, "till/bad", "", 3)
    assert (
        third.because == "till/bad.add took its host down 3 times within 60 s, the last time with: Segmentation fault"
    )


def test_crashes_before_the_window_and_of_others_do_not_count() -> None:
    before = [crash(at_s=-100), crash(at_s=-90), crash("till/other"), crash("till/other", at_s=1)]

    found = judged(before, crash(at_s=2), RULE)

    assert found is not None
    assert (found.crashes, found.until_ms > 0) == (1, True)


def test_where_the_scope_is_a_command_only_its_own_crashes_count_and_only_it_is_held_apart() -> None:
    rule = RULE.model_copy(update={"scope": "command", "at_most": 1})

    of_another = judged([crash(command="take")], crash(at_s=1), rule)
    of_the_same = judged([crash()], crash(at_s=1), rule)

    assert of_another is not None
    assert of_the_same is not None
    assert of_another.until_ms > 0
    assert (of_the_same.command, of_the_same.until_ms) == ("add", 0)


def test_without_a_pause_nothing_is_held_back_before_the_limit() -> None:
    assert judged([], crash(), RULE.model_copy(update={"backoff": Backoff(min_s=0)})) is None


def test_what_cannot_even_be_read_back_is_held_apart_whole_whatever_the_scope() -> None:
    rule = RULE.model_copy(update={"scope": "command", "at_most": 0})

    found = judged([], crash(command=RECOVERY), rule)

    assert found is not None
    assert found.command == ""


# -- on a platform -----------------------------------------------------------------------------------


class Deaths:
    """Ends hosts of a platform as their processes would by their own hand."""

    def __init__(self, platform: LocalPlatform) -> None:
        self._platform = platform
        self._words: dict[str, LastWords] = {}
        platform.last_words = self._said  # type: ignore[method-assign]  # there is no process that could have left any

    async def _said(self, host: HostRow) -> LastWords | None:
        return self._words.pop(host.name, None)

    async def of(self, key: str, command: str = "add", cause: str = "os._exit(1)") -> None:
        """The host of an entity is taken down by it."""
        # After another's death it may have none for a moment.
        await until(lambda: any(host.shard_name(key) in host.shards for host in self._platform.hosts.values()))
        host = platforms.host_of(self._platform, key)
        self._words[host.name] = LastWords(cause, (key, command) if command else None)
        await self._platform.crash(host.name)


@asynccontextmanager
async def dying(rule: Blame = RULE, clock: Clock | None = None) -> AsyncIterator[tuple[LocalPlatform, Client, Deaths]]:
    app = App("shop", entities=[Till], settings=Settings(shards=8), supervision=Supervision(crashes=rule))
    async with platforms.running(app, hosts=2, clock=clock or ManualClock()) as (platform, client):
        yield platform, client, Deaths(platform)


async def test_79_what_keeps_ending_its_process_is_no_matter_of_rules_and_gets_quarantined_while_everyone_else_goes_on() -> (
    None
):
    rule = RULE.model_copy(update={"at_most": 1, "backoff": Backoff(min_s=0)})
    async with dying(rule) as (platform, client, deaths):
        bad, good = client.ref(Till, "bad"), client.ref(Till, "good")
        assert await good.add() == 1
        for _ in range(2):
            await deaths.of("till/bad")

        with pytest.raises(Quarantined, match=r"took its host down 2 times .* os\._exit\(1\)") as caught:
            await bad.add()
        why = await bad.why()

        assert (caught.value.entity, caught.value.status, caught.value.code) == ("till/bad", 503, "quarantined")
        assert (why.state, "os._exit(1)" in why.reason) == ("quarantined", True)
        assert await good.add() == 2
        (shown,) = registry_status.quarantine(platform.registry)
        assert (shown["entity"], shown["crashes"], len(shown["latest"])) == ("till/bad", 2, 2)
        failures = await registry_status.failures(platform.registry, 10, "till/bad")
        assert [(row["kind"], row["times"], row["latest"]["directive"]) for row in failures] == [
            ("remora.Crashed", 2, "quarantine")
        ]


async def test_one_death_that_is_reported_twice_is_one_crash() -> None:
    async with dying(Blame(at_most=1)) as (platform, client, _):
        await client.ref(Till, "bad").add()
        host = platforms.host_of(platform, "till/bad")
        platform.last_words = _words  # type: ignore[method-assign]  # of whoever is asked about
        host.abandon()
        del platform.hosts[host.name]

        await asyncio.gather(*(platform.registry.gone([host.incarnation]) for _ in range(3)))

        assert [row["crashes"] for row in registry_status.quarantine(platform.registry)] == [1]


async def test_an_entity_in_memory_is_stopped_when_it_is_put_in_quarantine() -> None:
    rule = RULE.model_copy(update={"at_most": 0})
    async with dying(rule) as (platform, client, _):
        till = client.ref(Till, "bad")
        await till.add()
        other = next(name for name in platform.hosts if platforms.host_of(platform, "till/bad").name != name)
        platform.last_words = _words  # type: ignore[method-assign]  # of a host it was on before
        await platform.crash(other)

        with pytest.raises(Quarantined):
            await till.add()


async def _words(host: HostRow) -> LastWords | None:
    del host
    return LastWords("Segmentation fault", ("till/bad", "add"))


async def test_a_command_to_what_is_held_back_is_told_before_its_deadline_when_to_come_back() -> None:
    pause = Backoff(min_s=100, max_s=100)
    async with dying(RULE.model_copy(update={"backoff": pause}), SystemClock()) as (_, client, deaths):
        bad = client.ref(Till, "bad")
        await bad.add()
        await deaths.of("till/bad")

        with pytest.raises(Unavailable, match=r"held back for .* took its host down once") as caught:
            await bad.with_options(deadline_s=0.3).add()

        assert 90 < caught.value.retry_after_s <= 100


async def test_once_the_pause_is_over_it_runs_again() -> None:
    clock = ManualClock()
    async with dying(clock=clock) as (_, client, deaths):
        bad = client.ref(Till, "bad")
        await bad.add()
        await deaths.of("till/bad")
        clock.advance(2.0)

        assert await bad.add() == 2


async def test_only_a_command_is_held_apart_where_that_is_declared() -> None:
    rule = Blame(at_most=0, scope="command")
    async with dying(rule) as (_, client, deaths):
        till = client.ref(Till, "bad")
        await till.add()
        await deaths.of("till/bad", command="leave")

        assert await till.add() == 2
        with pytest.raises(Quarantined, match=r"till/bad\.leave is in quarantine"):
            await till.leave()


async def test_a_host_that_was_killed_or_ran_nothing_of_an_entity_blames_nobody() -> None:
    async with dying(Blame(at_most=0)) as (platform, client, deaths):
        till = client.ref(Till, "bad")
        for cause in ("", "Aborted"):
            await till.add()
            await deaths.of("till/bad", command="" if cause else "add", cause=cause)

        assert await till.add() == 3
        assert registry_status.quarantine(platform.registry) == []


async def test_what_is_released_runs_again_and_its_crashes_are_forgotten() -> None:
    async with dying(Blame(at_most=1, backoff=Backoff(min_s=0))) as (platform, client, deaths):
        bad = client.ref(Till, "bad")
        await bad.add()
        for _ in range(2):
            await deaths.of("till/bad")
        with pytest.raises(Quarantined):
            await bad.add()

        released = await platform.registry.inquest.release("till/bad", "")

        assert released.crashes == 2
        assert await bad.add() == 2
        await deaths.of("till/bad")
        assert await bad.add() == 3
        with pytest.raises(UnknownEntity, match="in quarantine: nothing"):
            await platform.registry.inquest.release("till/bad", "")


async def test_who_leads_next_and_hosts_that_start_later_know_what_is_in_quarantine() -> None:
    async with dying(Blame(at_most=0)) as (platform, client, deaths):
        await deaths.of("till/bad")
        former = platform.registry
        platform.registry = Registry(platform.app, platform.store, platform, platform.clock, name="next")
        await former.close()
        await platform.registry.start()

        assert [one.entity for one in platform.registry.inquest.listed()] == ["till/bad"]
        for host in list(platform.hosts.values()):
            await platform.add_host(host.name + "b")
        for host in [host for host in platform.hosts.values() if not host.name.endswith("b")]:
            host.abandon()
            del platform.hosts[host.name]
            await platform.registry.gone([host.incarnation], replace=False)
        with pytest.raises(Quarantined):
            await client.ref(Till, "bad").add()


async def test_what_is_apart_stays_so_when_it_takes_down_a_host_that_had_not_heard_of_it() -> None:
    rule = Blame(at_most=1, backoff=Backoff(min_s=0.1))
    async with dying(rule) as (platform, client, deaths):
        for _ in range(2):
            await deaths.of("till/bad")
        platform.registry.inquest.crashes = []  # the window is over

        await deaths.of("till/bad")

        (held,) = platform.registry.inquest.listed()
        assert held.until_ms == 0
        with pytest.raises(Quarantined):
            await client.ref(Till, "bad").add()


async def test_a_release_that_could_not_be_written_down_has_changed_nothing() -> None:
    app = App("shop", entities=[Till], settings=Settings(shards=8), supervision=Supervision(crashes=Blame(at_most=0)))
    store = FaultyStore()
    async with platforms.running(app, store, hosts=2) as (platform, client):
        await Deaths(platform).of("till/bad")
        store.fail_next("set_note")

        with pytest.raises(StoreUnavailable):
            await platform.registry.inquest.release("till/bad", "")

        assert [one.entity for one in platform.registry.inquest.listed()] == ["till/bad"]
        await platform.registry.inquest.release("till/bad", "")
        assert await client.ref(Till, "bad").add() == 1


async def test_a_host_that_cannot_read_what_is_in_quarantine_is_told_again_until_it_has() -> None:
    app = App("shop", entities=[Till], settings=Settings(shards=8), supervision=Supervision(crashes=Blame(at_most=0)))
    store = FaultyStore()
    async with platforms.running(app, store, hosts=2) as (platform, client):
        store.fail_next("note", times=2)
        await Deaths(platform).of("till/bad")

        await until(lambda: all(host.quarantine.entities for host in platform.hosts.values()))
        with pytest.raises(Quarantined):
            await client.ref(Till, "bad").add()


@pytest.mark.parametrize(
    ("doubted", "near"), [(True, True), (False, False)],
    ids=["that may be gone itself", "where a process has to start first"],
)  # fmt: skip
async def test_shards_do_not_wait_for_last_words_on_a_node(doubted: bool, near: bool) -> None:  # noqa: FBT001 - pytest gives them
    async with dying(Blame(at_most=0)) as (platform, client, _):
        await client.ref(Till, "bad").add()
        host = platforms.host_of(platform, "till/bad")
        silent = asyncio.Event()

        async def never(host: HostRow) -> LastWords | None:
            del host
            await silent.wait()
            return None

        platform.last_words = never  # type: ignore[method-assign]  # as of a machine that is gone
        platform.near = lambda host: near  # type: ignore[method-assign]  # noqa: ARG005 - as the port names it
        if doubted:
            platform.registry.detection.doubt(host.row.node)
        row = msgspec.structs.replace(host.row, machine="another")
        async with asyncio.timeout(HEARD_S / 2):
            await platform.registry.inquest.hear([row])
