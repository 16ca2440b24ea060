"""How the registry runs supervisors on Ray: named detached actors that Ray restarts as far as their rules need no pause."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from remora.app import App, AppSource
from remora.cluster.names import NAMESPACE, supervisor_name
from remora.cluster.ray_nodes import NODE_LABEL
from remora.cluster.supervisor_actor import SupervisorActor
from remora.cluster.transport import Handle, first_line, ours

RESTARTING_S = 0.1
"""Pause before an actor that Ray is restarting is asked again, in seconds."""
START_S = 60.0
"""Longest wait for a supervisor's process to start, in seconds: a cold node included."""


class RaySupervisors:
    """Runs supervisors as Ray named detached actors.

    Args:
        app: The app.
        source: Where their processes get it from.
        store: Store URL.
    """

    def __init__(self, app: App, source: AppSource, store: str) -> None:
        self._app = app
        self._source = source
        self._store = store
        self._handles: dict[str, Handle] = {}

    async def stand(self, name: str, *, restarts: int, avoid: str) -> tuple[str, int]:
        """See ``SupervisorActors``."""
        actor = supervisor_name(self._app.name, name)
        handle: Handle | None = None
        try:
            handle = self._create(actor, name, restarts, avoid)
            async with asyncio.timeout(START_S):
                node, pid = await _started(handle)
        except (RayError, TimeoutError) as error:
            if handle is not None:
                ray.kill(
                    handle, no_restart=True
                )  # the next one gets what is left to Ray by then, on another node maybe
            raise ours(error, actor) from error
        self._handles[name] = handle
        return node, pid

    def _create(self, actor: str, name: str, restarts: int, avoid: str) -> Handle:
        options: dict[str, Any] = {"label_selector": {NODE_LABEL: f"!{avoid}"}} if avoid else {}
        if avoid:
            options["fallback_strategy"] = [{"label_selector": {}}]
        remote: Any = ray.remote(SupervisorActor).options(
            name=actor, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, max_restarts=restarts,
            max_task_retries=0, num_cpus=0, max_concurrency=1_000, enable_task_events=False, **options,
        )  # fmt: skip
        handle: Handle = remote.remote(self._source, self._store, name)
        return handle

    async def ended(self, name: str) -> str:
        """See ``SupervisorActors``."""
        try:
            await self._handles[name].watch.remote()
        except RayError as error:
            return first_line(error)
        return "its watch returned"


async def _started(handle: Handle) -> tuple[str, int]:
    while True:
        try:
            found: tuple[str, int] = await handle.start.remote()
        except ActorUnavailableError:  # Ray restarts it by itself
            await asyncio.sleep(RESTARTING_S)
        else:
            return found
