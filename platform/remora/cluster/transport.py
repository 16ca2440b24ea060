"""Clients' way to hosts and registry over Ray actor calls; Ray's errors become ours here only."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from remora.cluster.names import NAMESPACE, registry_name
from remora.errors import HostGone, RemoraError, Unavailable
from remora.sharding.table import Table, decode_table
from remora.why import Glance

Handle = Any
"""A Ray actor handle: it has the methods of its actor, which Ray's types do not say."""
LOOKUP_S = 5.0
"""Longest wait for Ray to find an actor by name, in seconds."""


def ours(error: Exception, what: str) -> RemoraError:
    """Return Ray's error as one of ours.

    Args:
        error: What an actor call raised.
        what: Whom was called.
    """
    if isinstance(error, RayTaskError) and isinstance(error.cause, RemoraError):
        return error.cause
    return HostGone(f"{what} does not answer: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return what went wrong in one line: Ray's messages have many, a timeout's has none."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


class RayTransport:
    """Reaches hosts by the names of their actors."""

    def __init__(self) -> None:
        self._handles: dict[str, Handle] = {}

    async def exchange(self, host: str, data: bytes) -> bytes:
        """See Transport."""
        handle = self._handles.get(host)
        if handle is None:
            handle = self._handles[host] = await find_actor(host)
        try:
            return await handle.exchange.remote(data)  # type: ignore[no-any-return]  # bytes by HostActor.exchange
        except RayError as error:
            if isinstance(error, RayActorError):
                self._handles.pop(host, None)
            raise ours(error, host) from error

    async def glance(self, host: str) -> Glance:
        """See Transport."""
        handle = self._handles.get(host)
        if handle is None:
            handle = self._handles[host] = await find_actor(host)
        try:
            return await handle.glance.remote()  # type: ignore[no-any-return]  # by HostActor.glance
        except RayError as error:
            raise ours(error, host) from error


async def find_actor(name: str) -> Handle:
    """Return the handle of a named actor.

    Raises:
        HostGone: There is none of that name, or Ray does not answer in time.
    """
    try:
        async with asyncio.timeout(LOOKUP_S):
            return await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
    except (ValueError, RayError, TimeoutError) as error:
        msg = f"No actor {name!r} in this Ray cluster ({type(error).__name__})."
        raise HostGone(msg) from error


class RayDirectory:
    """Asks the registry actor of an app."""

    def __init__(self, app: str) -> None:
        self._name = registry_name(app)
        self._handle: Handle = None

    async def table(self, after: int) -> Table:
        """See Directory."""
        return decode_table(await self._call("table", after))

    async def place(self, key: str) -> None:
        """See Directory."""
        await self._call("place", key)

    async def about(self, shard: str) -> dict[str, Any]:
        """See Directory."""
        return await self._call("about", shard)  # type: ignore[no-any-return]  # by RegistryActor.about

    async def _call(self, method: str, *args: object) -> Any:  # noqa: ANN401 - what that method returns
        if self._handle is None:
            self._handle = await find_actor(self._name)
        try:
            return await getattr(self._handle, method).remote(*args)
        except RayActorError as error:
            self._handle = None
            msg = f"The registry {self._name} restarts."
            raise Unavailable(msg, retry_after_s=0.2) from error
        except RayError as error:
            raise ours(error, self._name) from error
