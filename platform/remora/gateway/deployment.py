"""The gateway as a Ray Serve deployment: ``import_path: remora.gateway.deployment:build``.

A replica is an ASGI app that is built inside it (``__serve_build_asgi_app__``) after its constructor,
which may wait: Serve reports the replica healthy, and gives it requests, only when both and the app's
lifespan have run (``UserCallableWrapper.initialize_callable`` in Ray 2.60). So the platform is up
and the client connected before the first request, and whatever fails before that is in the
deployment's status with its own message.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve

from remora.app import AppSource
from remora.config import AS_CODED, AppConfig, findings
from remora.errors import StartError
from remora.gateway.asgi import Gateway

MAX_ONGOING_REQUESTS = 1024
"""Requests a replica works on at once. Serve's default of 5 would let the channels carry five commands at a time."""
NUM_CPUS = 0.1
"""A claim for placement, not a limit: a gateway mostly waits, hosts need whole CPUs."""


class GatewayArgs(BaseModel):
    """``args`` in a Serve config."""

    model_config = ConfigDict(extra="forbid", strict=True)

    app: str
    """``module:attribute`` of the app."""
    store: str = Field(min_length=1)
    """A store URL, or ``env:NAME`` for one that an environment variable holds."""
    hosts: int = Field(ge=0)
    """How many hosts the app has, in the whole cluster; 0: one per CPU of each node (but one), following the nodes."""
    config: AppConfig = AS_CODED
    """What stands in the place of what the code says, as in the file of ``remora up --config``."""


class GatewayReplica:
    """One replica: brings the platform up if nobody has, connects, then serves.

    Args:
        source: Where its processes get the app from.
        store: A store URL or ``env:NAME``.
        hosts: How many hosts the app has.
    """

    async def __init__(self, source: AppSource, store: str, hosts: int) -> None:  # type: ignore[misc]  # Serve awaits it
        from remora.cluster.bootstrap import ensure_platform, open_client

        self._app = source.load()
        await ensure_platform(source, store, hosts, anew=False)  # a replica may come at any time
        self._client = await open_client(self._app)

    def __serve_build_asgi_app__(self) -> Gateway:
        """Return the app; Serve runs its lifespan and closes it with the replica."""
        return Gateway(self._app, lambda: self._client)


def build(args: dict[str, Any]) -> serve.Application:
    """Return the Serve application.

    Args:
        args: See ``GatewayArgs``.

    Raises:
        StartError: An argument is missing, unknown or wrong, or there is no such app.
    """
    try:
        checked = GatewayArgs.model_validate(args)
    except ValidationError as error:
        msg = f"The args of remora.gateway.deployment:build are app, store, hosts and config: {findings(error)}."
        raise StartError(msg) from None
    source = AppSource(checked.app, checked.config)
    source.load()  # a wrong path is refused here, at once, and not by replica after replica
    deployed = serve.deployment(
        name="Gateway",
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": NUM_CPUS},
        # A line per request costs a twelfth of the request; what failed is logged by the gateway itself.
        logging_config={"enable_access_log": False},
    )(serve.ingress()(GatewayReplica))
    application: serve.Application = deployed.bind(source, checked.store, checked.hosts)
    return application
