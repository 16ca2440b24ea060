"""Starting, finding and stopping a platform on Ray."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from remora.app import App, load_app
from remora.client import Client
from remora.clock import SystemClock
from remora.cluster import record as records
from remora.cluster.names import AUTH_MODE, NAMESPACE, registry_name
from remora.cluster.ray_process import SERVE_ENVIRONMENT, RayProcess, check_port, start_ray, stop_ray
from remora.cluster.record import ClusterRecord
from remora.cluster.registry_actor import RegistryActor
from remora.cluster.transport import RayDirectory, RayTransport, find_actor, ours
from remora.errors import ClusterUnreachable, RemoraError, StartError
from remora.settings import Settings

PLATFORM_S = 180.0
"""Longest wait for registry and hosts to be up, in seconds."""
CALL_S = 15.0
"""Longest wait for the registry's answer to a question, in seconds."""
Report = Callable[[str], None]
_joined: dict[str, str] = {}
"""Ray job of this process → the address it was joined by (Ray reports the same cluster under other names)."""


def default_store(app: str) -> str:
    """Return where an app's state is kept when nobody says: ``.remora/<app>.db`` in this folder."""
    return f"sqlite:///{Path.cwd() / '.remora' / f'{app}.db'}"


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
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        msg = f"No Ray cluster answers at {address} ({str(error).splitlines()[0]}): start one with `remora up`, or correct the address."
        raise ClusterUnreachable(msg) from error
    _joined[ray.get_runtime_context().get_job_id()] = address


async def ensure_platform(app_path: str, store: str, hosts: int) -> None:
    """See to it that an app's registry and hosts run in the Ray cluster of this process. Idempotent.

    Args:
        app_path: ``module:attribute`` of the app, importable on every node.
        store: Store URL.
        hosts: How many shared hosts.

    Raises:
        StartError: They did not come up; the message says why.
    """
    app = load_app(app_path)
    actor = ray.remote(RegistryActor).options(
        name=registry_name(app.name), namespace=NAMESPACE, lifetime="detached", get_if_exists=True,
        max_restarts=-1, max_task_retries=0, num_cpus=0, max_concurrency=10_000, enable_task_events=False,
    )  # fmt: skip
    registry: Any = actor.remote(app_path, absolute_store(store), hosts)
    try:
        async with asyncio.timeout(PLATFORM_S):
            await registry.start.remote()
    except (RayError, TimeoutError) as error:
        cause = ours(error, registry_name(app.name))
        ray.kill(registry, no_restart=True)
        if isinstance(cause, StartError):
            raise cause from error
        msg = f"The registry of {app.name} did not start: {cause.message}"
        raise StartError(msg) from error


async def open_client(app: str, settings: Settings | None = None) -> Client:
    """Return a started client of an app whose platform runs in this process's Ray cluster."""
    context = ray.get_runtime_context()
    session = f"{context.get_worker_id()[:16]}-{uuid.uuid4().hex[:8]}"
    client = Client(RayDirectory(app), RayTransport(), SystemClock(), settings or Settings(), session, seed=os.getpid())
    try:
        return await client.start()
    except RemoraError as error:
        msg = f"App {app!r} does not run in this Ray cluster ({error.message}): start it with `remora up MODULE:APP`."
        raise ClusterUnreachable(msg) from error


@asynccontextmanager
async def connect(app: str | App, address: str | None = None) -> AsyncIterator[Client]:
    """Connect to a running app; see ``remora.connect``."""
    name = app if isinstance(app, str) else app.name
    where = address or os.environ.get("REMORA_ADDRESS") or records.load(name).address
    joined_before = ray.is_initialized()
    await asyncio.to_thread(join_ray, where)
    try:
        client = await open_client(name, None if isinstance(app, str) else app.settings)
        try:
            yield client
        finally:
            await client.close()
    finally:
        if not joined_before:
            await asyncio.to_thread(ray.shutdown)


