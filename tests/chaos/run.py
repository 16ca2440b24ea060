"""One chaos run: load from two processes, faults by plan, and the judgement afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from remora.messages import VALUE
from tests.chaos.app import app
from tests.chaos.client import Spec
from tests.chaos.faults import Done, Faults
from tests.chaos.judge import Entry, Finding, histories, judge
from tests.chaos.plan import CALM_S, Step
from tests.chaos.stage import Stage, rows, stage, until
from tests.chaos.witness import Operation, read_logs

APP_PATH = "tests.chaos.app:app"
NODES = 3
HOSTS_PER_NODE = 1
"""Two cores carry no more processes under load."""
ENTITIES = 1200
CLIENTS = ("client-1", "client-2")
RATE = 80.0
"""Operations per second and client: what two cores take beside all these processes, with room to catch up."""
PROGRESS_S = 60.0
"""Longest wait for the clients' first answers."""
RECOVER_S = 90.0
"""Longest wait for calm after the last fault: as many hosts as before, all shards placed."""
OUTCOMES_S = 90.0
"""Longest wait for the outcome of everything that was sent."""


@dataclass
class Result:
    """What a run came to."""

    findings: list[Finding]
    operations: list[Operation]
    entries: int
    activations: int
    done: list[Done] = field(default_factory=list)
    recovered_s: float = 0.0
    """From the end of the last fault until all shards were placed evenly again."""


