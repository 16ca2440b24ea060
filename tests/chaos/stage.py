"""Where the chaos plays: PostgreSQL, a proxy to it for every node, the nodes, and the app on them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg
from ray.exceptions import RayError

from remora import App, Client
from remora.app import AppSource
from remora.cluster import bootstrap
from remora.cluster.names import registry_names
from remora.cluster.transport import find_actor
from remora.errors import HostGone
from remora.sharding.table import HostRow
from tests import postgres
from tests.nodes import Node, Nodes, Shape, cluster, where
from tests.proxy import Proxy

T = TypeVar("T")
STORE = "REMORA_STORE"
FOLLOW_NODES = 0
"""As a number of hosts: one per CPU of every node, less one where there are several."""
START_S = 60.0
EVEN = (0.5, 1.5)
"""Least and most of its share that a host has when nothing has to move: by measured load some shards count for more."""
LEADS_S = 2.0
"""Longest wait for a registry to say whether it leads, in seconds."""
POLL_S = 0.02


class Proxies:
    """Proxies to one server, in a thread of their own: nobody's work may delay what passes.

    Args:
        url: Of the server.
        pass_through: Whether everybody goes to the server itself, past the proxies.
    """

    def __init__(self, url: str, *, pass_through: bool = False) -> None:
        self._url = url
        self._pass_through = pass_through
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self.all: list[Proxy] = []

    def add(self) -> Proxy:
        """Start another one."""
        proxy = self._run(Proxy(self._url).__aenter__())
        if self._pass_through:
            proxy.url = self._url
        self.all.append(proxy)
        return proxy

    def do(self, action: Callable[[], None]) -> None:
        """Call a proxy's method where it lives; return when it is done."""

        async def call() -> None:
            action()

        self._run(call())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.all:
            self._run(proxy.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()


@dataclass
class Stage:
    """A running app on nodes of which each reaches the store its own way."""

    app: App
    database: str
    """URL of the database itself, past the proxies."""
    nodes: Nodes
    proxies: Proxies
    client: Client
    """The runner's own: it follows the table."""
    proxy_of: dict[str, Proxy]
    """Name of a node → its way to the store; none on SQLite."""
    hosts_per_node: int

    def hosts(self, node: Node | None = None) -> list[HostRow]:
        """Return the hosts of the table as last seen, in a stable order; those of one node if given."""
        rows = sorted(self.client.table.hosts.values(), key=lambda row: row.incarnation)
        return [row for row in rows if node is None or node.has(row)]

    async def registry(self) -> tuple[int, Node | None] | None:
        """Return the process of the registry that leads, and its node if it is not the head; None if none leads."""
        for name in registry_names(self.app.name):
            with contextlib.suppress(HostGone, RayError, TimeoutError):
                handle: Any = await find_actor(name)
                async with asyncio.timeout(LEADS_S):
                    if await handle.leads.remote():
                        pid, node = await handle.__ray_call__.remote(where)
                        return pid, next((one for one in self.nodes.all if one.id == node), None)
        return None

    def settled(self) -> bool:
        """Return whether every shard has a host that lives on a running node."""
        alive = {node.id for node in self.nodes.alive if not node.frozen}
        here = {row.incarnation for row in self.hosts() if row.node in alive}
        shards = self.client.table.shards
        return len(shards) >= self.app.settings.shards and all(row.owner in here for row in shards.values())

    def balanced(self) -> bool:
        """Return whether every node has as many hosts as it should, and each of them about its share of the shards."""
        counts = [len(self.client.table.owned_by(row.incarnation)) for row in self.hosts()]
        share = self.app.settings.shards / (len(self.nodes.alive) * self.hosts_per_node)
        wanted = len(self.nodes.alive) * self.hosts_per_node
        return self.settled() and len(counts) == wanted and all(EVEN[0] <= one / share <= EVEN[1] for one in counts)

    async def add_node(self) -> Node:
        """Start another node with its own way to the store."""
        proxy = self.proxies.add()
        (node,) = await asyncio.to_thread(self.nodes.add, _shape(proxy.url, _cpus(self.hosts_per_node)))
        self.proxy_of[node.name] = proxy
        return node

    def keep_logs(self, folder: Path) -> None:
        """Copy what the processes of all nodes logged, before it goes with them."""
        for name, root in [("head", Path(self.nodes.head.temp_dir)), *((n.name, n.folder) for n in self.nodes.all)]:
            for session in root.glob("session_2*"):
                if not session.is_symlink():
                    shutil.copytree(session / "logs", folder / "ray" / name, dirs_exist_ok=True, symlinks=True)


@asynccontextmanager
async def stage(
    app: App, app_path: str, nodes: int, hosts_per_node: int, *, durable: bool = False, proxied: bool = True
) -> AsyncIterator[Stage]:
    """Start everything on PostgreSQL; stop it at the end, and delete the database.

    Args:
        app: The app.
        app_path: Where it is found.
        nodes: How many, beside a head that hosts nothing.
        hosts_per_node: How many hosts each is to have.
        durable: Whether commits wait for the disk, as figures have to.
        proxied: Whether each node's way to the store can be cut off; figures are measured without that.
    """
    with _server(durable=durable) as url, Proxies(url, pass_through=not proxied) as proxies:
        head, *others = [proxies.add() for _ in range(nodes + 1)]
        # Not in a thread: whoever is interrupted while it runs could not stop what it started.
        with cluster([_shape(way.url, _cpus(hosts_per_node)) for way in others], head={STORE: head.url}) as started:
            ways = dict(zip((node.name for node in started.alive), others, strict=True))
            async with _running(app, app_path, FOLLOW_NODES) as client:
                made = Stage(app, url, started, proxies, client, ways, hosts_per_node)
                await until(made.balanced, START_S, "all shards are placed evenly")
                yield made


@asynccontextmanager
async def stage_on_sqlite(app: App, app_path: str, hosts: int, folder: Path) -> AsyncIterator[Stage]:
    """Start everything on SQLite, whose hosts all live on one machine: on one node.

    Args:
        app: The app.
        app_path: Where it is found.
        hosts: How many.
        folder: For the database; an absolute path.
    """
    url = f"sqlite:///{folder / 'store.db'}"
    with (
        Proxies(url) as proxies,
        cluster([_shape(url, hosts)], head={STORE: url}, own_machines=False) as started,
    ):
        async with _running(app, app_path, hosts) as client:
            made = Stage(app, url, started, proxies, client, {}, hosts)
            await until(made.balanced, START_S, "all shards are placed evenly")
            yield made


@asynccontextmanager
async def _running(app: App, app_path: str, hosts: int) -> AsyncIterator[Client]:
    await bootstrap.ensure_platform(AppSource(app_path), f"env:{STORE}", hosts)
    async with await bootstrap.open_client(app) as client:
        yield client


def _cpus(hosts: int) -> int:
    """Return how many CPUs a node has to have for so many hosts: of several, one is left to gateways."""
    return hosts + 1 if hosts > 1 else 1


def _shape(url: str, cpus: int) -> Shape:
    return Shape(cpus=cpus, environment={STORE: url})


@contextmanager
def _server(*, durable: bool) -> Iterator[str]:
    settings = {"max_connections": "300"}
    if durable:
        settings |= {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "shared_buffers": "256MB"}
    server = postgres.new_server(**settings)
    try:
        yield server.url()
    finally:
        server.delete()


async def until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: It did not in time.
    """
    try:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - nobody here sets an event
                await asyncio.sleep(POLL_S)  # noqa: TID251 - a bounded wait for a condition of other processes
    except TimeoutError:
        msg = f"not within {within_s:g} s: {what}"
        raise TimeoutError(msg) from None


async def rows(stage: Stage, statement: str) -> list[tuple[Any, ...]]:
    """Read from the database with nothing of the platform in between."""
    path = stage.database.removeprefix("sqlite:///")
    if path != stage.database:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)) as found:
            return found.execute(statement).fetchall()
    connection = await asyncpg.connect(stage.database, server_settings={"search_path": f'"remora_{stage.app.name}"'})
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()
