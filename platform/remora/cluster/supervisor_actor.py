"""The Ray actor around one of an app's supervisors. It decides nothing."""

from __future__ import annotations

import asyncio
import logging
import os

import ray

from remora.app import AppSource
from remora.client import Client
from remora.clock import SystemClock
from remora.cluster.transport import RayDirectory, RayTransport
from remora.errors import StartError
from remora.runtime.supervisor import SupervisorProcess
from remora.storage.open import open_store


class SupervisorActor:
    """One supervisor's process. The constructor only keeps its arguments: Ray ends an actor for good whose constructor raises.

    Args:
        source: Where its process gets the app from.
        store: Store URL.
        name: Name of the supervisor.
    """

    def __init__(self, source: AppSource, store: str, name: str) -> None:
        self._source = source
        self._store_url = store
        self._name = name
        self._process: SupervisorProcess | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> tuple[str, int]:
        """Run the supervisor, unless it runs; return the node and the pid.

        Raises:
            StartError: The app has no such supervisor, or it raised as it started.
        """
        await self._running()
        return ray.get_runtime_context().get_node_id(), os.getpid()

    async def _running(self) -> SupervisorProcess:
        async with self._starting:
            if self._process is None:
                self._process = await self._start()
            return self._process

    async def _start(self) -> SupervisorProcess:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        app = self._source.load()
        cls = next((one for one in app.supervisors.values() if one.name == self._name), None)
        if cls is None:
            msg = f"App {app.name!r} has no supervisor {self._name!r} any more."
            raise StartError(msg)
        store = open_store(self._store_url)
        await store.open(app.name, app.settings.shards)
        session = f"supervisor {self._name}/{ray.get_runtime_context().get_worker_id()}"
        client = Client(RayDirectory(app.name), RayTransport(), SystemClock(), app.settings, session, seed=os.getpid())
        process = SupervisorProcess(app, cls, store, client)
        try:
            await client.start()
            await process.start()
        except BaseException:  # the next try begins anew
            await process.close()
            await client.close()
            await store.close()
            raise
        return process

    async def answer(self, failure: bytes) -> str:
        """Return the name of the directive for a ``Failure`` as JSON; empty: the declared rules decide."""
        # Ray may have restarted this process, and whoever looks after it not have seen that yet.
        return await (await self._running()).answer(failure)

    async def watch(self) -> None:
        """Never return: the call fails when this process ends, which is how its death is noticed."""
        await asyncio.Event().wait()
