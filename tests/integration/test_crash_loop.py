"""A crash loop beside a thousand neighbours: it backs off, ends in quarantine, and between its crashes they notice nothing."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remora import Quarantined
from tests.integration.apps import Witness
from tests.integration.brittle import Brittle, looping
from tests.integration.conftest import Figure
from tests.integration.running import Running, alive, running, until

pytestmark = [
    pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster"), pytest.mark.timeout(300),
]  # fmt: skip
NEIGHBOURS = 1_000
RATE = 300.0
"""Commands a second to them, whatever comes back."""
UNDISTURBED_S = 8.0
AGAIN_S = 60.0
PLENTY_S = 300.0
RULE = looping.supervision.crashes
BORNE = RULE.at_most
TIMES = 3
"""What p99 may be of the undisturbed one, by the promise."""


@dataclass
class Sent:
    at_s: float
    until_s: float = float("inf")


class Neighbours:
    """An open loop of commands to a thousand entities."""

    def __init__(self, app: Running) -> None:
        self._refs = [
            app.client.ref(Witness, f"w{number}").with_options(deadline_s=60.0) for number in range(NEIGHBOURS)
        ]
        self.sent: list[Sent] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Have all of them in memory."""
        for first in range(0, NEIGHBOURS, 100):
            await asyncio.gather(*(ref.mark(0) for ref in self._refs[first : first + 100]))

    async def run(self) -> None:
        began = time.perf_counter()
        for number in itertools.count():
            late = began + number / RATE - time.perf_counter()
            if late > 0:
                await asyncio.sleep(late)  # noqa: TID251 - the pace of an open loop
            task = asyncio.create_task(self._one(number))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _one(self, number: int) -> None:
        self.sent.append(sent := Sent(time.perf_counter()))
        await self._refs[number % NEIGHBOURS].mark(number)
        sent.until_s = time.perf_counter()

    async def all_answered(self) -> None:
        await asyncio.gather(*self._under_way)

    def p99_s(self, from_s: float, until_s: float, outages: list[tuple[float, float]]) -> tuple[float, int]:
        """Return the 99th percentile of those that had nothing to do with an outage, and how many they are."""
        took = sorted(
            one.until_s - one.at_s
            for one in self.sent
            if from_s <= one.at_s < until_s
            and not any(begun < one.until_s and one.at_s < ended for begun, ended in outages)
        )
        return took[int(len(took) * 0.99)], len(took)


@dataclass
class Outages:
    """From when to when a host was not there, or did not have its part of the shards; and whose process ended."""

    app: Running
    found: list[tuple[float, float]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    @property
    def died(self) -> int:
        return sum(not alive(pid) for pid in self.seen)

    def whole(self) -> bool:
        pids = {row.pid for row in self.app.hosts()}
        self.seen |= pids
        return self.app.balanced(2) and all(alive(pid) for pid in pids)

    async def watch(self) -> None:
        while True:
            await until(lambda: not self.whole(), PLENTY_S, "a host ends")
            begun = time.perf_counter()
            await until(self.whole, AGAIN_S, "both hosts stand")
            self.found.append((begun, time.perf_counter()))


async def test_a_crash_loop_backs_off_and_ends_in_quarantine_while_a_thousand_neighbours_keep_their_pace(
    tmp_path: Path, figure: Figure
) -> None:
    async with running("tests.integration.brittle:looping", tmp_path / "looping.db") as app:
        neighbours = Neighbours(app)
        await neighbours.begin()
        bad = app.client.ref(Brittle, "bad")
        assert await bad.add() == 1
        load = asyncio.create_task(neighbours.run())
        outages = Outages(app)
        watch = asyncio.create_task(outages.watch())
        try:
            await until(lambda: len(neighbours.sent) > RATE, 10, "the load has begun")
            from_s = time.perf_counter()
            await until(lambda: time.perf_counter() > from_s + UNDISTURBED_S, UNDISTURBED_S + 1, "its time is over")
            until_s = time.perf_counter()

            with pytest.raises(Quarantined, match="took its host down 3 times"):
                await bad.with_options(deadline_s=120.0).leave()
            quarantined_s = time.perf_counter()
            await until(lambda: outages.died == BORNE + 1 and outages.whole(), AGAIN_S, "the last host is back")
            back_s = time.perf_counter()
            await until(lambda: time.perf_counter() > back_s + UNDISTURBED_S, UNDISTURBED_S + 1, "its time is over")
        finally:
            load.cancel()
            watch.cancel()
        await neighbours.all_answered()

        before_s, of_before = neighbours.p99_s(from_s, until_s, [])
        between_s, of_between = neighbours.p99_s(until_s, time.perf_counter(), outages.found)
        figure("p99 undisturbed", before_s)
        figure("p99 between crashes", between_s)
        figure("until quarantine", quarantined_s - until_s)
        assert min(of_before, of_between) > RATE * UNDISTURBED_S / 2
        assert between_s <= TIMES * before_s
        # Between three crashes lie two pauses; as many hosts were lost and not one more.
        assert quarantined_s - until_s > sum(RULE.backoff.pause_s(crash) for crash in range(1, BORNE + 1))
        assert outages.died == BORNE + 1
