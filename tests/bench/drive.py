"""Closed loops: so many calls in flight, a new one when an answer comes; and what that measured."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Self

Call = Callable[[int], Awaitable[object]]
"""Makes the n-th call and waits for its answer."""


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    warm_up_s: float
    seconds: float
    """Seconds of the measurement itself, after warming up."""


@dataclass(frozen=True)
class Measured:
    """What one measurement saw."""

    per_second: float
    p50_ms: float
    p99_ms: float
    acknowledged: int = 0
    """Answers in all, those of the warm-up and after the end included."""

    @classmethod
    def of(cls, latencies_s: Sequence[float], seconds: float, acknowledged: int, per_call: int = 1) -> Self:
        """Return the figures of calls that were answered within ``seconds``.

        Args:
            latencies_s: Seconds from each call to its answer.
            seconds: Over which they were answered.
            acknowledged: Answers in all.
            per_call: Commands that each call carried.

        Raises:
            RuntimeError: There were none.
        """
        if not latencies_s:
            msg = f"nothing was answered within {seconds:g} s"
            raise RuntimeError(msg)
        ordered = sorted(latencies_s)
        return cls(
            len(ordered) * per_call / seconds,
            ordered[len(ordered) // 2] * 1e3,
            ordered[int(len(ordered) * 0.99)] * 1e3,
            acknowledged,
        )


async def closed_loop(call: Call, in_flight: int, plan: Plan) -> Measured:
    """Keep ``in_flight`` calls under way; an error of any call ends the measurement."""
    numbers = itertools.count()
    latencies_s: list[float] = []
    begin_s = time.perf_counter() + plan.warm_up_s
    end_s = begin_s + plan.seconds
    acknowledged = 0

    async def work() -> None:
        nonlocal acknowledged
        while (sent_s := time.perf_counter()) < end_s:
            await call(next(numbers))
            answered_s = time.perf_counter()
            acknowledged += 1
            if begin_s <= answered_s < end_s:
                latencies_s.append(answered_s - sent_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
    return Measured.of(latencies_s, plan.seconds, acknowledged)


async def in_turn(first: Call, second: Call, plan: Plan, slice_s: float = 0.5) -> tuple[Measured, Measured]:
    """Measure two calls one at a time in alternating slices, so that both see the same neighbours."""
    calls = {0: first, 1: second}
    latencies_s: tuple[list[float], list[float]] = ([], [])
    counts = [0, 0]
    for side, call in calls.items():
        counts[side] += (await closed_loop(call, 1, Plan(0.0, plan.warm_up_s))).acknowledged
    for slice_number in range(2 * max(1, round(plan.seconds / slice_s))):
        side = slice_number % 2
        end_s = time.perf_counter() + slice_s
        while (sent_s := time.perf_counter()) < end_s:
            await calls[side](counts[side])
            counts[side] += 1
            latencies_s[side].append(time.perf_counter() - sent_s)
    spent = (sum(latencies_s[0]), sum(latencies_s[1]))
    return Measured.of(latencies_s[0], spent[0], counts[0]), Measured.of(latencies_s[1], spent[1], counts[1])
