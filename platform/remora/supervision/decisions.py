"""What to do after a failure: a pure function of rules, of what failed before, and of the time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from remora.supervision.rules import Directive, Rule


class Uses(NamedTuple):
    """What one rule has been used for, for one subject."""

    at_s: tuple[float, ...] = ()
    """When, as far as its limit is concerned: within its window, oldest first; empty for a rule without a limit."""
    streak: int = 0
    """Restarts in a row."""
    up_s: float = 0.0
    """When the last pause was over, or will be."""


History = Mapping[int, Uses]
"""Place of a rule among the rules of its subject → its uses."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and after which pause in seconds."""

    directive: Directive
    after_s: float = 0.0
    count: int = 1
    """Which use of the rule within its window this is; 1 for rules that have no limit."""


def decide(
    rules: Sequence[Rule], kinds: Iterable[str], history: History, now_s: float, rng: random.Random, *, first: int = 0
) -> tuple[Decision, History]:
    """Return the decision about a failure, and the history with it.

    Args:
        rules: In order; the first that matches decides. None matching means escalate.
        kinds: All that the failure is; see ``kinds_of``.
        history: What the rules were used for before.
        now_s: The present, on the clock of the history.
        rng: Source of the jitter.
        first: Place of the first rule that may decide.
    """
    kinds = tuple(kinds)
    for place, rule in enumerate(rules):
        if place >= first and rule.matches(kinds):
            decision, uses = _use(rule, history.get(place, Uses()), now_s, rng)
            return decision, {**history, place: uses}
    return Decision(Directive.ESCALATE), history


def _use(rule: Rule, before: Uses, now_s: float, rng: random.Random) -> tuple[Decision, Uses]:
    directive, at_s, count = rule.directive, before.at_s, 1
    if rule.at_most is not None:
        recent = tuple(at for at in at_s if now_s - at <= rule.within_s)
        at_s = (*recent, now_s)[-(rule.at_most + 1) :]
        count = len(at_s)
        if count > rule.at_most:
            directive = rule.then
    if directive is not Directive.RESTART:
        return Decision(directive, count=count), Uses(at_s, before.streak, before.up_s)
    streak = before.streak + 1 if before.streak and now_s - before.up_s < rule.backoff.well_s else 1
    after_s = rule.backoff.pause_s(streak) * (1 - rule.backoff.jitter * rng.random())
    return Decision(directive, after_s, count), Uses(at_s, streak, now_s + after_s)


def is_failing(rules: Sequence[Rule], history: History, now_s: float) -> bool:
    """Return whether a subject has been restarted more than once in a row, and has not been well for long since.

    Args:
        rules: As for ``decide``.
        history: What they were used for.
        now_s: The present, on the clock of the history.
    """
    return any(uses.streak > 1 and now_s - uses.up_s < rules[place].backoff.well_s for place, uses in history.items())


def aged(history: History, now_s: float) -> list[tuple[int, tuple[float, ...], int, float]]:
    """Return a history with ages instead of times, as it travels to another process's clock."""
    return [
        (place, tuple(now_s - at for at in uses.at_s), uses.streak, now_s - uses.up_s)
        for place, uses in history.items()
    ]


def dated(history: Iterable[tuple[int, tuple[float, ...], int, float]], now_s: float) -> dict[int, Uses]:
    """Return the history that ``aged`` made travel, on the clock of this process."""
    return {
        place: Uses(tuple(now_s - age for age in ages), streak, now_s - age) for place, ages, streak, age in history
    }
