"""Asks what an entity waits for, and answers within a second also when its host says nothing.

The host is asked as by any query. If it has not answered after a moment, the registry is asked
beside it, then another thread of the host's process, which its entities cannot block; who knows most
when the time is over is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from remora.errors import NotOwner, RemoraError, decode_error
from remora.messages import ERROR
from remora.why import (
    ALL_S,
    BESIDE_S,
    GLANCE_S,
    HOST_S,
    LIVELY_S,
    About,
    Glance,
    Subject,
    Why,
    decode,
    from_glance,
    from_outside,
    read,
)  # fmt: skip


class Registry(Protocol):
    """What is asked about a shard."""

    async def about(self, shard: str) -> dict[str, Any]:
        """See ``Directory``."""
        ...


class Hosts(Protocol):
    """What reaches a host beside its event loop."""

    async def glance(self, host: str) -> Glance:
        """See ``Transport``."""
        ...


class Inquiry:
    """One question about one entity.

    Args:
        subject: The entity, and its host by the client's table.
        registry: Asked about the shard.
        hosts: Asked beside the host's loop.
    """

    def __init__(self, subject: Subject, registry: Registry, hosts: Hosts) -> None:
        self._subject = subject
        self._registry = registry
        self._hosts = hosts
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()

    async def answer(
        self, from_host: asyncio.Future[tuple[int, bytes]] | None, refusal: Callable[[], RemoraError | None]
    ) -> Why:
        """Return the best answer there is within the stated time.

        Args:
            from_host: Will be the host's own answer; None if no host is to be asked.
            refusal: Returns the last refusal that the host, or the way to it, was heard with.

        Raises:
            RemoraError: The host refused the question for good.
        """
        if from_host is None:
            return self._from_outside(await self._about(), refusal())
        if await self._in_time([from_host], BESIDE_S):
            return _read(from_host)
        about = self._loop.create_task(self._about())
        glance = self._loop.create_task(self._glance(from_host))
        try:
            if not await self._in_time([from_host], HOST_S):
                await self._in_time([from_host, about], ALL_S)
            known = about.result() if about.done() else None
            if known is not None and known.renewed_s is not None and known.renewed_s < LIVELY_S:
                await self._in_time([from_host, glance], ALL_S)
            if from_host.done():
                return _read(from_host)
            if glance.done() and (seen := glance.result()).entity:
                return from_glance(self._subject, seen)
            return self._from_outside(known, refusal())
        finally:
            about.cancel()
            glance.cancel()

    async def _in_time(self, those: list[Any], until_s: float) -> bool:
        """Wait for one of some futures until that long after the beginning; return whether one is done."""
        left_s = self._began_s + until_s - self._loop.time()
        done, _ = await asyncio.wait(those, timeout=max(left_s, 0), return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    async def _about(self) -> About | None:
        try:
            async with asyncio.timeout(ALL_S):
                return read(await self._registry.about(self._subject.shard))
        except (RemoraError, TimeoutError):
            return None  # that it does not answer is part of the answer

    async def _glance(self, from_host: asyncio.Future[tuple[int, bytes]]) -> Glance:
        if await self._in_time([from_host], GLANCE_S):
            return Glance()
        try:
            return await self._hosts.glance(self._subject.host)
        except RemoraError:
            return Glance()  # as above

    def _from_outside(self, about: About | None, refusal: RemoraError | None) -> Why:
        waited_s = self._loop.time() - self._began_s
        reason = "" if refusal is None else refusal.message
        # HostGone, which is one too, is said by the way to the host and not by the host.
        return from_outside(self._subject, waited_s, about, disowned=type(refusal) is NotOwner, reason=reason)


def _read(answered: asyncio.Future[tuple[int, bytes]]) -> Why:
    verdict, payload = answered.result()
    if verdict == ERROR:
        raise decode_error(payload)
    return decode(payload)
