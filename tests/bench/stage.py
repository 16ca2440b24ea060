"""A Ray cluster of the bench's own, started and stopped by it, with the bank on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve

from entities.account import Account, app
from remora import Client
from remora.app import AppSource
from remora.cluster import bootstrap
from remora.cluster.ray_process import free_ports, start_ray, stop_ray
from remora.gateway.deployment import build
from tests.bench.drive import Measured, Plan
from tests.bench.load import Spec
from tests.bench.peers import endpoints, start_raw_actor
from tests.postgres import Server

APP_PATH = "entities.account:app"
FOLDER = Path(".bench")
STORES = ("sqlite", "postgres")
HOSTS = max(os.cpu_count() or 1, 2)
"""As `remora up` starts them."""
ENTITIES = 10_000
"""Many entities, for the Python rows."""
HTTP_ENTITIES = 1_000
AT_ONCE = 1_000
"""Calls under way while entities are warmed up or checked."""


@dataclass(frozen=True)
class Stage:
    """What the rows measure on."""

    plan: Plan
    store: str
    """One of STORES."""
    client: Client
    raw: Any
    """Handle of the raw Ray actor."""
    serve_port: int
    """Where Serve listens, or 0 if no row needs it."""

    async def total(self, ids: str, entities: int) -> int:
        """Return the sum of the balances of the entities ``<ids>0`` to ``<ids>N``."""
        found = 0
        for first in range(0, entities, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, entities))
            refs = [self.client.ref(Account, f"{ids}{number}") for number in numbers]
            found += sum(await asyncio.gather(*(ref.balance() for ref in refs)))
        return found

    async def check(self, ids: str, entities: int, acknowledged: int) -> None:
        """Compare balances with what was acknowledged: a fast wrong answer is no result.

        Raises:
            RuntimeError: They differ.
        """
        found = await self.total(ids, entities)
        if found != acknowledged:
            msg = f"{acknowledged} deposits of 1 to {ids}* were acknowledged, their balances add up to {found}"
            raise RuntimeError(msg)

    async def http(self, path: str, ids: str, connections: int, lines: int = 0, port: int = 0) -> Measured:
        """Load a path from another process.

        Raises:
            RuntimeError: Anything but 200 came back, or a connection was lost.
        """
        plan = self.plan
        spec = Spec(port or self.serve_port, path, ids, HTTP_ENTITIES, connections, plan.warm_up_s, plan.seconds, lines)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.load", json.dumps(asdict(spec)), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        if process.returncode:
            msg = f"the load on {path} failed: it says why above"
            raise RuntimeError(msg)
        return Measured(**json.loads(out))


@contextlib.contextmanager
def _store_url(kind: str) -> Iterator[str]:
    """Give a fresh store below ``.bench/``, on this disk, and delete it at the end."""
    folder = (FOLDER / "store").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    server: Server | None = None
    try:
        if kind == "postgres":
            # Unlike in tests, a commit waits for the disk, and the server keeps house as it does by default.
            server = Server(folder, fsync="on", full_page_writes="on", autovacuum="on", shared_buffers="256MB")
        yield server.url() if server is not None else f"sqlite:///{folder / 'bank.db'}"
    finally:
        if server is not None:
            server.delete()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def stage(plan: Plan, store: str, *, serving: bool) -> AsyncIterator[Stage]:
    """Start everything on a fresh store; stop it, and delete the store, at the end."""
    with _store_url(store) as url:
        # As `remora up`: a CPU for each host, the rest for gateway and peers.
        # Not in a thread, here and below: whoever is interrupted while it runs could not stop what it started.
        own = start_ray(HOSTS + 4)
        try:
            bootstrap.join_ray(own.address)
            await bootstrap.ensure_platform(AppSource(APP_PATH), url, HOSTS)
            raw = start_raw_actor()
            await raw.deposit.remote("first", 1)
            port = _serve(url) if serving else 0
            async with await bootstrap.open_client(app) as client:
                yield Stage(plan, store, client, raw, port)
        finally:
            if ray.is_initialized():
                ray.shutdown()
            stop_ray(own.pid, own.temp_dir)
            shutil.rmtree(own.temp_dir, ignore_errors=True)


def _serve(store: str) -> int:
    """Serve the gateway and the peers behind one proxy; return the port."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    (port,) = free_ports(1)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    serve.run(build({"app": APP_PATH, "store": store, "hosts": HOSTS}), name=app.name, route_prefix="/")
    for name, endpoint in endpoints().items():
        serve.run(endpoint, name=name, route_prefix=f"/{name}")
    return port


def sync_ms(folder: Path, rounds: int = 200) -> float:
    """Return the median milliseconds this disk takes to write and sync 4 kB: what a commit cannot go below."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sync"
    times_s = []
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        for number in range(rounds):
            began_s = time.perf_counter()
            os.pwrite(descriptor, b"x" * 4096, number * 4096)
            os.fdatasync(descriptor)
            times_s.append(time.perf_counter() - began_s)
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
    return sorted(times_s)[rounds // 2] * 1e3