def up(
    app_path: str, *, store: str | None = None, hosts: int | None = None, port: int = 8000, address: str | None = None,
    report: Report = lambda _: None,
) -> ClusterRecord:  # fmt: skip
    """Start an app: Ray (unless ``address`` names a cluster), registry, hosts, gateway.

    Args:
        app_path: ``module:attribute`` of the app.
        store: Store URL; ``.remora/<app>.db`` in this folder by default.
        hosts: Shared hosts; one per CPU, at least two, by default.
        port: The gateway's port on loopback.
        address: GCS address of a running Ray cluster to join; never guessed.
        report: Told in a few words what is being done.

    Raises:
        StartError: Anything that keeps it from starting; what was started is stopped again.
    """
    app = load_app(app_path)
    former = records.find(app.name)
    if former is not None and former.ray_pid and Path(f"/proc/{former.ray_pid}").exists():
        msg = f"App {app.name!r} runs already, at {former.gateway_url}: `remora down {app.name}` stops it."
        raise StartError(msg)
    count = hosts or max(os.cpu_count() or 1, 2)
    check_port(port)
    url = absolute_store(store or default_store(app.name))
    own: RayProcess | None = None
    if address is None:
        report("starting Ray")
        # Hosts ask for a CPU each; the rest is for the gateway and dedicated entities.
        own = start_ray(count + 4)
    where = own.address if own is not None else address or ""
    try:
        join_ray(where)
        report(f"starting the registry and {count} hosts")
        asyncio.run(ensure_platform(app_path, url, count))
        report("starting the gateway")
        gateway_url = _start_gateway(app, app_path, url, count, port)
    except BaseException:
        if ray.is_initialized():
            ray.shutdown()
        if own is not None:
            stop_ray(own.pid, own.temp_dir)
            shutil.rmtree(own.temp_dir, ignore_errors=True)
        raise
    dashboard = own.dashboard_url if own is not None else ""
    pid, temp_dir = (own.pid, own.temp_dir) if own is not None else (0, "")
    record = ClusterRecord(app.name, app_path, where, dashboard, gateway_url, url, count, pid, temp_dir)
    records.save(record)
    return record


def _start_gateway(app: App, app_path: str, store: str, hosts: int, port: int) -> str:
    from ray import serve

    from remora.gateway.deployment import build

    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    serve.run(build({"app": app_path, "store": store, "hosts": hosts}), name=app.name, route_prefix="/")
    return f"http://127.0.0.1:{port}"


def down(record: ClusterRecord, report: Report = lambda _: None) -> None:
    """Stop an app; what was acknowledged stays in the store.

    Args:
        record: What ``up`` left.
        report: Told in a few words what is being done.
    """
    if record.ray_pid:
        report("stopping Ray")
        if ray.is_initialized():
            ray.shutdown()
        stop_ray(record.ray_pid, record.temp_dir)
        shutil.rmtree(record.temp_dir, ignore_errors=True)
    else:
        report("stopping gateway, hosts and registry")
        join_ray(record.address)
        _stop_app(record.app)
    records.delete(record.app)


def _stop_app(app: str) -> None:
    from ray import serve

    serve.delete(app)
    try:
        registry = ray.get_actor(registry_name(app), NAMESPACE)
        ray.get(registry.stop.remote(), timeout=CALL_S)
    except (ValueError, RayError) as error:
        msg = f"The registry of {app} could not be asked to stop: {error}"
        raise ClusterUnreachable(msg) from error
    ray.kill(registry, no_restart=True)


async def outbox_counts(app: str) -> tuple[int, int]:
    """Return how many entries of an app have undelivered durable sends, and how many are parked."""
    registry = await find_actor(registry_name(app))
    found: dict[str, Any] = await registry.status.remote()
    return found["outbox"]["undelivered"], found["outbox"]["parked"]


def status(record: ClusterRecord) -> dict[str, Any]:
    """Return what runs where: the registry's summary, every host's counters, the URLs.

    Raises:
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    join_ray(record.address)
    try:
        registry = ray.get_actor(registry_name(record.app), NAMESPACE)
        found: dict[str, Any] = ray.get(registry.status.remote(), timeout=CALL_S)
    except (ValueError, RayError) as error:
        msg = f"The registry of {record.app} does not answer ({str(error).splitlines()[0]})."
        raise ClusterUnreachable(msg) from error
    return {**found, "gateway": record.gateway_url, "dashboard": record.dashboard_url, "address": record.address}
