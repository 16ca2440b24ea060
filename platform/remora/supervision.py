"""What happens after a failure, decided as a pure function of declared rules.

A handler that raises anything but ``Rejected`` has failed. Its effects vanish whatever the
directive; the directive decides what becomes of the entity:

    resume    keep the state of before the command and go on
    restart   drop the activation and recover from the journal, after a backoff
    stop      answer ``Stopped`` from now on
    escalate  restart every entity of the shard

The first rule whose exceptions match decides. A rule with ``limit`` gives way to ``then`` once
it was used more than ``limit`` times within ``window_s``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Directive(Enum):
    """What becomes of an entity after a failure."""

    RESUME = "resume"
    RESTART = "restart"
    STOP = "stop"
    ESCALATE = "escalate"


@dataclass(frozen=True, slots=True)
class Rule:
    """One declared rule.

    Args:
        on: Exception types it is for; subclasses match.
        directive: What to do.
        backoff_min_s: First pause before a restart, in seconds.
        backoff_max_s: Longest pause, in seconds.
        factor: By how much the pause grows with each failure in the window.
        jitter: Share of the pause drawn at random, so that many entities do not return at once.
        limit: Uses within the window before ``then`` takes over; 0 means no limit.
        window_s: The window, in seconds.
        then: What to do beyond the limit.
    """

    on: tuple[type[BaseException], ...] = (Exception,)
    directive: Directive = Directive.RESTART
    backoff_min_s: float = 0.0
    backoff_max_s: float = 30.0
    factor: float = 2.0
    jitter: float = 0.2
    limit: int = 0
    window_s: float = 60.0
    then: Directive = Directive.STOP


DEFAULT_RULES: tuple[Rule, ...] = (Rule(backoff_min_s=0.01),)
"""Restart with backoff, without limit: the next command finds a recovered entity."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and after which pause in seconds."""

    directive: Directive
    after_s: float = 0.0


def decide(
    rules: Sequence[Rule],
    failure: BaseException,
    failures_s: Sequence[float],
    now_s: float,
    rng: random.Random,
) -> Decision:
    """Return the decision for ``failure``.

    Args:
        rules: In order; the first that matches decides. None matching means restart at once.
        failure: What was raised.
        failures_s: When this entity failed before, in seconds, this failure included.
        now_s: The present on the same clock.
        rng: Source of the jitter.
    """
    for rule in rules:
        if isinstance(failure, rule.on):
            recent = sum(1 for at in failures_s if now_s - at <= rule.window_s)
            if rule.limit and recent > rule.limit:
                return Decision(rule.then)
            if rule.directive is not Directive.RESTART:
                return Decision(rule.directive)
            return Decision(Directive.RESTART, _pause_s(rule, recent) * (1 - rule.jitter * rng.random()))
    return Decision(Directive.RESTART)


def _pause_s(rule: Rule, failures: int) -> float:
    try:
        grown = rule.backoff_min_s * rule.factor ** max(0, failures - 1)
    except OverflowError:  # far beyond any maximum
        return rule.backoff_max_s
    return min(rule.backoff_max_s, grown)
