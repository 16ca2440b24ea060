"""Fly the year: the main demonstration, `make demo`.

It starts a Ray cluster, two hosts, the registry and the HTTP gateway on this machine, replays a
year of departures, kills one host process half way, and checks every figure against pandas.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import remora
from entities.flights import app
from entities.flights.aircraft import Aircraft
from entities.flights.board import BOARD_ID, Board
from entities.flights.compare import describe, differences
from entities.flights.expected import Figures, expected
from entities.flights.ranking import worst
from entities.flights.replay import IN_FLIGHT, fly, read_back, report
from entities.flights.table import Departure, count, departures
from remora.cluster.names import entity_name
from remora.sharding.hashing import shard_of

if TYPE_CHECKING:
    from remora.cluster.record import ClusterRecord

APP_PATH = "entities.flights:app"
SETTLE_S = 180.0
"""Longest wait for all outboxes to be empty, in seconds."""
PROBES = 50
"""Entities of the killed host that are asked until they answer again."""
console = Console()


@dataclass
class Flight:
    """What the replay measured."""

    rows: int
    latencies_s: list[float] = field(default_factory=list)
    done: int = 0
    failures: list[str] = field(default_factory=list)
    began_s: float = field(default_factory=time.perf_counter)
    killed: str = ""
    outages_s: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return a latency percentile of the last ten thousand answers, in milliseconds."""
        recent = sorted(self.latencies_s[-10_000:])
        return recent[int(share * (len(recent) - 1))] * 1000 if recent else 0.0

    @property
    def rate(self) -> float:
        """Return answers per second since the beginning."""
        return self.done / max(time.perf_counter() - self.began_s, 1e-9)


def paced(rows: Iterator[Departure], speed: float) -> Iterator[tuple[float, Departure]]:
    """Yield rows with the second, from the start, at which each is due; 0 at full speed."""
    first = 0
    for row in rows:
        first = first or row.scheduled_s
        yield ((row.scheduled_s - first) / speed if speed else 0.0), row


