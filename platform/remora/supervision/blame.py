"""Who is to blame for processes that went down: counted over crashes, decided as a pure function.

::

                  crash, within the limit               crash beyond it
    (runs) ──────────────────────────────▶ HELD BACK ──────────────────────▶ QUARANTINED
       ▲                                       │                                  │
       └──────────── the pause is over ────────┘                                  │
       └──────────────────────────── released by an operator ─────────────────────┘

A crash has a culprit where its process ended by the hand of the thread that ran it (a fatal signal, a
call of ``os._exit``, an event loop kept for too long, memory that one handler took): what ran beside it is never
blamed. A process that is killed from outside, or ends while nothing runs, has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from remora.supervision.failure import RECOVERY
from remora.supervision.rules import UNBOUNDED_S, Backoff

CRASHES_KEPT = 200
"""Crashes that are remembered, the latest."""


class Blame(BaseModel):
    """What becomes of an entity that takes its host down."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    at_most: Annotated[int, Field(ge=0, lt=CRASHES_KEPT)] = 2
    """Crashes within ``within_s`` that are borne; with one more there is a quarantine. Each costs a failover of its host."""
    within_s: Annotated[float, Field(gt=0, le=UNBOUNDED_S)] = 600.0
    """The window, in seconds."""
    backoff: Backoff = Backoff(min_s=0.5)
    """For how long the entity is held back after each of those: its callers send the same command again, and it
    would be the next host's end within milliseconds."""
    scope: Literal["entity", "command"] = "entity"
    """What is held apart in the end: the entity, or only that command of it."""


class Crash(msgspec.Struct, frozen=True):
    """One process that went down, and what took it down."""

    entity: str
    command: str
    cause: str
    """How it ended, as a sentence's end: ``Segmentation fault``, ``os._exit(3)``."""
    host: str
    incarnation: int
    at_ms: int


class Quarantine(msgspec.Struct, frozen=True):
    """What is held back or apart."""

    entity: str
    command: str
    """Empty: all of them."""
    because: str
    crashes: int
    """Within the rule's window."""
    since_ms: int
    until_ms: int = 0
    """When it is let run again by itself, in ms since 1970; 0: when an operator releases it."""

    def holds(self, now_ms: int) -> bool:
        """Return whether it is in force."""
        return not self.until_ms or now_ms < self.until_ms


def judged(crashes: Iterable[Crash], latest: Crash, rule: Blame) -> Quarantine | None:
    """Return what is to be held back or apart after a crash; None where not even a pause is declared.

    Args:
        crashes: Those before it.
        latest: The crash.
        rule: What is borne.
    """
    begin_ms = latest.at_ms - rule.within_s * 1000
    count = 1 + sum(one.at_ms >= begin_ms and _same(one, latest, rule) for one in crashes)
    often = "once" if count == 1 else f"{count} times within {rule.within_s:g} s, the last time"
    because = f"{latest.entity}.{latest.command} took its host down {often} with: {latest.cause}"
    if count > rule.at_most:
        # Without being read back it runs no command at all.
        command = latest.command if rule.scope == "command" and latest.command != RECOVERY else ""
        return Quarantine(latest.entity, command, because, count, latest.at_ms)
    pause_ms = int(rule.backoff.pause_s(count) * 1000)
    if not pause_ms:
        return None
    return Quarantine(latest.entity, "", because, count, latest.at_ms, latest.at_ms + pause_ms)


def _same(one: Crash, other: Crash, rule: Blame) -> bool:
    return one.entity == other.entity and (rule.scope == "entity" or one.command == other.command)
