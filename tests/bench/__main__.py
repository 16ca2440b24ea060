"""`make bench`: figures beside their peers', printed and written to .bench/results.json. Never a test."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.status import Status

from tests.bench.drive import Plan
from tests.bench.durability_rows import DurabilityRows
from tests.bench.failover_rows import RUNS, FailoverRows, staged
from tests.bench.http_rows import HttpRows
from tests.bench.live_rows import LiveRows
from tests.bench.python_rows import PythonRows
from tests.bench.records import Record, show, write
from tests.bench.stage import FOLDER, STORES, Stage, stage, sync_ms

Row = Callable[[Stage, PythonRows], AsyncIterator[Record]]
LocalRow = Callable[[], AsyncIterator[Record]]
FailoverRow = Callable[[FailoverRows], AsyncIterator[Record]]

ROWS: dict[str, Row] = {
    "commands.sqlite": lambda _, rows: rows.many(),
    "commands.postgres": lambda _, rows: rows.many(),
    "commands.hot": lambda _, rows: rows.hot(),
    "latency.one": lambda _, rows: rows.one(),
    "http.commands": lambda on, _: HttpRows(on).commands(),
    "http.batch": lambda on, _: HttpRows(on).batch(),
}

LOCAL_ROWS: dict[str, LocalRow] = {
    "recovery": lambda: DurabilityRows(FOLDER).recovery(),
    "reminders": lambda: DurabilityRows(FOLDER).reminders(),
    "entities.live": lambda: LiveRows(FOLDER).live(),
}
"""Those that need no Ray: measured first, on their own."""
ON_POSTGRES = {"commands.postgres"}
"""Rows that are measured on PostgreSQL; the others on SQLite."""

FAILOVER_ROWS: dict[str, dict[str, FailoverRow]] = {
    "sqlite": {
        "failover.host": lambda rows: rows.host("failover.host"),
    },
    "postgres": {
        "failover.host.postgres": lambda rows: rows.host("failover.host.postgres"),
        "failover.registry": lambda rows: rows.registry(),
        "drain.p99": lambda rows: rows.drain(),
        "failover.node": lambda rows: rows.node("failover.node"),
        "failover.node.registry": lambda rows: rows.node("failover.node.registry", with_registry=True),
        "failover.frozen": lambda rows: rows.frozen(),
    },
}
"""By store. They kill what they are measured on, each under a load of its own: on clusters of their own."""


def main() -> None:
    """Measure the rows asked for."""
    names = [*LOCAL_ROWS, *ROWS, *(name for rows in FAILOVER_ROWS.values() for name in rows)]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="1.5 s per measurement instead of 5, one failover instead of five: a look, not a result",
    )
    parser.add_argument("--seconds", type=float, help="seconds per measurement")
    options = parser.parse_args()
    seconds = options.seconds or (1.5 if options.quick else 5.0)
    signal.signal(signal.SIGTERM, _stop)
    plan = Plan(warm_up_s=min(1.0, seconds / 5), seconds=seconds)
    asyncio.run(_measure(options.only or names, plan, runs=1 if options.quick else RUNS))


def _stop(number: int, _: object) -> NoReturn:
    """End as on Ctrl-C: with the cluster stopped. Ray's own handler, from when it is joined, does the same."""
    sys.exit(128 + number)


async def _measure(names: list[str], plan: Plan, runs: int) -> None:
    console = Console(file=sys.stdout)  # this very one: others print into another at times
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=120)  # the table is wider than what rich assumes of a file
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    disk_ms = sync_ms(FOLDER)
    console.print(
        f"Python {platform.python_version()}, Ray {version('ray')}, {cores} cores; load average before anything was"
        f" started: {load:.2f}; this disk syncs 4 kB in {disk_ms:.2f} ms (median)."
    )
    if load > cores / 4:
        console.print("[yellow]The machine is busy with something else: take every figure as a lower bound.[/]")
    records = [
        Record("machine.load", load, f"on {cores} cores"),
        Record("machine.sync", disk_ms, "ms"),
    ]
    with console.status("") as status:
        for name in [name for name in names if name in LOCAL_ROWS]:
            status.update(f"measuring {name}")
            records += [record async for record in LOCAL_ROWS[name]()]
        # A cluster for each store, one after the other: two at once would measure each other.
        for store in STORES:
            wanted = [name for name in names if name in ROWS and (name in ON_POSTGRES) == (store == "postgres")]
            if wanted:
                records += await _on_stage(wanted, store, plan, console, status)
        for store, rows in FAILOVER_ROWS.items():
            wanted = [name for name in names if name in rows]
            if wanted:
                records += await _on_nodes(wanted, store, runs, console, status)
    write(records, FOLDER / "results.json")
    show(records, console)
    console.print(f"Load average after: {os.getloadavg()[0]:.2f}. Written to {FOLDER / 'results.json'}.")


async def _on_stage(names: list[str], store: str, plan: Plan, console: Console, status: Status) -> list[Record]:
    """Measure rows that need Ray, the bank and a client."""
    records: list[Record] = []
    status.update(f"starting Ray and the bank on {store}")
    async with stage(plan, store, serving=any(name.startswith("http") for name in names)) as on:
        rows = PythonRows(on)
        for name in names:
            status.update(f"measuring {name}")
            records += [record async for record in ROWS[name](on, rows)]
        console.print(f"Commands sent again: {on.client.retries}, repeats: {on.client.repeated}.")
        status.update("stopping Ray")
    return records


async def _on_nodes(names: list[str], store: str, runs: int, console: Console, status: Status) -> list[Record]:
    """Measure rows that need several nodes."""
    records: list[Record] = []
    status.update(f"starting nodes, on {store}")
    folders = tempfile.TemporaryDirectory(prefix="failover-", dir=FOLDER.absolute())
    # Ray tells of every process that is killed here, in many words.
    noise = (FOLDER / "ray.out").open("w")
    with folders as folder, noise, contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
        async with staged(store, Path(folder), runs, console.print) as under_load:
            for name in names:
                status.update(f"measuring {name}")
                async with under_load() as failing:
                    records += [record async for record in FAILOVER_ROWS[store][name](failing)]
            status.update("stopping the nodes")
    return records


if __name__ == "__main__":
    main()
