"""How the registry calls hosts: by the names of their actors, every call within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ray.exceptions import RayError

from remora.cluster.transport import Handle, find_actor, ours
from remora.errors import RemoraError
from remora.sharding.table import HostRow

TELL_S = 15.0
"""Longest wait for a host to take or give up shards, in seconds."""
ASK_S = 2.0
"""Longest wait for a host's answer, in seconds."""
SHOWN_S = 1.0
"""Longest wait for counters that somebody looks at, in seconds: half a lease, so that what is shown beside them is of the
same time."""


class HostCalls:
    """Calls hosts. Those that were found keep their handles until they are forgotten."""

    def __init__(self) -> None:
        self.handles: dict[str, Handle] = {}
        """Name → handle, of hosts that were started or found again."""

    async def tell(self, host: HostRow, method: str, *arguments: object, within_s: float = TELL_S) -> Any:  # noqa: ANN401 - what the method returns
        """Call a method of a host's actor, which may have to be found first.

        Raises:
            HostGone: It cannot be reached, or did not answer in time.
            RemoraError: What the method raised.
        """
        try:
            async with asyncio.timeout(within_s):
                # One that is looked for still, by a registry that began to lead just now, is found here.
                handle = self.handles.get(host.name) or await find_actor(host.name)
                return await getattr(handle, method).remote(*arguments)
        except (RayError, TimeoutError) as error:
            raise ours(error, host.name) from error

    async def answers(self, host: HostRow) -> bool:
        """Return whether the loop that serves its entities does: another thread may answer for one that hangs."""
        try:
            await self.tell(host, "start", within_s=ASK_S)
        except RemoraError:
            return False
        return True

    async def ask_all(
        self, hosts: Iterable[HostRow], method: str, within_s: float
    ) -> list[tuple[str, dict[str, Any] | str]]:
        """Ask hosts at once; return the name of each with its answer, or with why there is none."""

        async def one(host: HostRow) -> tuple[str, dict[str, Any] | str]:
            try:
                found: dict[str, Any] = await self.tell(host, method, within_s=within_s)
            except RemoraError as error:
                return host.name, error.message
            return host.name, found

        return list(await asyncio.gather(*map(one, hosts)))


def merged(answers: Iterable[tuple[str, dict[str, int] | str]]) -> dict[str, int]:
    """Return what hosts said per shard, of those that did."""
    return {shard: count for _, answer in answers if isinstance(answer, dict) for shard, count in answer.items()}
