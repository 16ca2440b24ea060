"""The plan of a chaos run: drawn from a seed, a value that says what fails when."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Fault(StrEnum):
    """What can be made to fail."""

    HOST_KILL = "host killed"
    HOST_FREEZE = "host frozen"
    NODE_KILL = "node killed"
    NODE_FREEZE = "node frozen"
    REGISTRY_KILL = "registry killed"
    STORE_CUT = "store cut off"
    STORE_CUT_NODE = "store cut off from a node"
    STORE_RESET = "store connections broken"
    DRAIN = "node drained"


LASTS_S: dict[Fault, tuple[float, float]] = {
    Fault.HOST_FREEZE: (1.0, 8.0),
    Fault.NODE_FREEZE: (1.0, 12.0),
    Fault.STORE_CUT: (0.5, 6.0),
    Fault.STORE_CUT_NODE: (1.0, 10.0),
}
"""How long what can be undone lasts, in seconds: from shorter than a lease to several of them."""
GAP_S = (2.0, 14.0)
"""From one fault to the next: so that some meet others under way, and some find peace restored."""
FIRST_S = 4.0
CALM_S = 8.0
"""Without a new fault at the end."""
SHORT = (Fault.HOST_KILL, Fault.NODE_FREEZE, Fault.REGISTRY_KILL, Fault.STORE_CUT, Fault.NODE_KILL)
"""The handful of a short run, in this order: the node last, since another one takes long to start."""


class Step(NamedTuple):
    """One fault of a plan."""

    at_s: float
    """Seconds since the load began."""
    fault: Fault
    pick: float
    """Which of those present is hit, from 0 to below 1."""
    lasts_s: float
    """Seconds until it is undone; 0 for what cannot be."""


def draw(seed: int, seconds: float, faults: Sequence[Fault] = tuple(Fault)) -> list[Step]:
    """Return a plan; the same seed, time and faults give the same plan.

    Args:
        seed: Of everything in it.
        seconds: How long the load lasts.
        faults: What may fail; in a long run all of them equally often.
    """
    rng = random.Random(seed)
    plan: list[Step] = []
    at_s, bag = FIRST_S, list[Fault]()
    while at_s < seconds - CALM_S:
        if not bag:
            bag = rng.sample(list(faults), len(faults))
        plan.append(_step(rng, at_s, bag.pop()))
        at_s += rng.uniform(*GAP_S)
    return plan


def short(seed: int, seconds: float) -> list[Step]:
    """Return a plan of one fault of each kind that matters most, evenly over the time."""
    rng = random.Random(seed)
    every_s = (seconds - FIRST_S - CALM_S) / len(SHORT)
    return [_step(rng, FIRST_S + number * every_s, fault) for number, fault in enumerate(SHORT)]


def _step(rng: random.Random, at_s: float, fault: Fault) -> Step:
    pick, lasts = rng.random(), LASTS_S.get(fault)
    return Step(round(at_s, 1), fault, pick, round(rng.uniform(*lasts), 1) if lasts else 0.0)
