"""Waiting for a condition with a bound."""

import asyncio
from collections.abc import Callable

STEP_S = 0.001
"""Pause between two looks at a condition, in seconds."""


async def until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Return as soon as ``condition()`` holds; raise TimeoutError if it does not hold in time."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(within_s):
        while not condition():
            step = loop.create_future()
            loop.call_later(STEP_S, step.cancel)
            await asyncio.wait([step])


async def turns(count: int = 20) -> None:
    """Let everything that is ready run, a number of turns of the loop long."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        turn = loop.create_future()
        loop.call_soon(turn.cancel)
        await asyncio.wait([turn])
