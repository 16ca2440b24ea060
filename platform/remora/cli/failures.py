"""``remora failures``: what failed, where and how often, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from remora.cli.options import Json, RunningApp, output_of
from remora.cli.output import Output, at
from remora.journal import FAILURES_KEPT

LIMIT = 20
"""Rows that are shown where nothing is said."""


def failures(
    context: typer.Context,
    of: Annotated[
        str, typer.Argument(metavar="[TYPE[/ID]]", help="Of one entity (account/alice) or one type; else of all.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=FAILURES_KEPT, help="At most so many rows.")] = LIMIT,
    full: Annotated[
        bool, typer.Option("--full", help="With arguments and the traceback of the latest of each.")
    ] = False,
    app: RunningApp = None,
    json_: Json = False,
) -> None:
    """Show what failed, the latest first: a row for all failures of an entity's command with one exception."""
    from remora.cluster import record as records

    output = output_of(context, as_json=json_)
    record = records.load(app)
    with output.progress() as report:
        report("asking the registry")
        from remora import operations

        found = operations.failures(record, limit, of)
    if output.as_json:
        output.document(found)
    elif not found:
        output.line(f"Nothing of {of} has failed." if of else "Nothing has failed.")
    else:
        show_failures(output, found)
        if full:
            show_in_full(output, found)


def show_failures(output: Output, found: Sequence[Mapping[str, Any]]) -> None:
    """Print failures for people."""
    output.table(
        ["last", "entity", "command", "exception", "times", "decided", "host", "message"],
        [
            [
                at(row["last_ms"]), row["entity"], row["command"], row["kind"], row["times"],
                _decided(row["latest"]), row["latest"].get("host"), row["latest"].get("message"),
            ]
            for row in found
        ],
    )  # fmt: skip


def show_in_full(output: Output, found: Sequence[Mapping[str, Any]]) -> None:
    """Print the latest failure of each row."""
    for row in found:
        latest = row["latest"]
        output.line("")
        output.line(f"{row['entity']}.{row['command']}, {row['times']} times since {at(row['first_ms'])}; the latest:")
        output.pairs({name: latest.get(name) for name in ("command_id", "arguments", "host", "node", "shard", "epoch")})
        output.line(str(latest.get("traceback", "")).rstrip())


def _decided(latest: Mapping[str, Any]) -> str:
    after_s = latest.get("after_s", 0.0)
    return f"{latest.get('directive', '')} after {after_s:.2g} s" if after_s else str(latest.get("directive", ""))
