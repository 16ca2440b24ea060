"""Time that a test turns by hand."""

from __future__ import annotations

EPOCH_MS = 1_357_000_000_000
"""What a manual clock shows at first: 2013-01-01, shortly after midnight UTC."""
_BOOT_S = 10_000.0


class ManualClock:
    """A clock that stands still until it is advanced; pass it to ``remora.local(app, clock=…)``.

    Both its times start high above zero, as a machine's do, so that a time of 0 is always long ago.
    """

    def __init__(self) -> None:
        self._elapsed_s = 0.0

    def now_ms(self) -> int:
        """Return wall-clock milliseconds since 1970-01-01 UTC."""
        return EPOCH_MS + int(self._elapsed_s * 1000)

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back."""
        return _BOOT_S + self._elapsed_s

    def advance(self, seconds: float) -> None:
        """Let time pass at once.

        Args:
            seconds: How many.
        """
        self._elapsed_s += seconds
