"""Rows of the Python client, which lives in the bench's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from entities.account import Account
from tests.bench.drive import Call, Measured, closed_loop, in_turn
from tests.bench.records import Record
from tests.bench.stage import AT_ONCE, ENTITIES, Stage

IN_FLIGHT = (1024, 64, 1)
RAW = "raw Ray actor"


class PythonRows:
    """``commands.sqlite``, ``commands.postgres``, ``commands.hot`` and ``latency.one``."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._raw: dict[int, Measured] = {}

    async def many(self) -> AsyncIterator[Record]:
        """Durable deposits to many entities, all of them in memory."""
        async for record in self._family(f"commands.{self._stage.store}", "many-", ENTITIES):
            yield record

    async def hot(self) -> AsyncIterator[Record]:
        """The same to one entity."""
        async for record in self._family("commands.hot", "hot-", 1):
            yield record

    async def one(self) -> AsyncIterator[Record]:
        """One durable deposit at a time, in turn with a raw call."""
        ours, raw = await in_turn(self._deposits("one-", 1), self._raw_deposits(), self._stage.plan)
        await self._stage.check("one-", 1, ours.acknowledged)
        yield Record("latency.one", ours.p50_ms, "ms", RAW, raw.p50_ms)
        yield Record("latency.one.p99", ours.p99_ms, "ms", RAW, raw.p99_ms)

    async def _family(self, name: str, ids: str, entities: int) -> AsyncIterator[Record]:
        call = self._deposits(ids, entities)
        for first in range(0, entities, AT_ONCE):  # activations are not what these rows measure
            await asyncio.gather(*(call(number) for number in range(first, min(first + AT_ONCE, entities))))
        acknowledged = entities
        for in_flight in IN_FLIGHT:
            ours = await closed_loop(call, in_flight, self._stage.plan)
            acknowledged += ours.acknowledged
            raw = await self._raw_at(in_flight)
            rate = name if in_flight == IN_FLIGHT[0] else f"{name}.rate@{in_flight}"
            yield Record(rate, ours.per_second, "commands/s", RAW, raw.per_second)
            yield Record(f"{name}.p50@{in_flight}", ours.p50_ms, "ms", RAW, raw.p50_ms)
            yield Record(f"{name}.p99@{in_flight}", ours.p99_ms, "ms", RAW, raw.p99_ms)
        await self._stage.check(ids, entities, acknowledged)

    async def _raw_at(self, in_flight: int) -> Measured:
        """Measure the raw actor once per run: which of its dict's keys is added to makes no difference to it."""
        if in_flight not in self._raw:
            self._raw[in_flight] = await closed_loop(self._raw_deposits(), in_flight, self._stage.plan)
        return self._raw[in_flight]

    def _deposits(self, ids: str, entities: int) -> Call:
        refs = [self._stage.client.ref(Account, f"{ids}{number}") for number in range(entities)]
        return lambda number: refs[number % entities].deposit(1)

    def _raw_deposits(self) -> Call:
        deposit = self._stage.raw.deposit
        return lambda number: deposit.remote(f"raw-{number % ENTITIES}", 1)
