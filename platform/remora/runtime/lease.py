"""A host's lease: what lets it answer from memory without asking the store.

It is renewed by a thread of its own, so that a busy or blocked event loop does not cost the
lease. The lease counts from before the renewal was sent, on a clock that also runs while the
machine sleeps, and the host stops answering a margin before its end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from remora.clock import Clock
from remora.errors import RemoraError


class Lease:
    """Renews a host's lease.

    Args:
        renew: Writes a renewal as of a time, blocking; raises RemoraError when it cannot.
        clock: Time.
        ttl_s: Seconds a renewal lasts; it is renewed every quarter of that.
        margin_s: Seconds before its end at which it no longer counts.
    """

    def __init__(self, renew: Callable[[float], None], clock: Clock, ttl_s: float, margin_s: float) -> None:
        self._renew = renew
        self._clock = clock
        self._ttl_s = ttl_s
        self._margin_s = margin_s
        self._until_s = 0.0
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="remora-lease", daemon=True)
        self._log = logging.getLogger("remora.lease")

    def start(self) -> None:
        """Renew once, then go on in a thread."""
        self._once()
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing and wait for the thread."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(self._ttl_s)
        self._until_s = 0.0

    @property
    def until_s(self) -> float:
        """Until when the host may answer from memory; 0 if it never might."""
        return self._until_s

    def live(self, now_s: float) -> bool:
        """Return whether the host may answer from memory; if not, renew at once."""
        if now_s < self._until_s:
            return True
        self._wake.set()
        return False

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._ttl_s / 4)
            self._wake.clear()
            if not self._stopped:
                self._once()

    def _once(self) -> None:
        began_s = self._clock.monotonic_s()
        try:
            self._renew(began_s)
        except RemoraError as error:
            self._log.warning("the lease was not renewed: %s", error)
            return
        self._until_s = began_s + self._ttl_s - self._margin_s
