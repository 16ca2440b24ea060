"""What survives when processes are killed or frozen under load.

Bounds are loose, since the machine may be busy with other things: what these tests prove is that
nothing is lost or doubled. The times seen are printed; `make bench` measures them.
"""

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from remora.cluster.names import entity_name
from remora.sharding.table import HostRow
from tests.integration.apps import Alone
from tests.integration.conftest import Figure
from tests.integration.load import Load
from tests.integration.running import Running, alive, kill, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(240)]
APPS = "tests.integration.apps"
AT_ONCE_S = 5.0
"""A host takes about this long to start: survivors take over sooner."""
REPLACED_S = 60.0
LEASE_S = 20.0
"""Within which a lease of two seconds is seen to end."""
BETWEEN = pytest.param(False, id="between commits", marks=pytest.mark.slow)
"""Frozen in a commit is the harder case; both take a quarter of a minute."""


def gone(app: Running, row: HostRow) -> bool:
    return row.incarnation not in app.client.table.hosts


async def test_a_host_killed_under_load_loses_and_doubles_nothing_and_the_survivor_takes_over_at_once(
    tmp_path: Path, figure: Figure
) -> None:
    async with running(f"{APPS}:host_killed", tmp_path / "host.db") as app:
        async with Load(app) as load:
            await load.more(2_000)
            victim, survivor = app.hosts()
            lost = set(app.client.table.owned_by(victim.incarnation))
            waiting = {name for name in load.entities if app.shard(f"witness/{name}") in lost}
            at = kill(victim)

            taken_s = await until(lambda: gone(app, victim), AT_ONCE_S, "the shards have a new owner")
            owners = {app.client.table.shards[shard].owner for shard in lost}
            await until(lambda: app.balanced(2), REPLACED_S, "the host is replaced and the shards are even again")
            await load.more(1_000)

        assert owners == {survivor.incarnation}
        outage_s = load.outage_s(at, waiting)
        assert outage_s < AT_ONCE_S
        assert victim.slot in {row.slot for row in app.hosts()}
        await load.verify()
        figure("shards taken over after", taken_s)
        figure("longest silence of an entity", outage_s)


@pytest.mark.slow
async def test_all_hosts_killed_at_once_come_back_with_everything_that_was_acknowledged(
    tmp_path: Path, figure: Figure
) -> None:
    async with running(f"{APPS}:all_killed", tmp_path / "all.db") as app:
        async with Load(app) as load:
            await load.more(1_000)
            victims = app.hosts()
            at = min([kill(row) for row in victims])

            await until(lambda: all(gone(app, row) for row in victims), REPLACED_S, "their deaths are noticed")
            await until(lambda: app.balanced(2), REPLACED_S, "both hosts are replaced")
            await load.more(1_000)

        await load.verify()
        figure("longest silence of an entity", load.outage_s(at, set(load.entities)))


async def test_57_commands_are_answered_while_the_registry_is_dead_and_a_later_host_death_is_handled(
    tmp_path: Path, figure: Figure
) -> None:
    async with running(f"{APPS}:registry_killed", tmp_path / "registry.db") as app:
        async with Load(app) as load:
            await load.more(1_000)
            hosts = {row.incarnation for row in app.hosts()}
            os.kill(await app.registry_pid(), signal.SIGKILL)
            killed_s = time.perf_counter()
            dead_s = await app.registry_answers(REPLACED_S)
            await load.more(500)

            assert {row.incarnation for row in app.hosts()} == hosts  # the hosts lived on and were found again
            victim = app.hosts()[0]
            at = kill(victim)
            await until(lambda: gone(app, victim), REPLACED_S, "the new registry notices a host's death")
            await until(lambda: app.balanced(2), REPLACED_S, "and replaces it")
            await load.more(500)

        silence_s = load.longest_silence_s(killed_s, killed_s + dead_s)
        assert silence_s < dead_s / 2
        await load.verify()
        figure("registry dead for", dead_s)
        figure("longest silence of all entities meanwhile", silence_s)
        figure("longest silence of an entity after the host's death", load.outage_s(at, set(load.entities)))


@pytest.mark.slow
async def test_a_host_that_dies_together_with_the_registry_is_replaced_when_that_is_back(
    tmp_path: Path, figure: Figure
) -> None:
    async with running(f"{APPS}:both_killed", tmp_path / "both.db") as app:
        async with Load(app) as load:
            await load.more(500)
            victim = app.hosts()[0]
            os.kill(await app.registry_pid(), signal.SIGKILL)
            at = kill(victim)

            await until(lambda: gone(app, victim), REPLACED_S, "the new registry finds the host gone")
            await until(lambda: app.balanced(2), REPLACED_S, "and replaces it")
            await load.more(500)

        # Nobody replaced it twice, and nothing runs that the table does not know.
        assert app.host_actors() == {row.name for row in app.hosts()}
        await load.verify()
        figure("longest silence of an entity", load.outage_s(at, set(load.entities)))


