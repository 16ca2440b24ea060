"""Starting, finding and stopping a platform on Ray."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from remora.app import App, AppSource
from remora.client import Client
from remora.clock import SystemClock
from remora.cluster import record as records
from remora.cluster.names import (
    AUTH_MODE,
    NAMESPACE,
    entity_name,
    host_prefix,
    registry_name,
    registry_names,
    supervisor_prefix,
)
from remora.cluster.ray_process import SERVE_ENVIRONMENT
from remora.cluster.registry_actor import RegistryActor, registry_options
from remora.cluster.transport import (
    RayDirectory,
    RayTransport,
    actors,
    end_actor,
    find_actor,
    first_line,
    lookups_over,
    ours,
)
from remora.errors import ClusterUnreachable, HostGone, RemoraError, StartError
from remora.settings import Settings

PLATFORM_S = 180.0
"""Longest wait for registry and hosts to be up, in seconds."""
SPARE_S = 30.0
"""What is left of it at least for the registry to begin and to say what it waited for, or could not stop, in seconds."""
SAY_S = 1.0
"""Seconds between looks at what is waited for."""
STOP_ASK_S = 2.0
"""Longest wait for each registry to say whether there is an order to stop in, in seconds: one that is frozen says nothing."""
ENDED_S = 10.0
"""Longest wait until Ray has no actor any more of those that were ended together, in seconds."""
ENDED_LOOK_S = 0.05
"""Pause between looks at that, in seconds."""
CALL_S = 15.0
"""Longest wait for the registry's answer to a question, in seconds."""
LISTENING_S = 5.0
"""Longest wait for a TCP connection to a cluster, in seconds."""
_log = logging.getLogger("remora.bootstrap")
_joined: dict[str, str] = {}
"""Ray job of this process → the address it was joined by (Ray reports the same cluster under other names)."""


def absolute_store(url: str) -> str:
    """Return a store URL that means the same in every process of this machine."""
    path = url.removeprefix("sqlite:///")
    return url if path == url else f"sqlite:///{Path(path).absolute()}"


def join_ray(address: str) -> None:
    """Join this process to the Ray cluster at ``address``, and no other.

    Raises:
        ClusterUnreachable: Nothing answers there.
    """
    os.environ.setdefault("RAY_AUTH_MODE", AUTH_MODE)
    for name, value in SERVE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        joined = _joined.get(ray.get_runtime_context().get_job_id(), "another address")
        if joined != address:
            msg = f"This process is already joined to the Ray cluster at {joined}, not {address}: use another process."
            raise ClusterUnreachable(msg)
        return
    # Threads may not set signal handlers; `connect` joins in one and wants none.
    logging.getLogger("ray._private.worker").addFilter(_is_no_signal_warning)
    try:
        _check_listening(address)
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        msg = f"No Ray cluster answers at {address} ({first_line(error)}): start one with `remora up`, or correct the address."
        raise ClusterUnreachable(msg) from error
    _joined[ray.get_runtime_context().get_job_id()] = address


