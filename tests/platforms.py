"""A platform in this process, with its insides at hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from remora import App, Client
from remora.clock import Clock, SystemClock
from remora.journal import Store
from remora.local import LocalPlatform
from remora.runtime.host import Host
from remora.sharding.allocation import Move
from remora.testing import FaultyStore


@asynccontextmanager
async def running(
    app: App, store: Store | None = None, *, hosts: int = 1, clock: Clock | None = None
) -> AsyncIterator[tuple[LocalPlatform, Client]]:
    """Run an app; yield its platform and a client."""
    platform = LocalPlatform(app, store or FaultyStore(), clock or SystemClock())
    try:
        await platform.start(hosts)
        yield platform, await platform.client().start()
    finally:
        if isinstance(store, FaultyStore):
            store.mend()
        await platform.close()


def host_of(platform: LocalPlatform, key: str) -> Host:
    """Return the host that owns an entity."""
    return next(host for host in platform.hosts.values() if host.shard_name(key) in host.shards)


async def move(platform: LocalPlatform, key: str) -> str:
    """Move an entity's shard to the next host; return that host's name."""
    registry = platform.registry
    source = host_of(platform, key)
    names = sorted(platform.hosts)
    name = names[(names.index(source.name) + 1) % len(names)]
    # What the rebalance does, at the time of the test's choice.
    await registry.move({source.shard_name(key): Move(source.incarnation, platform.hosts[name].incarnation)})
    return name
