"""Rows over HTTP, through Serve's proxy; the load comes from a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from tests.bench.drive import Measured
from tests.bench.records import Record
from tests.bench.stage import HTTP_ENTITIES, Stage

CONNECTIONS = 64
DEPOSIT = "/account/{id}/deposit"
PLAIN = "plain Serve, FastAPI"
NAIVE = "Serve + actor calls"
ALONE = "one per request"


class HttpRows:
    """``http.commands`` and ``http.batch``."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def commands(self) -> AsyncIterator[Record]:
        """Durable deposits, one per request, to 1,000 entities."""
        ours = await self._deposits("http-", CONNECTIONS)
        plain = await self._stage.http(f"/plain{DEPOSIT}", "peer-", CONNECTIONS)
        naive = await self._stage.http(f"/naive{DEPOSIT}", "peer-", CONNECTIONS)
        for suffix, peer, found in (("", PLAIN, plain), (".naive", NAIVE, naive)):
            yield Record(f"http.commands{suffix}", ours.per_second, "req/s", peer, found.per_second)
            yield Record(f"http.commands{suffix}.p50", ours.p50_ms, "ms", peer, found.p50_ms)
            yield Record(f"http.commands{suffix}.p99", ours.p99_ms, "ms", peer, found.p99_ms)
        alone = await self._deposits("alone-", 1)
        plain_alone = await self._stage.http(f"/plain{DEPOSIT}", "peer-", 1)
        yield Record("http.commands.rate@1", alone.per_second, "req/s", PLAIN, plain_alone.per_second)
        yield Record("http.commands.p50@1", alone.p50_ms, "ms", PLAIN, plain_alone.p50_ms)
        ceiling = await self._ceiling()
        yield Record("http.generator", ceiling.per_second, "req/s", PLAIN, plain.per_second)

    async def batch(self) -> AsyncIterator[Record]:
        """Durable deposits, many per request, on one connection."""
        alone = await self._deposits("single-", 1)
        for lines in (1_000, 10_000):
            ids = f"batch-{lines}-"
            ours = await self._stage.http("/v1/batch", ids, 1, lines)
            await self._stage.check(ids, HTTP_ENTITIES, ours.acknowledged)
            suffix = "" if lines == 1_000 else f".lines@{lines}"
            yield Record(f"http.batch{suffix}", ours.per_second, "commands/s", ALONE, alone.per_second)
            yield Record(f"http.batch{suffix}.p50", ours.p50_ms, f"ms per {lines:,} lines")
            yield Record(f"http.batch{suffix}.p99", ours.p99_ms, f"ms per {lines:,} lines")

    async def _deposits(self, ids: str, connections: int) -> Measured:
        found = await self._stage.http(f"/v1{DEPOSIT}", ids, connections)
        await self._stage.check(ids, HTTP_ENTITIES, found.acknowledged)
        return found

    async def _ceiling(self) -> Measured:
        """Return what the generator does against a server that does nothing."""
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.nothing", stdout=asyncio.subprocess.PIPE
        )
        try:
            if server.stdout is None:
                msg = "the server that does nothing has no output"
                raise RuntimeError(msg)
            port = int(await server.stdout.readline())
            return await self._stage.http(DEPOSIT, "nothing-", CONNECTIONS, port=port)
        finally:
            server.terminate()
            await server.wait()
