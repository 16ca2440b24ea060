"""What a periodic reminder does when it could not ring in time. Pure."""

from __future__ import annotations

from enum import Enum


class Misfire(Enum):
    """What becomes of rings that were missed because nothing ran, or the entity was too busy."""

    COALESCE = "coalesce"
    """One ring for all that were missed, then at the next regular time. The default."""
    SKIP = "skip"
    """None: the next ring is at the next regular time. A ring late by less than a period still comes."""
    EACH = "each"
    """Every one of them, late, in order."""


CODES = (Misfire.COALESCE, Misfire.SKIP, Misfire.EACH)
"""A policy's place in it is its number in the store."""


def rings(due_ms: int, every_ms: int, misfire: Misfire, now_ms: int) -> bool:
    """Return whether a reminder due at ``due_ms`` still rings at ``now_ms``; a one-shot always does."""
    return not (every_ms and misfire is Misfire.SKIP and now_ms - due_ms >= every_ms)


def next_due_ms(due_ms: int, every_ms: int, misfire: Misfire, now_ms: int) -> int:
    """Return when a periodic reminder rings after the ring that was due at ``due_ms`` and comes at ``now_ms``.

    Regular times are ``due_ms`` plus whole periods, however late a ring was: they do not drift.

    Args:
        due_ms: When it was due, in ms.
        every_ms: Its period in ms, above 0.
        misfire: What becomes of missed rings.
        now_ms: The wall clock in ms.
    """
    if misfire is Misfire.EACH or now_ms < due_ms:
        return due_ms + every_ms
    return due_ms + ((now_ms - due_ms) // every_ms + 1) * every_ms
