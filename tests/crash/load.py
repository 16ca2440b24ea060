"""Many concurrent clients of a process that may be killed: every answer goes to the witness as it comes."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from remora import Client, Rejected, RemoraError
from remora.clock import SystemClock
from tests.crash.app import Inbox, Ledger, Prefix, Purse, app
from tests.crash.link import Link
from tests.crash.witness import Answered, Journal, Sent, Witness, prefixes, shown

LEDGERS = 10
PURSES = 5
INBOXES = 3
CLIENTS = 3
WORKERS = 16
"""Commands under way per client: more than it has entities, so that lanes hold several."""
REPEATS = 40
"""Answers per entity that are asked for again at the end: within what an entity remembers."""
DEADLINE_S = 60.0


class Load:
    """Clients that give every entity values of their own until they are left.

    Args:
        links: How each client reaches the process.
        witness: The file that takes what they see.
        rng: Draws what they do.
        first: The first value; loads on one store begin far from each other.
    """

    def __init__(self, links: Sequence[Link], witness: Path, rng: random.Random, first: int = 1) -> None:
        self.witness = Witness(witness)
        self.links = links
        self.clients: list[Client] = []
        self._rng = rng
        self._values = itertools.count(first)
        self._stopping = False
        self._started: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for number, link in enumerate(self.links):
            session = f"client-{number}-{self._rng.getrandbits(32)}"
            client = Client(link, link, SystemClock(), app.settings, session, self._rng.getrandbits(32))
            self.clients.append(client)
        self._started = [asyncio.create_task(self._start(client)) for client in self.clients]
        self.go_on()
        return self

    def go_on(self) -> None:
        """Send, until told to finish."""
        self._stopping = False
        self._workers = [
            asyncio.create_task(self._work(number, client, self._started[number]))
            for number, client in enumerate(self.clients)
            for _ in range(WORKERS)
        ]

    async def finish(self) -> None:
        """Send nothing new, and wait for the outcome of all that was sent."""
        self._stopping = True
        await asyncio.gather(*self._workers)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for client in self.clients:
            await client.close()
        for link in self.links:
            await link.close()
        self.witness.close()

    async def _start(self, client: Client) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await client.start()

    async def _work(self, number: int, client: Client, started: asyncio.Task[None]) -> None:
        await asyncio.shield(started)
        while not self._stopping:
            await self._one(number, client)

    async def _one(self, number: int, client: Client) -> None:
        rng, draw = self._rng, self._rng.random()
        ledger, purse, inbox = str(rng.randrange(LEDGERS)), str(rng.randrange(PURSES)), str(rng.randrange(INBOXES))
        if draw < 0.15:
            await self._query(client, *rng.choice([(Ledger, ledger), (Purse, purse)]))
            return
        value = next(self._values)
        own = f"own-{value}" if rng.random() < 0.5 else ""
        if draw < 0.5:
            await self._command(number, client, Ledger, ledger, own, value, "", lambda ref: ref.add(value))
        elif draw < 0.65:
            await self._command(
                number, client, Ledger, ledger, own, value, inbox, lambda ref: ref.add_and_tell(value, inbox)
            )
        elif draw < 0.9:
            await self._command(number, client, Purse, purse, own, value, "", lambda ref: ref.add(value))
        else:
            cls, name = rng.choice([(Ledger, ledger), (Purse, purse)])
            await self._command(number, client, cls, name, own, value, "", lambda ref: ref.refuse(value))

    async def _command(
        self, number: int, client: Client, cls: Any, name: str, command_id: str, value: int, inbox: str,  # noqa: ANN401 - two entity classes
        call: Callable[[Any], Awaitable[Prefix]],
    ) -> None:  # fmt: skip
        key, witness = f"{cls.__remora__.type}/{name}", self.witness
        ref = client.ref(cls, name).with_options(command_id=command_id or None, deadline_s=DEADLINE_S)
        floor = witness.known[key]
        witness.sent(Sent(number, key, value, inbox))
        try:
            reply = await call(ref)
        except Rejected as no:
            before = shown(Prefix.model_validate_json(no.message))
            witness.answered(Answered("no", key, value, command_id, floor, before))
        except RemoraError as error:
            witness.failed(key, value, error)
        else:
            witness.answered(Answered("reply", key, value, command_id, floor, shown(reply)))

    async def _query(self, client: Client, cls: Any, name: str) -> None:  # noqa: ANN401 - two entity classes
        key = f"{cls.__remora__.type}/{name}"
        floor = self.witness.known[key]
        try:
            seen = await client.ref(cls, name).with_options(deadline_s=DEADLINE_S).seen()
        except RemoraError as error:
            self.witness.failed(key, 0, error)
        else:
            self.witness.answered(Answered("seen", key, 0, "", floor, shown(seen)))


async def ask_again(client: Client, witness: Witness, journal: Journal) -> int:
    """Ask for the latest answers once more, and for the states: all as it was; return how many were repeated."""
    sent, answers, _ = witness.read()
    told = {command.value: command.inbox for command in sent}
    latest: dict[str, list[Answered]] = {}
    for one in answers:
        if one.command_id:
            latest.setdefault(one.key, []).append(one)
    repeated = 0
    for key, values in journal.histories.items():
        kind, _, name = key.partition("/")
        ref: Any = client.ref(Ledger if kind == "ledger" else Purse, name)
        for one in latest.get(key, [])[-REPEATS:]:
            again = ref.with_options(command_id=one.command_id)
            try:
                if told[one.value]:
                    reply = await again.add_and_tell(one.value, told[one.value])
                else:
                    reply = await (again.add(one.value) if one.what == "reply" else again.refuse(one.value))
            except Rejected as no:
                assert one.what == "no", one
                reply = Prefix.model_validate_json(no.message)
            assert shown(reply) == one.shown, one
            repeated += 1
            assert client.repeated == repeated, "answered anew and not from what was recorded"
        assert shown(await ref.seen()) == prefixes(values)[-1]
        if kind == "ledger":
            assert [event["data"]["value"] for event in await history(ref)] == values
    for key, took in journal.took.items():
        inbox: Any = client.ref(Inbox, key.partition("/")[2])
        assert shown(await inbox.seen()) == prefixes([value for _, value in took])[-1]
    return repeated


async def history(ref: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - a reference
    events: list[dict[str, Any]] = []
    while page := await ref.history(after=len(events), limit=1000):
        events += page
    return events