def _is_no_signal_warning(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("SIGTERM handler is not set")


def _check_listening(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:  # noqa: PLR2004 - 16 bits
        msg = "an address is host:port"
        raise ValueError(msg)
    with socket.create_connection((host.strip("[]"), int(port)), timeout=LISTENING_S):
        pass


async def ensure_platform(
    source: AppSource, store: str, hosts: int, report: Callable[[str], None] = lambda _: None, *, anew: bool = True
) -> None:
    """See to it that an app's registry and hosts run in the Ray cluster of this process. Idempotent.

    Args:
        source: Where its processes get the app from.
        store: Store URL.
        hosts: How many shared hosts; 0: one per CPU of each node (but one), following the nodes as they come and go.
        report: Told in a few words what is waited for, of what the app has declared.
        anew: Whether to start again what supervision rules have stopped in this Ray cluster; in another one it is.

    Raises:
        StartError: They did not come up; the message says why.
    """
    app = source.load()
    url, name = absolute_store(store), registry_name(app.name)
    actor = ray.remote(RegistryActor).options(**registry_options(name))
    # Either: while the other one leads, this one may just be starting again.
    stood = any([await _stands(one) for one in registry_names(app.name)])
    registry: Any = actor.remote(source, url, hosts, name)
    try:
        async with asyncio.timeout(max(PLATFORM_S, app.settings.ready_within_s + SPARE_S)):
            await registry.start.remote(url, anew or not stood)
            if app.order.declared:  # by whichever registry leads, and whoever began to start it
                await _ready(app, report)
    except (RayError, RemoraError, TimeoutError) as error:
        if not stood:  # one that stood before has hosts to look after, and may only be restarting
            await stop_platform(app.name)
        if isinstance(error, StartError):
            raise
        cause = error if isinstance(error, RemoraError) else ours(error, name)
        if isinstance(cause, StartError):
            raise cause from error
        msg = f"The registry of {app.name} did not start: {cause.message}"
        raise StartError(msg) from error


async def _ready(app: App, report: Callable[[str], None]) -> None:
    registry = RayDirectory(app.name)
    ready = asyncio.ensure_future(registry.ask("ready", within_s=app.settings.ready_within_s + SPARE_S))
    try:
        while not (await asyncio.wait([ready], timeout=SAY_S))[0]:
            for one in (await registry.ask("waiting", within_s=CALL_S))[:1]:
                report(f"{one['what']} waits for {one['waits_for']}")
        await ready
    finally:
        ready.cancel()


async def _stands(name: str) -> bool:
    try:
        await find_actor(name)
    except HostGone:
        return False
    return True


async def stop_platform(app: str) -> None:
    """End an app's registries, supervisors and hosts in the Ray cluster of this process; what was acknowledged is in the store.

    The registry that leads is asked first to start nothing any more and to close everything in order; what it does not do in
    time is not waited for. Then they are ended by name and not by what a registry knows: that may be restarting, and hosts may
    just be being started.
    """
    registry = RayDirectory(app)
    try:
        within_s: float = await registry.ask("stops_within_s", within_s=STOP_ASK_S)
        for one in await registry.ask("stop", within_s=within_s + SPARE_S):
            _log.warning("%s was not stopped cleanly: %s", app, one)
    except RemoraError as error:
        _log.info("nothing of %s was stopped in order: %s", app, error)
    # Registries first, and both: either would start again what is ended here.
    for prefix in (registry_name(app), supervisor_prefix(app), host_prefix(app), entity_name(app, "")):
        await _end_all(prefix)


async def _end_all(prefix: str) -> None:
    """End the actors whose names begin so, and those that were being started meanwhile."""
    names = await actors(prefix)
    try:
        async with asyncio.timeout(ENDED_S):
            while names:
                await asyncio.gather(*map(end_actor, names))
                await asyncio.sleep(ENDED_LOOK_S)
                names = await actors(prefix)
    except TimeoutError:
        _log.warning("%g s after they were ended Ray still has: %s", ENDED_S, ", ".join(sorted(names)))


async def open_client(app: App | str) -> Client:
    """Return a started client of an app whose platform runs in this process's Ray cluster.

    Args:
        app: The app; its name will do if its settings are the defaults.

    Raises:
        ClusterUnreachable: The app does not run here.
    """
    name, settings = (app, Settings()) if isinstance(app, str) else (app.name, app.settings)
    context = ray.get_runtime_context()
    session = f"{context.get_worker_id()[:16]}-{secrets.token_hex(4)}"
    client = Client(RayDirectory(name), RayTransport(), SystemClock(), settings, session, seed=os.getpid())
    try:
        return await client.start()
    except RemoraError as error:
        await client.close()
        msg = f"App {name!r} does not run in this Ray cluster ({error.message}): start it with `remora up MODULE:APP`."
        raise ClusterUnreachable(msg) from error


@asynccontextmanager
async def connect(app: str | App, address: str | None = None) -> AsyncIterator[Client]:
    """Connect to a running app; see ``remora.connect``."""
    name = app if isinstance(app, str) else app.name
    where = address or os.environ.get("REMORA_ADDRESS") or records.load(name).address
    joined_before = ray.is_initialized()
    await asyncio.to_thread(join_ray, where)
    try:
        client = await open_client(app)
        try:
            yield client
        finally:
            await client.close()
    finally:
        if not joined_before:
            await lookups_over()
            await asyncio.to_thread(ray.shutdown)


async def outbox_counts(app: str) -> tuple[int, int]:
    """Return how many entries of an app have undelivered durable sends, and how many are parked."""
    found: dict[str, Any] = await RayDirectory(app).ask("status")
    return found["outbox"]["undelivered"], found["outbox"]["parked"]
