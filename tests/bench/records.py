"""What a benchmark leaves behind: records in a file, and the same as a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

GOALS: dict[str, str] = {
    "commands.sqlite": "≥ 30,000",
    "commands.hot": "≥ 10,000",
    "latency.one": "≤ 2x raw Ray",
    "http.commands": "≥ 2,500",
    "entities.live": "≤ 2,500",
    "http.batch": "≥ 15,000",
    "failover.host": "≤ 0.5",
    "failover.host.postgres": "≤ 0.5",
    "failover.registry": "no effect",
    "failover.node": "≤ 2.5",
    "failover.node.registry": "≤ 4",
    "failover.frozen": "≤ 3.5",
    "drain.p99": "≤ 250",
}
"""What the named rows are to reach on a quiet machine with two cores. Shown, never enforced."""
DETAIL_GOALS: dict[str, str] = {"http.commands.p99": "≤ 100"}


class Record(msgspec.Struct, frozen=True):
    """One figure beside its peer's of the same run."""

    name: str
    value: float
    unit: str
    peer: str = ""
    """What the peer is; empty if there is none."""
    peer_value: float | None = None


def write(records: Sequence[Record], file: Path) -> None:
    """Write records as JSON: in whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(f".{os.getpid()}")
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(records)))
    scratch.replace(file)


def show(records: Sequence[Record], console: Console) -> None:
    """Print records; the named rows stand out from the details below them."""
    table = Table(title="Remora beside its peers, same machine, same run")
    table.add_column("name", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("peer's", justify="right")
    table.add_column("of peer's", justify="right")
    table.add_column("peer")
    table.add_column("goal", justify="right", no_wrap=True)
    for record in records:
        if record.name in GOALS:
            table.add_section()
        ratio = f"{record.value / record.peer_value:.2f}x" if record.peer_value else ""
        table.add_row(
            record.name, figure(record.value), record.unit, figure(record.peer_value), ratio, record.peer,
            (GOALS | DETAIL_GOALS).get(record.name, ""), style="bold" if record.name in GOALS else "",
        )  # fmt: skip
    console.print(table)


def figure(value: float | None) -> str:
    """Return a figure with three or more digits that mean something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
