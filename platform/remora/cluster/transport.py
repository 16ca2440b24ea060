"""Clients' way to hosts and registry over Ray actor calls; Ray's errors become ours here only."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util import list_named_actors

from remora.cluster.names import NAMESPACE, registry_names
from remora.errors import HostGone, NotLeader, RemoraError, Unavailable
from remora.sharding.table import Table, decode_table
from remora.why import Glance

Handle = Any
"""A Ray actor handle: it has the methods of its actor, which Ray's types do not say."""
ASK_S = 5.0
"""Longest wait for a registry's answer, in seconds."""
PLACE_S = 150.0
"""Longest wait for a dedicated entity's actor to start, in seconds: its node may have to come first."""
POLL_AGAIN_S = 0.2
"""Pause before a registry that does not lead, or is not there, is asked for the table again, in seconds."""
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
        return await self._call(host, "exchange", data)  # type: ignore[no-any-return]  # bytes by HostActor.exchange

    async def hand_over(self, host: str, data: bytes) -> None:
        """Give a host what another one knows of shards that move to it.

        Raises:
            HostGone: It cannot be reached; whether it got it is not known.
        """
        await self._call(host, "hand_over", data)

    async def ask_supervisor(self, actor: str, failure: bytes) -> str:
        """Ask a supervisor about a failure.

        Args:
            actor: Name of its actor.
            failure: As JSON.

        Raises:
            HostGone: It cannot be reached.
        """
        return await self._call(actor, "answer", failure)  # type: ignore[no-any-return]  # by SupervisorActor.answer

    async def _call(self, host: str, method: str, data: bytes) -> Any:  # noqa: ANN401 - what the method returns
        handle = self._handles.get(host)
        if handle is None:
            handle = self._handles[host] = await find_actor(host)
        try:
            return await getattr(handle, method).remote(data)
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
    lookup = asyncio.ensure_future(asyncio.to_thread(ray.get_actor, name, NAMESPACE))
    _lookups.add(lookup)
    lookup.add_done_callback(_looked_up)
    try:
        async with asyncio.timeout(LOOKUP_S):
            return await asyncio.shield(lookup)
    except (ValueError, RayError, TimeoutError) as error:
        msg = f"No actor {name!r} in this Ray cluster ({type(error).__name__})."
        raise HostGone(msg) from error


_lookups: set[asyncio.Future[Handle]] = set()
"""Lookups under way, those that nobody waits for any more among them: a thread cannot be cancelled."""


def _looked_up(lookup: asyncio.Future[Handle]) -> None:
    _lookups.discard(lookup)
    if not lookup.cancelled():
        lookup.exception()  # seen: who waited for it was told


async def lookups_over() -> None:
    """Wait, in bounded time, until Ray looks for no actor of this loop any more.

    One that it still looks for when it is shut down hangs for a minute.
    """
    mine = [lookup for lookup in _lookups if lookup.get_loop() is asyncio.get_running_loop()]
    if mine:
        await asyncio.wait(mine, timeout=LOOKUP_S)


async def actors(prefix: str) -> set[str]:
    """Return the names of Remora's actors in this Ray cluster that begin so."""
    named: list[Any] = await asyncio.to_thread(list_named_actors, all_namespaces=True)
    return {one["name"] for one in named if one["namespace"] == NAMESPACE and one["name"].startswith(prefix)}


async def end_actor(name: str) -> None:
    """End an actor for good, if there is one of that name."""
    try:
        ray.kill(await find_actor(name), no_restart=True)
    except (HostGone, RayError) as error:
        logging.getLogger("remora.registry").info("%s was gone before it was ended: %s", name, error)


class RayDirectory:
    """Asks an app's registries: either may lead.

    The table is asked of both at once, each in a call of its own that waits for news. So a
    registry that leads anew is heard also while the former one is frozen and answers nobody.
    """

    def __init__(self, app: str) -> None:
        self._names = list(registry_names(app))
        """The one that was last known to lead first."""
        self._handles: dict[str, Handle] = {}
        self._polls: dict[str, asyncio.Task[Table]] = {}
        self._refusals: dict[str, RemoraError] = {}
        self._refused = asyncio.Event()

    async def table(self, after: int) -> Table:
        """See Directory."""
        self._refusals.clear()
        while True:
            for name in self._names:
                if name not in self._polls:
                    self._polls[name] = asyncio.create_task(self._poll(name, after))
            self._refused.clear()
            refused = asyncio.create_task(self._refused.wait())
            try:
                await asyncio.wait([refused, *self._polls.values()], return_when=asyncio.FIRST_COMPLETED)
            finally:
                refused.cancel()
            for name in [name for name in self._names if self._polls[name].done()]:
                poll = self._polls.pop(name)
                self._put_first(name)
                return poll.result()
            if len(self._refusals) == len(self._names):
                msg = f"No registry leads: {self._refusals[self._names[0]].message}"
                raise Unavailable(msg, retry_after_s=0.1)

    async def _poll(self, name: str, after: int) -> Table:
        """Ask one registry until it leads and has a table."""
        while True:
            try:
                return decode_table(await self._ask(name, "table", after))
            except (NotLeader, HostGone) as error:
                self._refusals[name] = error
                self._refused.set()
            await asyncio.sleep(POLL_AGAIN_S)

    async def leave(self) -> None:
        """See Directory."""
        for poll in self._polls.values():
            poll.cancel()
        await asyncio.gather(*self._polls.values(), return_exceptions=True)
        self._polls.clear()

    async def place(self, key: str) -> None:
        """See Directory."""
        await self.ask("place", key, within_s=PLACE_S)

    async def about(self, shard: str) -> dict[str, Any]:
        """See Directory."""
        return await self.ask("about", shard)  # type: ignore[no-any-return]  # by RegistryActor.about

    async def suspect(self, host: str) -> None:
        """See Directory."""
        await self.ask("suspect", host)

    async def ask(self, method: str, *args: object, within_s: float = ASK_S) -> Any:  # noqa: ANN401 - what the method returns
        """Ask the registry that leads.

        Args:
            method: A method of ``RegistryActor``.
            args: Its arguments.
            within_s: Longest wait for each of the two, in seconds.

        Raises:
            Unavailable: None leads at the moment, or answers in time.
        """
        refusal = ""
        for name in list(self._names):
            try:
                async with asyncio.timeout(within_s):
                    found = await self._ask(name, method, *args)
            except (NotLeader, HostGone) as error:
                refusal = error.message
            except TimeoutError:
                refusal = f"{name} does not answer within {within_s:g} s"
            else:
                self._put_first(name)
                return found
        msg = f"No registry leads at the moment: {refusal}"
        raise Unavailable(msg, retry_after_s=0.2)

    def _put_first(self, name: str) -> None:
        self._names.remove(name)
        self._names.insert(0, name)

    async def _ask(self, name: str, method: str, *args: object) -> Any:  # noqa: ANN401 - what the method returns
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = await find_actor(name)
        try:
            return await getattr(handle, method).remote(*args)
        except RayError as error:
            if isinstance(error, RayActorError):
                self._handles.pop(name, None)
            raise ours(error, name) from error
