"""``remora down``: stop an app."""

from __future__ import annotations

import typer

from remora.cli.options import AppName, Json, output_of


def down(context: typer.Context, app: AppName = None, json_: Json = False) -> None:
    """Stop an app. What was acknowledged stays in its store."""
    from remora.cluster import record as records

    output = output_of(context, as_json=json_)
    record = records.load(app)
    with output.progress() as report:
        from remora import operations

        operations.down(record, report)
    if output.as_json:
        output.document({"app": record.app, "store": record.store})
    else:
        output.line(f"{record.app} is down. Its state stays in {record.store}.")
