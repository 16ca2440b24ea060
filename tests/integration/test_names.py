"""What runs where, under which names and in which environment."""

import os
import platform
from pathlib import Path
from typing import Any

import pytest
import ray

from remora.app import AppSource
from remora.cluster import bootstrap
from remora.cluster.ray_process import RayProcess, environment
from tests.integration.apps import Alone, Witness
from tests.integration.running import environment_of, listed, running, until

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(180)]
COMMON = "tests.integration.apps:common"


def found_actor(name: str) -> Any:  # noqa: ANN401 - Ray gives handles no type
    """Find an actor as the documentation says."""
    return ray.get_actor(name, namespace="remora")


async def test_hosts_and_registry_are_named_detached_actors_in_the_namespace_remora(tmp_path: Path) -> None:
    async with running(COMMON, tmp_path / "common.db") as app:
        names = {row.name for row in app.hosts()}
        await until(lambda: "remora/common/registry-standby" in listed("common"), 60, "another registry stands by")
        found = listed("common")

        assert {name.rpartition("/")[0] for name in names} == {"remora/common/host/1", "remora/common/host/2"}
        assert found.keys() == {*names, "remora/common/registry", "remora/common/registry-standby"}
        for name, actor in found.items():
            assert (actor.ray_namespace, actor.is_detached) == ("remora", True)
            assert found_actor(name)._actor_id.hex() == actor.actor_id  # noqa: SLF001 - Ray offers no other name for it
        assert {found[row.name].pid for row in app.hosts()} == {row.pid for row in app.hosts()}


async def test_a_dedicated_entity_is_found_and_listed_under_its_own_name(tmp_path: Path) -> None:
    async with running(COMMON, tmp_path / "common.db") as app:
        assert await app.client.ref(Alone, "board").add(3) == 3
        name = "remora/common/entity/alone/board"

        found = listed("common")[name]

        assert (found.ray_namespace, found.is_detached) == ("remora", True)
        status = await found_actor(name).status.remote()
        assert (status["dedicated"], status["live"], status["pid"]) == ("alone/board", 1, found.pid)
        assert status["pid"] not in {row.pid for row in app.hosts()}


async def test_a_host_sees_the_standard_library_under_the_name_platform(tmp_path: Path) -> None:
    async with running(COMMON, tmp_path / "common.db") as app:
        for row in app.hosts():
            assert await found_actor(row.name).platform_file.remote() == platform.__file__


async def test_the_authentication_mode_is_set_in_every_process_of_the_platform(
    cluster: RayProcess, tmp_path: Path
) -> None:
    async with running(COMMON, tmp_path / "common.db") as app:
        for pid in (cluster.pid, await app.registry_pid(), *(row.pid for row in app.hosts())):
            assert environment_of(pid)["RAY_AUTH_MODE"] == "disabled"


def test_the_authentication_mode_is_explicit_where_nobody_chose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")

    assert environment()["RAY_AUTH_MODE"] == "disabled"


def test_an_authentication_mode_that_somebody_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    assert environment()["RAY_AUTH_MODE"] == "token"


async def test_starting_a_platform_that_runs_changes_nothing(tmp_path: Path) -> None:
    async with running(COMMON, tmp_path / "common.db") as app:
        before = app.client.table
        registry = await app.registry_pid()

        await bootstrap.ensure_platform(AppSource(COMMON), f"sqlite:///{tmp_path / 'common.db'}", 2)
        assert await app.client.ref(Witness, "one").mark(1) == 1

        assert (app.client.table, await app.registry_pid()) == (before, registry)
        assert os.getpid() not in {row.pid for row in app.hosts()}
