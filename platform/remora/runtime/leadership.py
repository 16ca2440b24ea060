"""Which of several registries decides: a lease in the store whose term only rises.

Several processes may want to be an app's registry: the active one, a standby, one that Ray has
restarted meanwhile. Whoever leads renews the leader's lease; whoever stands by takes it for over
when it has seen no renewal for a whole time to live, with its own view of the store uninterrupted,
and begins the next term. The store lets one of several that try begin it, and refuses what a
leader of an earlier term writes from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from remora.clock import Clock
from remora.errors import Fenced, StoreUnavailable
from remora.journal import Store

LOOKS = 8
"""Looks at the leader's lease per time to live."""
RENEWALS = 4
"""Renewals per time to live."""


class Leadership:
    """One registry's way to lead, and to go on leading.

    Args:
        store: The app's store, opened.
        clock: Time.
        ttl_s: Seconds without a renewal after which a leader is followed.
    """

    def __init__(self, store: Store, clock: Clock, ttl_s: float) -> None:
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s
        self._log = logging.getLogger("remora.registry")

    async def take(self) -> int:
        """Lead at once, whoever led before; return the term."""
        return await self._store.lead()

    async def follow(self, on_over: Callable[[], None]) -> int:
        """Wait until the leader's lease is over, then lead; return the term.

        Args:
            on_over: Called before this one tries to lead, which may have to wait for a store that somebody blocks.
        """
        seen, since_s, looked_s = (-1, 0.0), 0.0, float("-inf")
        while True:
            now_s = self._clock.monotonic_s()
            try:
                found = await self._store.leader()
                if found[0] == 0:
                    return await self._store.lead(0)
                if found != seen or now_s - looked_s > self._ttl_s / 2:
                    seen, since_s = found, now_s
                elif now_s - since_s > self._ttl_s:
                    on_over()
                    return await self._store.lead(found[0])
                looked_s = now_s
            except Fenced:
                self._log.info("another registry began to lead first")
            except StoreUnavailable as error:
                self._log.warning("the leader's lease cannot be read: %s", error)
            await asyncio.sleep(self._ttl_s / LOOKS)  # noqa: TID251 - the period of looking

    async def keep(self, term: int) -> None:
        """Renew the lease of a term; returns when that has ended."""
        while True:
            try:
                await self._store.renew_leader(term, self._clock.monotonic_s())
            except Fenced as error:
                self._log.warning("this registry leads no more: %s", error)
                return
            except StoreUnavailable as error:
                self._log.warning("the leader's lease was not renewed: %s", error)
            await asyncio.sleep(self._ttl_s / RENEWALS)  # noqa: TID251 - the period of renewing