class ClientProcess:
    """A client in a process of its own, and what it last reported.

    Args:
        spec: What it is to do.
        process: The process.
    """

    def __init__(self, spec: Spec, process: asyncio.subprocess.Process) -> None:
        self.log = Path(spec.log)
        self.answers, self.errors, self.under_way = 0, 0, 0
        self._process = process
        self._probed: asyncio.Queue[int] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, spec: Spec) -> ClientProcess:
        """Start it; it sends as soon as it is connected."""
        with Path(spec.log).with_suffix(".err").open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.chaos.client", json.dumps(asdict(spec)),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=err,
            )  # fmt: skip
        return cls(spec, process)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if line.startswith(b"["):  # Ray may print too
                self.answers, self.errors, self.under_way = json.loads(line)
            elif line.startswith(b'{"probed_ns"'):
                self._probed.put_nowait(json.loads(line)["probed_ns"])

    async def probe(self, within_s: float) -> int:
        """Have it send every entity one more command at once; return when the last of them was answered."""
        self._tell("probe")
        async with asyncio.timeout(within_s):
            return await self._probed.get()

    def pause(self) -> None:
        """Have it send nothing for a while."""
        self._tell("pause")

    def go_on(self) -> None:
        """Have it send again."""
        self._tell("go on")

    def _tell(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            RuntimeError: With the end of what it said.
        """
        if self._process.returncode is not None:
            said = self.log.with_suffix(".err").read_text(errors="replace")[-3000:]
            msg = f"{self.log.stem} ended with status {self._process.returncode}:\n{said}"
            raise RuntimeError(msg)

    def stop_sending(self) -> None:
        """Have it finish what is under way."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def finish(self, within_s: float) -> str:
        """Wait until it has left; return what was wrong, or nothing."""
        try:
            async with asyncio.timeout(within_s):
                status = await self._process.wait()
        except TimeoutError:
            return f"{self.log.stem} still waited for {self.under_way} answers after {within_s:g} s"
        return f"{self.log.stem} ended with status {status}: see {self.log.with_suffix('.err')}" if status else ""

    async def kill(self) -> None:
        """End it if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading


async def run(plan: Sequence[Step], seconds: float, seed: int, folder: Path, say: Callable[[str], None]) -> Result:
    """Run a plan and judge it.

    Args:
        plan: What fails when.
        seconds: How long the load lasts.
        seed: Of the clients' draws.
        folder: For the witnesses' logs, and the processes' logs if something is found.
        say: Told of what is done.
    """
    say(f"starting PostgreSQL, {NODES} nodes and {NODES * HOSTS_PER_NODE} hosts")
    async with stage(app, APP_PATH, NODES, HOSTS_PER_NODE) as on:
        try:
            result = await _under_load(on, plan, seconds, seed, folder, say)
        except BaseException:
            on.keep_logs(folder)
            raise
        if result.findings:
            on.keep_logs(folder)
    return result


async def _under_load(
    on: Stage, plan: Sequence[Step], seconds: float, seed: int, folder: Path, say: Callable[[str], None]
) -> Result:
    faults = Faults(on, say)
    troubles: list[str] = []
    async with _clients(on, seed, folder) as clients:
        await until(lambda: _checked(clients), PROGRESS_S, "both clients got their first answers")
        say(f"load from {len(clients)} processes on {ENTITIES} entities; {len(plan)} faults in {seconds:g} s")
        reporting = asyncio.create_task(_report(on, clients, say))
        try:
            await _carry_out(plan, seconds, faults, clients, say)
            await faults.mend()
            ended_s = time.perf_counter()
            try:
                await until(on.balanced, RECOVER_S, "calm")
            except TimeoutError:
                troubles.append(f"no calm {RECOVER_S:g} s after the last fault: {_shards(on)}")
            recovered_s = time.perf_counter() - ended_s
            say("waiting for the outcome of everything that was sent")
            for client in clients:
                client.stop_sending()
            troubles += filter(None, [await client.finish(OUTCOMES_S) for client in clients])
        finally:
            reporting.cancel()
            faults.release()
    say("judging")
    operations = read_logs([client.log for client in clients])
    written = histories(await read_journal(on))
    findings = [Finding("trouble", "-", trouble) for trouble in troubles] + judge(operations, written)
    tokens = {entry.token for entries in written.values() for entry in entries}
    return Result(findings, operations, sum(map(len, written.values())), len(tokens), faults.done, recovered_s)


async def _carry_out(
    plan: Sequence[Step], seconds: float, faults: Faults, clients: list[ClientProcess], say: Callable[[str], None]
) -> None:
    began_s, before_s = time.perf_counter(), 0.0
    for number, step in enumerate(plan):
        # One that had to wait for its turn puts off those behind it: they keep their distance.
        await _wait(step.at_s - before_s, clients)
        before_s = step.at_s
        if time.perf_counter() - began_s > seconds - CALM_S / 2:
            say(f"the last {len(plan) - number} faults of the plan are left out: those before took longer than planned")
            break
        await faults.carry_out(step)
    await _wait(max(CALM_S, seconds - (time.perf_counter() - began_s)), clients)


async def _wait(seconds: float, clients: list[ClientProcess]) -> None:
    await asyncio.sleep(seconds)  # noqa: TID251 - the plan's time
    for client in clients:
        client.check()


def _checked(clients: list[ClientProcess]) -> bool:
    for client in clients:
        client.check()
    return all(client.answers for client in clients)


@contextlib.asynccontextmanager
async def _clients(on: Stage, seed: int, folder: Path) -> AsyncIterator[list[ClientProcess]]:
    started: list[ClientProcess] = []
    try:
        for number, name in enumerate(CLIENTS):
            spec = Spec(on.nodes.address, str(folder / f"{name}.log"), name, seed + number, ENTITIES, RATE)
            started.append(await ClientProcess.start(spec))
        yield started
    finally:
        for client in started:
            await client.kill()


async def _report(on: Stage, clients: list[ClientProcess], say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(10.0)  # noqa: TID251 - the period of the report
        answers, errors, under_way = (
            sum(getattr(one, name) for one in clients) for name in ("answers", "errors", "under_way")
        )
        say(f"          {answers:,} answers, {errors:,} asked again, {under_way:,} under way; {_shards(on)}")


def _shards(on: Stage) -> str:
    counts = [len(on.client.table.owned_by(row.incarnation)) for row in on.hosts()]
    return f"shards of the {len(counts)} hosts: {counts}"


async def read_journal(on: Stage) -> list[Entry]:
    """Return every entry that took an item, read past the platform."""
    found = []
    for key, n, events, verdict, reply in await rows(
        on, "SELECT entity, n, events, verdict, reply FROM entries ORDER BY entity, n"
    ):
        if key.startswith("ledger/"):
            found += [Entry(key, n, event["item"], event["token"]) for _, event in json.loads(events or "[]")]
        elif verdict == VALUE:  # of a purse only the state is kept: the replies testify
            taken = json.loads(reply)
            found.append(Entry(key, n, taken["item"], taken["token"]))
    return found
