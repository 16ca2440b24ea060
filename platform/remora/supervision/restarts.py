"""What of declared rules Ray can carry out by itself: restarts without a pause, so and so often."""

from __future__ import annotations

import random

from remora.supervision.decisions import History, decide
from remora.supervision.rules import Directive, Rules

UNLIMITED = -1
"""What Ray takes for "without end"."""
COUNT_MAX = 100
"""Restarts in one moment that are looked at: rules that bear more have no limit worth counting."""


def restarts_at_once(rules: Rules, kind: str, history: History, now_s: float) -> int:
    """Return Ray's ``max_restarts`` for an actor under these rules.

    Ray restarts at once or never: it knows no pause, no window, no other node, and a constructor that failed ends an
    actor for good. So it is left as many restarts as the rules would allow in one moment without any pause, which are
    then done without anybody of ours; whoever looks after the actor does the rest, with pauses and by count.
    ``max_task_retries`` is 0 for all of our actors: who calls knows whether to ask again, and until when.

    Args:
        rules: All rules of the actor, the defaults last.
        kind: What rules know its end by.
        history: What the rules were used for before.
        now_s: The present, on the clock of the history.

    Returns:
        A count, or -1 for no limit.
    """
    for count in range(COUNT_MAX):
        decision, history = decide(rules, (kind,), history, now_s, random.Random(0))
        if decision.directive is not Directive.RESTART or decision.after_s > 0:
            return count
    return UNLIMITED
