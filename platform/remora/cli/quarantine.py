"""``remora quarantine list|show|release``: what keeps taking its host down, and is held apart for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from remora.cli.options import Json, RunningApp, output_of
from remora.cli.output import Output, at
from remora.errors import UnknownEntity
from remora.sharding.hashing import entity_key

Row = Mapping[str, Any]
Type = Annotated[str, typer.Argument(metavar="TYPE", help="Entity type, as in `remora call`.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Entity id.")]


def list_(context: typer.Context, app: RunningApp = None, json_: Json = False) -> None:
    """Show what is held back for a while or apart until it is released, the latest first."""
    output = output_of(context, as_json=json_)
    found = _read(output, app)
    if output.as_json:
        output.document(found)
    elif not found:
        output.line("Nothing is in quarantine.")
    else:
        show_quarantine(output, found)


def show(context: typer.Context, type_: Type, id_: Id, app: RunningApp = None, json_: Json = False) -> None:
    """Show why an entity, or a command of it, is held back or apart: every crash of it that is remembered."""
    output = output_of(context, as_json=json_)
    key = entity_key(type_, id_)
    found = [row for row in _read(output, app) if row["entity"] == key]
    if not found:
        msg = f"{key} is not in quarantine: `remora quarantine list` shows what is."
        raise UnknownEntity(msg, entity=key)
    if output.as_json:
        output.document(found)
        return
    show_quarantine(output, found)
    for row in found:
        output.line("")
        output.line(f"{row['because']}.")
        output.table(
            ["crash", "command", "host", "ended with"],
            [[at(one["at_ms"]), one["command"], one["host"], one["cause"]] for one in row["latest"]],
        )
    output.remark(f"Once it is mended: `remora quarantine release {type_} {id_}`.")


def release(
    context: typer.Context,
    type_: Type,
    id_: Id,
    command: Annotated[str, typer.Argument(metavar="[COMMAND]", help="If only this command of it is held apart.")] = "",
    app: RunningApp = None,
    json_: Json = False,
) -> None:
    """Let an entity, or a command of it, run again; what it did is forgotten."""
    from remora.cluster import record as records

    output = output_of(context, as_json=json_)
    record = records.load(app)
    key = entity_key(type_, id_)
    with output.progress() as report:
        report("telling the registry")
        from remora import operations

        found = operations.release_from_quarantine(record, key, command)
    if output.as_json:
        output.document(found)
    else:
        output.line(f"{key}{'.' if command else ''}{command} runs again.")


def _read(output: Output, app: str | None) -> list[dict[str, Any]]:
    from remora.cluster import record as records

    record = records.load(app)
    with output.progress() as report:
        report("asking the registry")
        from remora import operations

        return operations.quarantine(record)


def show_quarantine(output: Output, found: Sequence[Row]) -> None:
    """Print what is in quarantine for people."""
    output.table(
        ["entity", "command", "crashes", "since", "until", "last ended with"],
        [
            [
                row["entity"], row["command"] or "all", row["crashes"], at(row["since_ms"]),
                at(row["until_ms"]) if row["until_ms"] else "released",
                row["latest"][0]["cause"] if row["latest"] else None,
            ]
            for row in found
        ],
    )  # fmt: skip
