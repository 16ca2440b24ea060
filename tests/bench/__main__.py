"""`make bench`: figures beside their peers', printed and written to .bench/results.json. Never a test."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import NoReturn

from rich.console import Console
from rich.status import Status

from tests.bench.drive import Plan
from tests.bench.durability_rows import DurabilityRows
from tests.bench.http_rows import HttpRows
from tests.bench.python_rows import PythonRows
from tests.bench.records import Record, show, write
from tests.bench.stage import FOLDER, Stage, stage, sync_ms

Row = Callable[[Stage, PythonRows], AsyncIterator[Record]]
LocalRow = Callable[[], AsyncIterator[Record]]

ROWS: dict[str, Row] = {
    "commands.sqlite": lambda _, rows: rows.many(),
    "commands.hot": lambda _, rows: rows.hot(),
    "latency.one": lambda _, rows: rows.one(),
    "http.commands": lambda on, _: HttpRows(on).commands(),
    "http.batch": lambda on, _: HttpRows(on).batch(),
}

LOCAL_ROWS: dict[str, LocalRow] = {
    "recovery": lambda: DurabilityRows(FOLDER).recovery(),
    "reminders": lambda: DurabilityRows(FOLDER).reminders(),
}
"""Those that need no Ray: measured first, on their own."""


def main() -> None:
    """Measure the rows asked for."""
    names = [*LOCAL_ROWS, *ROWS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="1.5 s per measurement instead of 5: a look, not a result")
    parser.add_argument("--seconds", type=float, help="seconds per measurement")
    options = parser.parse_args()
    seconds = options.seconds or (1.5 if options.quick else 5.0)
    signal.signal(signal.SIGTERM, _stop)
    asyncio.run(_measure(options.only or names, Plan(warm_up_s=min(1.0, seconds / 5), seconds=seconds)))


def _stop(number: int, _: object) -> NoReturn:
    """End as on Ctrl-C: with the cluster stopped. Ray's own handler, from when it is joined, does the same."""
    sys.exit(128 + number)


async def _measure(names: list[str], plan: Plan) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # the table is wider than what rich assumes of a file
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
        staged = [name for name in names if name in ROWS]
        if staged:
            records += await _on_stage(staged, plan, console, status)
    write(records, FOLDER / "results.json")
    show(records, console)
    console.print(f"Load average after: {os.getloadavg()[0]:.2f}. Written to {FOLDER / 'results.json'}.")


async def _on_stage(names: list[str], plan: Plan, console: Console, status: Status) -> list[Record]:
    """Measure rows that need Ray, the bank and a client."""
    records: list[Record] = []
    status.update("starting Ray and the bank")
    async with stage(plan, serving=any(name.startswith("http") for name in names)) as on:
        rows = PythonRows(on)
        for name in names:
            status.update(f"measuring {name}")
            records += [record async for record in ROWS[name](on, rows)]
        console.print(f"Commands sent again: {on.client.retries}, repeats: {on.client.repeated}.")
        status.update("stopping Ray")
    return records


if __name__ == "__main__":
    main()
