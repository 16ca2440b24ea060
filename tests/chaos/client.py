"""A client process of the chaos: sends, asks again until it knows the outcome, and testifies.

`python -m tests.chaos.client '{"address": …}'` sends until its input ends, then waits for the outcome of
everything it sent, asks every entity once more, and leaves. Once a second it prints how far it is. A line of
input `probe` has it send one command to every entity at once and print when the last of them was answered;
`pause` and `go on` do what they say.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remora import Client, Rejected, RemoraError
from remora.cluster import bootstrap
from remora.errors import Verdict
from tests.chaos.app import Ledger, Prefix, Purse, app
from tests.chaos.witness import Shown, What, Witness

TICK_S = 0.01
IN_FLIGHT_MAX = 4000
"""Operations under way after which it waits for answers: an outage must not pile up work without bound."""
HOT = 20
"""Entities that get more than the others, so that one caller has several commands under way to one entity."""
AGAIN_S = 0.05
"""Pause before an operation that was given up is sent again."""
LAST_AT_ONCE = 200
FINISH_S = 150.0
"""Longest time from the end of its input until it leaves: whoever started it may be gone, and the cluster too."""


@dataclass(frozen=True)
class Spec:
    """What to do."""

    address: str
    log: str
    caller: str
    seed: int
    entities: int
    rate: float
    """Operations per second."""
    deadlines_s: tuple[float, float] = (2.0, 10.0)
    """Shortest and longest time that it waits for one answer."""
    queries: float = 0.2
    """Part of the operations."""
    refusals: float = 0.025
    hot: float = 0.2
    """Part of the operations that the hot entities get."""


class Load:
    """Sends at a steady rate, whatever comes back.

    Args:
        spec: What to do.
        client: Reaches the app.
        witness: Takes down what is seen.
    """

    def __init__(self, spec: Spec, client: Client, witness: Witness) -> None:
        self._spec = spec
        self._client = client
        self._witness = witness
        self._rng = random.Random(spec.seed)
        self._made = 0
        self.paused = False
        self.under_way: set[asyncio.Task[None]] = set()

    async def send_until(self, stopping: asyncio.Event) -> None:
        """Send until told to stop."""
        began_s, sent = time.perf_counter(), 0
        while not stopping.is_set():
            due = int((time.perf_counter() - began_s) * self._spec.rate)
            if self.paused:
                sent = due
            room = IN_FLIGHT_MAX - len(self.under_way)
            for _ in range(min(due - sent, room)):
                self._spawn(self._one())
            sent = due
            await asyncio.sleep(TICK_S)  # noqa: TID251 - the load's own pace

    async def finish(self) -> None:
        """Wait for every outcome."""
        while self.under_way:
            await asyncio.wait(self.under_way)

    async def probe(self) -> int:
        """Send every entity a command at once; return when the last of them was answered."""
        entities = [_entity(number) for number in range(self._spec.entities)]
        await asyncio.gather(*(self._command(cls, name, "append") for cls, name in entities))
        return time.monotonic_ns()  # noqa: TID251 - shared by all processes

    async def ask_everybody(self) -> None:
        """Ask every entity once more."""
        numbers = list(range(self._spec.entities))
        for first in range(0, len(numbers), LAST_AT_ONCE):
            await asyncio.gather(*(self._ask(*_entity(number)) for number in numbers[first : first + LAST_AT_ONCE]))

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.create_task(work)
        self.under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        task.result()  # nothing here may fail in silence: the loop reports it, and the log lacks an outcome

    async def _one(self) -> None:
        rng = self._rng
        bound = HOT if rng.random() < self._spec.hot else self._spec.entities
        cls, name = _entity(rng.randrange(bound))
        draw = rng.random()
        if draw < self._spec.queries:
            await self._ask(cls, name)
        else:
            await self._command(cls, name, "refuse" if draw > 1 - self._spec.refusals else "append")

    async def _command(self, cls: Any, name: str, what: What) -> None:  # noqa: ANN401 - two entity classes
        self._made += 1
        item = f"{self._spec.caller}-{self._made}"
        options = {"command_id": item, "deadline_s": self._rng.uniform(*self._spec.deadlines_s)}
        method = getattr(self._client.ref(cls, name).with_options(**options), what)
        # Written and sent before anybody else runs: the order in the log is the order sent.
        number = self._witness.sends(f"{cls.__remora__.type}/{name}", what, item)
        while True:
            try:
                reply = await method(item)
            except Rejected as no:
                reply = Prefix.model_validate_json(no.message)
            except RemoraError as error:
                if not await self._again(number, error):
                    return
                continue
            self._witness.answered(number, time.monotonic_ns(), Shown(reply.count, reply.chain))  # noqa: TID251 - shared by all processes
            return

    async def _ask(self, cls: Any, name: str) -> None:  # noqa: ANN401 - two entity classes
        ref = self._client.ref(cls, name).with_options(deadline_s=self._rng.uniform(*self._spec.deadlines_s))
        number = self._witness.sends(f"{cls.__remora__.type}/{name}", "seen", "")
        while True:
            try:
                reply = await ref.seen()
            except RemoraError as error:
                if not await self._again(number, error):
                    return
                continue
            self._witness.answered(number, time.monotonic_ns(), Shown(reply.count, reply.chain))  # noqa: TID251 - as above
            return

    async def _again(self, number: int, error: RemoraError) -> bool:
        """Note the error; return whether to ask again."""
        if error.verdict is Verdict.REJECT:
            self._witness.refused(number, error)
            return False
        self._witness.given_up(number, error)
        await asyncio.sleep(max(error.retry_after_s, AGAIN_S))  # noqa: TID251 - what the error asks for
        return True


def _entity(number: int) -> tuple[Any, str]:
    return (Purse if number % 4 == 3 else Ledger), str(number)


async def _report(witness: Witness, load: Load) -> None:
    while True:
        print(json.dumps([witness.answers, witness.errors, len(load.under_way)]), flush=True)  # noqa: T201 - read by the runner
        await asyncio.sleep(1.0)  # noqa: TID251 - the period of the report


async def _obey(load: Load, stopping: asyncio.Event) -> None:
    """Do what the lines of the input say; stop when it ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line == "probe\n":
            print(json.dumps({"probed_ns": await load.probe()}), flush=True)  # noqa: T201 - as above
        else:
            load.paused = line == "pause\n"
    stopping.set()


async def _main(spec: Spec) -> None:
    await asyncio.to_thread(bootstrap.join_ray, spec.address)
    witness = Witness(Path(spec.log), spec.caller)
    stopping = asyncio.Event()
    async with await bootstrap.open_client(app) as client:
        load = Load(spec, client, witness)
        reporting, obeying = asyncio.create_task(_report(witness, load)), asyncio.create_task(_obey(load, stopping))
        await load.send_until(stopping)
        async with asyncio.timeout(FINISH_S):
            await load.finish()
            await load.ask_everybody()
        reporting.cancel()
        await obeying
    witness.close()
    print(json.dumps([witness.answers, witness.errors, 0]), flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    asyncio.run(_main(Spec(**json.loads(sys.argv[1]))))
