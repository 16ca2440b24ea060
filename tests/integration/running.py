"""An app that runs on the tests' Ray cluster, and what tests do to its processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.util import list_named_actors
from ray.util.state import list_actors

from remora import Client, RemoraError
from remora.app import AppSource
from remora.cluster import bootstrap
from remora.cluster.names import app_prefix, host_prefix
from remora.cluster.transport import RayDirectory, actors
from remora.config import AS_CODED, AppConfig
from remora.sharding.hashing import shard_of
from remora.sharding.table import HostRow

POLL_S = 0.005
"""Seconds between looks at a condition: what a measured time may be off by."""


async def until(condition: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait until something holds; return the seconds it took."""
    began = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began < within_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(POLL_S)  # noqa: TID251 - a bounded wait for a condition of other processes
    return time.perf_counter() - began


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment a process was started with."""
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def listed(app: str) -> dict[str, Any]:
    """Return what `ray list actors` shows of an app's live actors: name → the state API's record."""
    found: Any = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
    return {actor.name: actor for actor in found if (actor.name or "").startswith(f"remora/{app}/")}


@dataclass(frozen=True)
class Running:
    """A running app."""

    name: str
    path: str
    client: Client
    store: Path

    def hosts(self) -> list[HostRow]:
        """Return the shared hosts of the client's table."""
        return [row for row in self.client.table.hosts.values() if not row.dedicated]

    def balanced(self, hosts: int) -> bool:
        """Return whether so many hosts have all shards, evenly."""
        counts = [len(self.client.table.owned_by(row.incarnation)) for row in self.hosts()]
        shards = self.client.settings.shards
        return len(counts) == hosts and sum(counts) == shards and max(counts) - min(counts) <= 1

    def shard(self, key: str) -> str:
        """Return the shard of ``type/id``."""
        return shard_of(key, self.client.settings.shards)

    def owner(self, key: str) -> int:
        """Return the incarnation that owns the shard of ``type/id``."""
        return self.client.table.shards[self.shard(key)].owner

    async def registry_pid(self) -> int:
        """Return the process of the registry that leads."""
        leader = (await RayDirectory(self.name).ask("status"))["leader"]
        return int(listed(self.name)[leader].pid)

    def holds_turn(self, row: HostRow) -> bool:
        """Return whether a host has the store's turn to write."""
        inode = str(Path(f"{self.store}-turn").stat().st_ino)
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return any("->" not in one and one[4] == str(row.pid) and one[5].endswith(f":{inode}") for one in locks)

    async def freeze(self, row: HostRow, *, writing: bool) -> float:
        """Stop a host's process, in the middle of a commit or outside of one; return when."""
        async with asyncio.timeout(30):
            while True:
                os.kill(row.pid, signal.SIGSTOP)
                if self.holds_turn(row) is writing:
                    return time.perf_counter()
                os.kill(row.pid, signal.SIGCONT)
                await asyncio.sleep(POLL_S)  # noqa: TID251 - lets it get on, until it is caught as wanted

    def host_actors(self) -> set[str]:
        """Return the names of the shared hosts' actors that Ray runs, in the table or not."""
        named: list[Any] = list_named_actors(all_namespaces=True)
        return {one["name"] for one in named if one["name"].startswith(host_prefix(self.name))}

    async def registry_answers(self, within_s: float) -> float:
        """Wait for the registry's answer to a question; return the seconds it took."""
        directory, began = RayDirectory(self.name), time.perf_counter()
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await directory.ask("status", within_s=1.0)
                except RemoraError:
                    await asyncio.sleep(POLL_S)  # noqa: TID251 - a bounded wait for another process
                else:
                    return time.perf_counter() - began

    def rows(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Read from the store, past the platform."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=10.0)) as connection:
            return connection.execute(statement, values).fetchall()


def kill(row: HostRow) -> float:
    """End a host as a crash would; return when."""
    at = time.perf_counter()
    os.kill(row.pid, signal.SIGKILL)
    return at


@asynccontextmanager
async def running(path: str, store: Path, hosts: int = 2, config: AppConfig = AS_CODED) -> AsyncIterator[Running]:
    """Run an app on the joined cluster and stop it again."""
    source = AppSource(path, config)
    app = source.load()
    await bootstrap.ensure_platform(source, f"sqlite:///{store}", hosts)
    try:
        async with await bootstrap.open_client(app) as client:
            started = Running(app.name, path, client, store)
            await until(lambda: started.balanced(hosts), 30, "all shards are placed evenly")
            yield started
    finally:
        await bootstrap.stop_platform(app.name)
        assert await actors(app_prefix(app.name)) == set(), "nothing is left for the next test to meet"
