"""Which level decides about a host that failed, and what: a pure function, from the host up."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from remora.supervision.decisions import History, decide
from remora.supervision.levels import Strategy, Supervision
from remora.supervision.rules import Directive

DEDICATED = "dedicated"
"""What rules call the hosts of dedicated entities; those that every app has are ``order.SHARED``."""
Histories = Mapping[str, History]
"""Subject, ``host:SLOT``, ``group:NAME`` or ``app`` → what its rules were used for."""


class Verdict(NamedTuple):
    """What a level has decided."""

    level: Literal["host", "group", "app"]
    directive: Directive
    """``restart`` or ``stop``."""
    after_s: float
    """The pause before the restart, in seconds."""
    strategy: Strategy = Strategy.ONE_FOR_ONE


def climb(
    supervision: Supervision, slot: str, group: str, kinds: Sequence[str], histories: Histories, now_s: float,
    rng: random.Random,
) -> tuple[Verdict, Histories]:  # fmt: skip
    """Return the verdict of the first level that does not escalate, and the histories with it.

    Args:
        supervision: The app's rules.
        slot: Of the host.
        group: Its group, as rules call it.
        kinds: All that the failure is; see ``kinds_of``.
        histories: What the rules were used for before.
        now_s: The present, on the clock of the histories.
        rng: Source of the jitter.
    """
    declared = supervision.group(group)
    levels = (
        ("host", f"host:{slot}", supervision.host_rules, Strategy.ONE_FOR_ONE),
        ("group", f"group:{group}", declared.rules, declared.strategy),
        ("app", "app", supervision.app_rules, supervision.app.strategy),
    )
    for level, subject, rules, strategy in levels:
        decision, history = decide(rules, kinds, histories.get(subject, {}), now_s, rng)
        histories = {**histories, subject: history}
        if decision.directive is not Directive.ESCALATE:
            return Verdict(level, decision.directive, decision.after_s, strategy), histories  # type: ignore[arg-type]  # one of the three above
    return Verdict("app", Directive.STOP, 0.0), histories  # nobody is left to decide


def concerned(strategy: Strategy, failed: str, siblings: Sequence[str]) -> list[str]:
    """Return which siblings a decision about one of them concerns, in the order in which they start.

    Args:
        strategy: The level's.
        failed: The one that failed.
        siblings: All of them, in the order in which they start.
    """
    if strategy is Strategy.ONE_FOR_ONE or failed not in siblings:
        return [failed]
    return list(siblings[siblings.index(failed) :] if strategy is Strategy.REST_FOR_ONE else siblings)
