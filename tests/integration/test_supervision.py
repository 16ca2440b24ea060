"""Supervision on Ray: rules reach every host, whatever they were declared in."""

from pathlib import Path

import pytest
import ray

from remora import HandlerFailed, Stopped
from remora.app import AppSource
from remora.cluster import bootstrap
from remora.cluster.names import NAMESPACE, registry_names
from remora.cluster.transport import RayDirectory
from remora.config import read_config
from tests.integration.apps import Witness
from tests.integration.running import listed, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(180)]
RULES = """
supervision:
  entities:
    witness:
      - exceptions: ArithmeticError
        directive: resume
        at_most: 1
        then: stop
"""


async def test_rules_of_a_file_decide_on_every_host(tmp_path: Path) -> None:
    config = read_config(RULES, "rules.yaml")
    async with running("tests.integration.apps:common", tmp_path / "common.db", config=config) as app:
        owners = set()
        for number in range(8):
            key = f"witness/{number}"
            witness = app.client.ref(Witness, str(number))
            assert await witness.mark(1) == 1
            for _ in range(2):
                with pytest.raises(HandlerFailed, match="ArithmeticError"):
                    await witness.fail()
            with pytest.raises(Stopped, match="ArithmeticError"):
                await witness.mark(2)
            owners.add(app.owner(key))

        assert owners == {row.incarnation for row in app.hosts()}
        await until(lambda: len(app.rows("SELECT * FROM failures WHERE times = 2")) == 8, 5, "all failures are noted")
        told = await RayDirectory(app.name).ask("failures", 10, "witness")
        assert {row["entity"] for row in told} == {f"witness/{number}" for number in range(8)}
        assert {row["latest"]["host"] for row in told} == {row.name for row in app.hosts()}


LEVELS = """
supervision:
  entities:
    witness: [{exceptions: ArithmeticError, directive: escalate}]
  shard: [{exceptions: ArithmeticError, directive: escalate}]
  host: [{exceptions: ArithmeticError, directive: escalate}]
  groups:
    shared:
      strategy: all_for_one
      rules: [{exceptions: ArithmeticError, backoff: {min_s: 0}, at_most: 1, then: escalate}]
"""
MARKED = 20


@pytest.mark.slow
async def test_escalation_climbs_to_the_group_which_restarts_all_its_hosts_then_to_the_app_which_stops_until_it_is_started_anew(
    tmp_path: Path,
) -> None:
    config = read_config(LEVELS, "rules.yaml")
    async with running("tests.integration.apps:common", tmp_path / "common.db", config=config) as app:
        witnesses = [app.client.ref(Witness, str(number)) for number in range(MARKED)]
        for witness in witnesses:
            assert await witness.mark(1) == 1
        before = {row.incarnation for row in app.hosts()}

        with pytest.raises(HandlerFailed):
            await witnesses[0].fail()
        await until(
            lambda: app.balanced(2) and not before & {row.incarnation for row in app.hosts()}, 60, "both are new"
        )
        assert [await witness.mark(2) for witness in witnesses] == [2] * MARKED

        with pytest.raises(HandlerFailed):
            await witnesses[1].fail()
        await until(lambda: bool(app.client.table.halted), 60, "the app has stopped")
        with pytest.raises(Stopped, match=r"App common was stopped by its supervision rules, after: witness/1\.fail"):
            await witnesses[0].mark(3)
        assert app.host_actors() == set()
        status = await RayDirectory(app.name).ask("status")
        assert status["halted"] == app.client.table.halted

        # Whichever registry is left tells why, and there are two again: each may be lost.
        await until(
            lambda: set(registry_names(app.name)) <= listed(app.name).keys(), 60, "the other registry stands by"
        )
        led = listed(app.name)[status["leader"]]
        ray.kill(ray.get_actor(led.name, NAMESPACE), no_restart=True)
        await app.registry_answers(60)
        await until(
            lambda: (one := listed(app.name).get(led.name)) is not None and one.pid != led.pid, 60, "another stands by"
        )
        followed = await RayDirectory(app.name).ask("status")
        assert followed["halted"] == status["halted"]
        assert followed["leader"] != led.name

        await bootstrap.ensure_platform(AppSource(app.path, config), f"sqlite:///{app.store}", 2)
        await until(lambda: app.balanced(2), 60, "it runs again")
        assert [await witness.marks() for witness in witnesses] == [[1, 2]] * MARKED