async def fly_year(client: remora.Client, flight: Flight, speed: float, *, kill: bool) -> None:
    """Replay the rows, show progress, kill a host half way."""
    columns = (
        TextColumn("[bold]flying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    source = paced(departures(flight.rows), speed)
    probes: list[asyncio.Task[None]] = []

    async def work() -> None:
        for due_s, row in source:
            early_s = due_s - (time.perf_counter() - flight.began_s)
            if early_s > 0:
                await asyncio.sleep(early_s)
            began_s = time.perf_counter()
            try:
                await fly(client, row)
            except remora.RemoraError as error:
                flight.failures.append(f"{row.command_id}: {error}")
            flight.latencies_s.append(time.perf_counter() - began_s)
            flight.done += 1
            if kill and flight.done == flight.rows // 2:
                probes.append(asyncio.create_task(kill_a_host(client, flight)))

    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task("", total=flight.rows, figures="")

        async def show() -> None:
            while True:
                figures = (
                    f"{flight.rate:,.0f}/s  p50 {flight.percentile(0.5):.0f} ms  p99 {flight.percentile(0.99):.0f} ms"
                    f"  failures {len(flight.failures)}"
                )
                progress.update(task, completed=flight.done, figures=figures)
                await asyncio.sleep(0.25)

        drawing = asyncio.create_task(show())
        async with asyncio.TaskGroup() as group:
            for _ in range(min(IN_FLIGHT, flight.rows)):
                group.create_task(work())
        await asyncio.gather(*probes)
        drawing.cancel()
        progress.update(task, completed=flight.done)


async def kill_a_host(client: remora.Client, flight: Flight) -> None:
    """Kill the process of one shared host and measure how long its entities do not answer."""
    victim = next(host for host in client.table.hosts.values() if not host.dedicated)
    lost = set(client.table.owned_by(victim.incarnation))
    mine = [
        tail
        for tail in sorted({row.tail for row in departures(flight.rows)})
        if shard_of(f"aircraft/{tail}", client.settings.shards) in lost
    ][:PROBES]
    console.print(f"Killing {victim.name} (pid {victim.pid}) with SIGKILL. Ray will say that a worker died.")
    os.kill(victim.pid, signal.SIGKILL)
    killed_s = time.perf_counter()
    flight.killed = f"{victim.name} (pid {victim.pid}, {len(lost)} of {client.settings.shards} shards)"

    async def probe(tail: str) -> None:
        await client.ref(Aircraft, tail).with_options(deadline_s=60.0).figures()
        flight.outages_s.append(time.perf_counter() - killed_s)

    await asyncio.gather(*(probe(tail) for tail in mine))


async def settle(client: remora.Client, record: ClusterRecord) -> None:
    """Wait until every outbox is empty.

    Raises:
        remora.Unavailable: They are not within the bound, or sends were parked.
    """
    from remora.cluster.bootstrap import outbox_counts

    del client
    until_s = time.monotonic() + SETTLE_S
    while True:
        undelivered, parked = await outbox_counts(record.app)
        if parked:
            msg = f"{parked} durable sends were given up: see the hosts' logs."
            raise remora.Unavailable(msg)
        if not undelivered:
            return
        if time.monotonic() > until_s:
            msg = f"{undelivered} durable sends are still under way after {SETTLE_S:.0f} s."
            raise remora.Unavailable(msg)
        await asyncio.sleep(0.1)


def show_worst(figures: Figures) -> None:
    """Print the ten worst aircraft, routes and airports."""
    table = Table(title="The ten worst, by minutes of delay")
    for title in ("aircraft", "arrival delay", "route", "arrival delay", "airport", "arrival delay"):
        table.add_column(title, justify="right" if title.endswith("delay") else "left")
    kinds = (("aircraft", "delay"), ("route", "delay"), ("airport", "arrival_delay"))
    for line in zip(*(worst(figures[kind], name) for kind, name in kinds), strict=False):
        table.add_row(*(cell for name, value in line for cell in (name, f"{value:,}")))
    console.print(table)


async def run(record: ClusterRecord, rows: int, speed: float, *, kill: bool) -> int:
    """Fly, settle, compare; return the exit code."""
    async with remora.connect(app, address=record.address) as client:
        flight = Flight(rows)
        console.print(
            f"Replaying {rows:,} departures; a host process is killed half way."
            if kill
            else f"Replaying {rows:,} departures."
        )
        await fly_year(client, flight, speed, kill=kill)
        recognised = client.repeated
        console.print(
            f"{flight.done:,} departures in {time.perf_counter() - flight.began_s:.1f} s ({flight.rate:,.0f}/s), "
            f"{recognised:,} of them recognised from before, {client.retries:,} sent again, {len(flight.failures)} failures"
        )
        if flight.killed:
            worst_s = max(flight.outages_s)
            console.print(
                f"Killed {flight.killed}: of {len(flight.outages_s)} of its entities asked at once, "
                f"the first answered after {min(flight.outages_s):.2f} s, the last after {worst_s:.2f} s"
            )
        with console.status("waiting until every outbox is empty"):
            await settle(client, record)
        table_says = expected(rows)
        await report(client, table_says["airport"])
        await settle(client, record)
        with console.status("asking every twin"):
            twins_say = await read_back(client, table_says)
        found = differences(table_says, twins_say)
        show_worst(twins_say)
        summary = await client.ref(Board, BOARD_ID).summary()
        console.print(
            f"Board, last 30 days: {summary.departures:,} departures, {summary.mean_delay:.1f} min mean delay, {summary.cancelled_share:.1%} cancelled"
        )
        if found or flight.failures:
            console.print("\n".join(flight.failures[:20]))
            console.print(f"[red]NOT EQUAL: {len(found)} differences[/red]\n{describe(found)}")
            return 1
        entities = sum(len(kind) for kind in table_says.values())
        console.print(f"[green]EQUAL: {entities:,} twins say exactly what pandas computes from the table.[/green]")
        return 0


def show_where(record: ClusterRecord) -> None:
    """Print what to look at."""
    lines = (
        f"HTTP      {record.gateway_url}/v1/airport/JFK  and  {record.gateway_url}/v1/aircraft/N14228/events",
        f"API docs  {record.gateway_url}/docs",
        f"Ray       {record.dashboard_url}  (ray list actors: {entity_name('flights', f'board/{BOARD_ID}')})",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end by itself instead of serving until Ctrl-C")
    parser.add_argument("--speed", type=float, default=0.0, help="times real time (default: as fast as it goes)")
    parser.add_argument("--rows", type=int, default=None, help="only the first N departures")
    parser.add_argument("--hosts", type=int, default=2, help="host processes, at least 2")
    parser.add_argument("--port", type=int, default=8000, help="the gateway's port on loopback")
    parser.add_argument("--store", default=None, help="store URL (default: .remora/flights.db in this folder)")
    parser.add_argument("--no-kill", action="store_true", help="leave all hosts alive")
    options = parser.parse_args(arguments)
    from remora import operations

    rows = min(options.rows or count(), count())
    try:
        with console.status("") as status:
            record = operations.up(
                APP_PATH, store=options.store, hosts=max(options.hosts, 2), port=options.port,
                report=status.update,
            )  # fmt: skip
    except remora.StartError as error:
        console.print(f"[red]{error}[/red]")
        return 4
    try:
        show_where(record)
        code = asyncio.run(run(record, rows, options.speed, kill=not options.no_kill))
        show_where(record)
        if not options.exit and code == 0:
            console.print("Serving until Ctrl-C.")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    except KeyboardInterrupt:
        return 130
    except remora.RemoraError as error:
        console.print(f"[red]{error}[/red]")
        return 1
    else:
        return code
    finally:
        with console.status("stopping"):
            operations.down(record)


if __name__ == "__main__":
    sys.exit(main())
