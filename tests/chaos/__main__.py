"""`make chaos`: load, faults by a seeded plan, and a witness who judges. ARGS="--seed 7 --minutes 10"."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from tests.chaos.plan import Fault, draw, short
from tests.chaos.run import Result, run

FOLDER = Path(".chaos")
SHORT_S = 80.0
SHOWN_MAX = 30


def main() -> None:
    """Run; the exit status says whether anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats the plan of an earlier run")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the load lasts (5)")
    parser.add_argument(
        "--short", action="store_true", help=f"one fault of each kind that matters most, in {SHORT_S:g} s"
    )
    parser.add_argument(
        "--only", action="append", choices=[fault.name.lower() for fault in Fault], help="these faults alone"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where logs are left ({FOLDER})")
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    seconds = SHORT_S if options.short else options.minutes * 60
    faults = [Fault[name.upper()] for name in options.only] if options.only else list(Fault)
    plan = short(seed, seconds) if options.short else draw(seed, seconds, faults)
    folder: Path = options.folder / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, _stop)
    console = _console(folder)
    console.print(f"seed {seed}: `{_again(seed, options)}` repeats this plan")
    began_s = time.perf_counter()

    def say(what: str) -> None:
        console.print(f"{time.perf_counter() - began_s:6.1f} s | {what}", highlight=False, markup=False)

    try:
        result = asyncio.run(run(plan, seconds, seed, folder, say))
    except Exception:  # noqa: BLE001 - shown whole, and the exit status says so
        console.print_exception(max_frames=4)
        console.print(f"The run was cut short; logs are in {folder}.")
        sys.exit(2)
    show(result, console)
    if result.findings:
        console.print(f"[red]{len(result.findings)} findings[/]; logs are in {folder}; seed {seed}")
        sys.exit(1)
    shutil.rmtree(folder)


def _again(seed: int, options: argparse.Namespace) -> str:
    length = "--short" if options.short else f"--minutes {options.minutes:g}"
    only = "".join(f" --only {name}" for name in options.only or ())
    return f'make chaos ARGS="--seed {seed} {length}{only}"'


def _console(folder: Path) -> Console:
    """Return where to print; what Ray prints into this process's own streams goes to a file."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    noise = os.open(folder / "ray.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    os.close(noise)
    return Console(file=out) if out.isatty() else Console(file=out, width=150)


def _stop(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def show(result: Result, console: Console) -> None:
    """Print what was done to the platform, what callers saw of it, and what was found."""
    table = Table(title="Faults, and what callers saw until the next one")
    for name, justify in (
        ("at", "right"), ("fault", "left"), ("what", "left"), ("operations", "right"), ("p50", "right"), ("p99", "right"),
        ("slowest", "right"), ("asked again", "right"),
    ):  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=name != "what")
    times = sorted(result.done, key=lambda done: done.at_ns)
    marks = [done.at_ns for done in times]
    windows: list[list[float]] = [[] for _ in range(len(times) + 1)]
    again = Counter[int]()
    for one in result.operations:
        window = bisect_left(marks, one.sent_ns)
        if one.took_s is not None:
            windows[window].append(one.took_s)
        again[window] += one.given_up
    for number, took in enumerate(windows):
        took.sort()
        done = times[number - 1] if number else None
        figures = [f"{took[int(len(took) * part)] * 1e3:,.0f} ms" for part in (0.5, 0.99)] if took else ["", ""]
        slowest = f"{took[-1]:.2f} s" if took else ""
        lasts = f", {done.step.lasts_s:g} s" if done and done.step.lasts_s else ""
        table.add_row(
            f"{done.step.at_s:.0f} s" if done else "", f"{done.step.fault}{lasts}" if done else "none yet",
            f"{done.target} {done.note}".strip() if done else "", f"{len(took):,}", *figures, slowest, f"{again[number]:,}",
        )  # fmt: skip
    console.print(table)
    kinds = Counter(one.what for one in result.operations)
    errors = Counter(error.partition(":")[0] for one in result.operations for error in one.errors)
    console.print(
        f"{len(result.operations):,} operations ({', '.join(f'{count:,} {what}' for what, count in kinds.most_common())}) on "
        f"{len({one.key for one in result.operations}):,} entities; {result.entries:,} entries of {result.activations:,} "
        f"activations; asked again after {dict(errors.most_common())}; calm {result.recovered_s:.1f} s after the "
        "last fault was over",
        highlight=False,
    )
    found = Counter(finding.rule for finding in result.findings)
    console.print(
        f"found: {dict(found) or 'nothing lost, doubled, swapped, stale, untrue or overlapping'}", highlight=False
    )
    for finding in result.findings[:SHOWN_MAX]:
        console.print(f"  {finding}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
