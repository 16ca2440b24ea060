"""Time that passes only when nothing else is left to do: a simulated minute costs milliseconds."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from remora.clock import Clock
from remora.errors import RemoraError


class _Jumping(selectors.SelectSelector):
    """A selector that does not wait: it moves the loop's clock on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - as the base class
        if timeout is None:
            msg = "Every task waits for another: the simulation would stand still for ever."
            raise RuntimeError(msg)
        self.now_s += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


class VirtualClock:
    """The platform's clock on the running loop's virtual time."""

    def now_ms(self) -> int:
        return 1_357_000_000_000 + int(asyncio.get_running_loop().time() * 1000)

    def monotonic_s(self) -> float:
        return 1_000.0 + asyncio.get_running_loop().time()


class VirtualLease:
    """A host's lease, renewed by the loop and not by a thread, whose real time virtual time outruns."""

    def __init__(self, renew: Callable[[float], None], clock: Clock, ttl_s: float, margin_s: float) -> None:
        self._renew = renew
        self._clock = clock
        self._ttl_s = ttl_s
        self._margin_s = margin_s
        self._until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        began_s = self._clock.monotonic_s()
        try:
            self._renew(began_s)
            self._until_s = began_s + self._ttl_s - self._margin_s
        except RemoraError:
            pass  # the next renewal tries again, as the real one does
        self._timer = asyncio.get_running_loop().call_later(self._ttl_s / 4, self.start)

    def stop(self) -> None:
        self._until_s = 0.0
        if self._timer is not None:
            self._timer.cancel()

    def live(self, now_s: float) -> bool:
        return now_s < self._until_s


async def passing(seconds: float) -> None:
    """Let virtual time pass."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


async def until(condition: Callable[[], object], within_s: float) -> float:
    """Wait for something; return how long it took, in virtual seconds."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.timeout(within_s):
        while not condition():
            await passing(0.01)
    return loop.time() - began_s


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a simulation to its end on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)