@pytest.mark.slow
@pytest.mark.parametrize("writing", [True, False], ids=["in a commit", "between commits"])
async def test_a_host_frozen_when_the_registry_dies_is_ended_by_the_next_registry(
    tmp_path: Path, figure: Figure, *, writing: bool
) -> None:
    async with running(f"{APPS}:both_frozen", tmp_path / "both.db") as app:
        async with Load(app) as load:
            await load.more(500)
            victim, registry = app.hosts()[0], await app.registry_pid()
            # In a commit it holds the store's turn to write, for which the next registry must not wait.
            at = await app.freeze(victim, writing=writing)
            os.kill(registry, signal.SIGKILL)

            await until(lambda: gone(app, victim), REPLACED_S, "the new registry sees the end of its lease")
            await until(lambda: app.balanced(2), REPLACED_S, "and replaces it")
            await until(lambda: not alive(victim.pid), LEASE_S, "its process was killed")
            await load.more(500)

        assert app.host_actors() == {row.name for row in app.hosts()}
        await load.verify()
        figure("longest silence of an entity", load.outage_s(at, set(load.entities)))


@pytest.mark.parametrize("writing", [pytest.param(True, id="in a commit"), BETWEEN])
async def test_a_frozen_host_loses_its_lease_is_killed_and_commits_nothing_later(
    tmp_path: Path, figure: Figure, *, writing: bool
) -> None:
    async with running(f"{APPS}:frozen", tmp_path / "frozen.db") as app:
        async with Load(app) as load:
            await load.more(1_000)
            victim = app.hosts()[0]
            at = await app.freeze(victim, writing=writing)

            taken_s = await until(lambda: gone(app, victim), LEASE_S, "its lease has ended")
            await until(lambda: not alive(victim.pid), LEASE_S, "its process was killed")
            await until(lambda: app.balanced(2), REPLACED_S, "it is replaced")
            await load.more(1_000)

        assert app.rows("SELECT fenced FROM hosts WHERE incarnation = ?", victim.incarnation) == [(1,)]
        await load.verify()
        figure("shards taken over after", taken_s)
        figure("longest silence of an entity", load.outage_s(at, set(load.entities)))


@pytest.mark.slow
async def test_all_hosts_frozen_at_once_are_replaced_though_one_of_them_blocks_the_store(
    tmp_path: Path, figure: Figure
) -> None:
    async with running(f"{APPS}:all_frozen", tmp_path / "frozen.db") as app:
        async with Load(app) as load:
            await load.more(500)
            victims = app.hosts()
            at = await app.freeze(victims[0], writing=False)
            await app.freeze(victims[1], writing=True)

            await until(lambda: all(gone(app, row) for row in victims), REPLACED_S, "their leases have ended")
            await until(lambda: app.balanced(2), REPLACED_S, "they are replaced")
            await until(lambda: not any(alive(row.pid) for row in victims), LEASE_S, "their processes were killed")
            await load.more(500)

        await load.verify()
        figure("longest silence of an entity", load.outage_s(at, set(load.entities)))


@pytest.mark.slow
async def test_50_a_host_that_the_store_has_fenced_commits_nothing_more_and_ends_itself(
    tmp_path: Path, figure: Figure
) -> None:
    async with running(f"{APPS}:fenced", tmp_path / "fenced.db") as app:
        async with Load(app) as load:
            await load.more(1_000)
            victim = app.hosts()[0]
            with closing(sqlite3.connect(app.store, timeout=30.0, isolation_level=None)) as store:
                store.execute("UPDATE hosts SET fenced = 1 WHERE incarnation = ?", (victim.incarnation,))
            at = time.perf_counter()

            await until(lambda: not alive(victim.pid), LEASE_S, "the fenced host ends itself")
            await until(lambda: gone(app, victim) and app.balanced(2), REPLACED_S, "it is replaced")
            await load.more(500)

        await load.verify()
        figure("longest silence of an entity", load.outage_s(at, set(load.entities)))


async def test_a_dedicated_entity_whose_actor_is_killed_comes_back_with_its_state(
    tmp_path: Path, figure: Figure
) -> None:
    async with running(f"{APPS}:alone_killed", tmp_path / "alone.db") as app:
        board = app.client.ref(Alone, "board").with_options(deadline_s=REPLACED_S)
        assert await board.add(40) == 40

        def host() -> HostRow:
            return next(row for row in app.client.table.hosts.values() if row.dedicated)

        for life in (1, 2):
            former = host()
            at = kill(former)
            assert await board.add(1) == 40 + life
            figure(f"death {life}: answered again after", time.perf_counter() - at)
            await until(lambda former=former: host().incarnation != former.incarnation, 5.0, "a new incarnation")  # type: ignore[misc]
            assert host().name == former.name == entity_name(app.name, "alone/board")
            assert host().pid != former.pid
        assert await board.value() == 42
