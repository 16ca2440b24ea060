"""Stopping an app: nothing of it is left, also of what was being started meanwhile."""

import pytest

from remora.cluster import bootstrap
from remora.cluster.names import registry_name, standby_name
from remora.cluster.transport import RayDirectory
from remora.errors import HostGone


async def test_a_registry_that_is_created_anew_by_the_other_as_it_ends_is_ended_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, other, host = registry_name("bank"), standby_name("bank"), "remora/bank/host/1/1-1"
    running, ended = {first, other, host, "remora/another/registry"}, list[str]()

    async def ask(*_: object, **__: object) -> None:
        msg = "it is frozen"
        raise HostGone(msg)

    async def actors(prefix: str) -> set[str]:
        return {name for name in running if name.startswith(prefix)}

    async def end(name: str) -> None:
        running.discard(name)
        ended.append(name)
        if len(ended) == 2:  # the one that leads was keeping the other, and was not done with that
            running.add(first)

    monkeypatch.setattr(RayDirectory, "ask", ask)
    monkeypatch.setattr(bootstrap, "actors", actors)
    monkeypatch.setattr(bootstrap, "end_actor", end)

    await bootstrap.stop_platform("bank")

    assert running == {"remora/another/registry"}
    assert ended == [*ended[:2], first, host], "hosts are ended when nobody is left to start them again"
