"""Load on witnesses, and the test's own record of what was acknowledged: the outside witness."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from types import TracebackType
from typing import Self

from remora import RemoraError
from tests.integration.apps import Witness
from tests.integration.running import Running, until

ENTITIES = 48
WORKERS = 96
"""Commands in flight: two per entity, so that lanes are never empty when something is killed."""
DEADLINE_S = 60.0


class Load:
    """Gives every witness the numbers 1, 2, 3 … until it is left; records each acknowledgement."""

    def __init__(self, app: Running, workers: int = WORKERS) -> None:
        self.app = app
        self._count = workers
        self.entities = [f"w{number}" for number in range(ENTITIES)]
        self.acknowledged: dict[str, list[int]] = defaultdict(list)
        self.at: list[tuple[float, str]] = []
        """(when, entity) of each acknowledgement"""
        self.errors: list[RemoraError] = []
        self._sent = dict.fromkeys(self.entities, 0)
        self._stopping = False
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        refs = {name: self.app.client.ref(Witness, name).with_options(deadline_s=DEADLINE_S) for name in self.entities}
        turns = itertools.cycle(self.entities)

        async def work() -> None:
            while not self._stopping:
                name = next(turns)
                self._sent[name] = number = self._sent[name] + 1
                try:
                    await refs[name].mark(number)
                except RemoraError as error:
                    self.errors.append(error)
                else:
                    self.acknowledged[name].append(number)
                    self.at.append((time.perf_counter(), name))

        self._workers = [asyncio.create_task(work()) for _ in range(self._count)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if error is not None:
            for worker in self._workers:
                worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=error is not None)

    async def more(self, count: int, within_s: float = 60.0) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.at) + count
        await until(lambda: len(self.at) >= goal, within_s, f"{count} more acknowledgements")

    def outage_s(self, since: float, entities: set[str]) -> float:
        """Return the longest silence of any of these entities after ``since``."""
        gaps = dict.fromkeys(entities, 0.0)
        last = dict.fromkeys(entities, since)
        for at, name in self.at:
            if at > since and name in entities:
                gaps[name] = max(gaps[name], at - last[name])
                last[name] = at
        return max(gaps.values())

    def longest_silence_s(self, since: float, until_s: float) -> float:
        """Return the longest time between two acknowledgements, whoever gave them."""
        times = [since, *(at for at, _ in self.at if since < at < until_s), until_s]
        return max(late - early for early, late in itertools.pairwise(times))

    async def verify(self) -> None:
        """Compare what was acknowledged with what the witnesses say and with what the store holds."""
        assert self.errors == []
        for name in self.entities:
            said = await self.app.client.ref(Witness, name).with_options(deadline_s=DEADLINE_S).marks()
            # Every number once and in the order sent (G1, G2, G4); all of them were acknowledged.
            assert said == list(range(1, self._sent[name] + 1)), name
            assert sorted(self.acknowledged[name]) == said, name
        stored = self.app.rows(
            "SELECT entity, count(*), count(DISTINCT command_id), min(n), max(n) FROM entries"
            " WHERE entity LIKE 'witness/%' GROUP BY entity"
        )
        counts = {f"witness/{name}": sent for name, sent in self._sent.items()}
        assert {row[0]: row[1:] for row in stored} == {key: (sent, sent, 1, sent) for key, sent in counts.items()}
