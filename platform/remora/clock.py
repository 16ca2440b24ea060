"""The one place that asks the time; everything else takes a ``Clock``."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the platform needs to know about time."""

    def now_ms(self) -> int:
        """Return wall-clock milliseconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never jumps and also counts suspended time."""
        ...


class SystemClock:
    """The machine's clocks.

    ``monotonic_s`` is CLOCK_BOOTTIME: leases must keep counting while a machine sleeps, and
    all processes of one machine see the same value.
    """

    def now_ms(self) -> int:
        """Return wall-clock milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds since boot, suspended time included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
