"""Starting, stopping and looking at a whole app: Ray, registry, hosts and gateway together."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve

from remora.app import App, AppSource
from remora.cluster import record as records
from remora.cluster.bootstrap import CALL_S, absolute_store, ensure_platform, join_ray, stop_platform
from remora.cluster.ray_process import RayProcess, check_port, runs, start_ray, stop_ray
from remora.cluster.record import ClusterRecord
from remora.cluster.transport import RayDirectory
from remora.config import AS_CODED, AppConfig
from remora.errors import ClusterUnreachable, StartError, Unavailable
from remora.gateway.deployment import build
from remora.storage.open import visible_url

Report = Callable[[str], None]
DRAIN_S = 90.0
"""Longest wait for hosts to be emptied, in seconds: the registry's own bound and some more."""


def default_store(app: str) -> str:
    """Return where an app's state is kept when nobody says: ``.remora/<app>.db`` in this folder."""
    return f"sqlite:///{Path.cwd() / '.remora' / f'{app}.db'}"


def up(
    app_path: str, *, store: str | None = None, hosts: int | None = None, port: int = 8000, address: str | None = None,
    config: AppConfig = AS_CODED, report: Report = lambda _: None,
) -> ClusterRecord:  # fmt: skip
    """Start an app: Ray (unless ``address`` names a cluster), registry, hosts, gateway.

    Args:
        app_path: ``module:attribute`` of the app.
        store: Store URL; ``.remora/<app>.db`` in this folder by default.
        hosts: Shared hosts; one per CPU, at least two, by default.
        port: The gateway's port on loopback.
        address: GCS address of a running Ray cluster to join; never guessed.
        config: What stands in the place of what the code says.
        report: Told in a few words what is being done.

    Raises:
        StartError: Anything that keeps it from starting; what was started is stopped again.
    """
    source = AppSource(app_path, config)
    app = source.load()
    former = records.find(app.name)
    if former is not None and runs(former.ray_pid, former.temp_dir):
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
        asyncio.run(ensure_platform(source, url, count, report))
        report("starting the gateway")
        gateway_url = _start_gateway(app, source, url, count, port)
    except BaseException:
        if ray.is_initialized():
            ray.shutdown()
        if own is not None:
            stop_ray(own.pid, own.temp_dir)
            shutil.rmtree(own.temp_dir, ignore_errors=True)
        raise
    dashboard = own.dashboard_url if own is not None else ""
    pid, temp_dir = (own.pid, own.temp_dir) if own is not None else (0, "")
    shown = visible_url(url)
    ordered = app.order.declared
    record = ClusterRecord(app.name, app_path, where, dashboard, gateway_url, shown, count, pid, temp_dir, ordered)
    records.save(record)
    return record


def _start_gateway(app: App, source: AppSource, store: str, hosts: int, port: int) -> str:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # what it starts is reported here in fewer words
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    args = {"app": source.path, "store": store, "hosts": hosts, "config": source.config.model_dump(mode="json")}
    serve.run(build(args), name=app.name, route_prefix="/")
    return f"http://127.0.0.1:{port}"


def down(record: ClusterRecord, report: Report = lambda _: None) -> None:
    """Stop an app; what was acknowledged stays in the store.

    Args:
        record: What ``up`` left.
        report: Told in a few words what is being done.
    """
    if record.ray_pid:
        if record.ordered:
            report("stopping entities and hosts in order")
            _stop_in_order(record)
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


def _stop_in_order(record: ClusterRecord) -> None:
    try:
        join_ray(record.address)
    except ClusterUnreachable as error:
        logging.getLogger("remora.operations").warning("%s; nothing is stopped in order", error)
        return
    asyncio.run(stop_platform(record.app))


def _stop_app(app: str) -> None:
    serve.delete(app)
    asyncio.run(stop_platform(app))


def _ask(record: ClusterRecord, method: str, *args: object, within_s: float = CALL_S) -> Any:  # noqa: ANN401 - what the method returns
    """Ask the registry that leads.

    Raises:
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    join_ray(record.address)

    async def ask() -> Any:  # noqa: ANN401 - as above
        return await RayDirectory(record.app).ask(method, *args, within_s=within_s)

    try:
        return asyncio.run(ask())
    except Unavailable as error:
        msg = f"The registry of {record.app} does not answer ({error.message})."
        raise ClusterUnreachable(msg) from error


def status(record: ClusterRecord) -> dict[str, Any]:
    """Return what runs where: the registry's summary, every host's counters, the URLs.

    Raises:
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    found: dict[str, Any] = _ask(record, "status")
    return {**found, "gateway": record.gateway_url, "dashboard": record.dashboard_url, "address": record.address}


def shards(record: ClusterRecord) -> list[dict[str, Any]]:
    """Return every shard: owner, host, node, epoch, state, live entities, commands/s.

    Raises:
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    found: list[dict[str, Any]] = _ask(record, "shards")
    return found


def failures(record: ClusterRecord, limit: int, of: str = "") -> list[dict[str, Any]]:
    """Return what failed, the latest first: rows with ``latest``, the last failure of each in full.

    Args:
        record: What ``up`` left.
        limit: At most so many rows.
        of: An entity ``type/id``, or a type; empty: of all.

    Raises:
        UnknownEntity: The app has no such type.
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    found: list[dict[str, Any]] = _ask(record, "failures", limit, of)
    return found


def quarantine(record: ClusterRecord) -> list[dict[str, Any]]:
    """Return what is held back for a while or apart until it is released, the latest first.

    Returns:
        Rows with the fields of ``supervision.blame.Quarantine``, and ``latest``: its crashes that are remembered, the latest first.

    Raises:
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    found: list[dict[str, Any]] = _ask(record, "quarantine")
    return found


def release_from_quarantine(record: ClusterRecord, entity: str, command: str = "") -> dict[str, Any]:
    """Let something run again; the crashes it was held for are forgotten.

    Args:
        record: What ``up`` left.
        entity: ``type/id``.
        command: If only a command of it is held apart.

    Raises:
        UnknownEntity: It is not in quarantine.
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    found: dict[str, Any] = _ask(record, "release_from_quarantine", entity, command)
    return found


def drain(record: ClusterRecord, node: str, report: Report = lambda _: None) -> dict[str, Any]:
    """Empty a node's hosts, or one host, and let them go; the node gets no hosts until ``undrain``.

    Args:
        record: What ``up`` left.
        node: A node id, the beginning of one, or a host's name.
        report: Told in a few words what is being done.

    Returns:
        ``node``, the names of its ``hosts``, the shards that are ``left`` when the time for it is over.

    Raises:
        UnknownNode: There is no such node.
        CannotDrain: These are the last hosts.
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    report(f"emptying {node}")
    found: dict[str, Any] = _ask(record, "drain", node, within_s=DRAIN_S)
    return found


def undrain(record: ClusterRecord, node: str) -> dict[str, Any]:
    """Let a drained node have hosts again.

    Raises:
        UnknownNode: No such node was drained.
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    found: dict[str, Any] = _ask(record, "undrain", node)
    return found


def rebalance(record: ClusterRecord, *, dry_run: bool) -> list[dict[str, Any]]:
    """Begin the next rebalance round now, or only say what it would move: shard, source, target, because.

    Raises:
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    found: list[dict[str, Any]] = _ask(record, "rebalance", dry_run)
    return found


def locate(record: ClusterRecord, locations: dict[str, str]) -> None:
    """Say where shards are wanted (shard → host slot or node), for apps whose allocation is ``External``.

    Raises:
        ClusterUnreachable: The cluster or its registry does not answer.
    """
    _ask(record, "locate", locations)
