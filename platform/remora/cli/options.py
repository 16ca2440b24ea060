"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from remora.cli.output import Output

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output: the result, or a problem (RFC 9457)."),
]
AppName = Annotated[str | None, typer.Argument(metavar="[APP]", help="The app's name; not needed where only one runs.")]
RunningApp = Annotated[
    str | None,
    typer.Option("--app", metavar="NAME", help="Which of the apps that run here; not needed if only one does."),
]
Gateway = Annotated[
    str | None,
    typer.Option(
        "--gateway",
        metavar="URL",
        envvar="REMORA_GATEWAY",
        help="The gateway to ask; else the one that `remora up` recorded.",
    ),
]
Type = Annotated[
    str, typer.Argument(metavar="TYPE", help="Entity type: the class name in snake_case.", show_default=False)
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Entity id. One that begins with '-' goes behind `--`.")]


def output_of(context: typer.Context, *, as_json: bool) -> Output:
    """Return where this run prints, told that it prints JSON if its command was."""
    output = context.ensure_object(Output)
    output.as_json = output.as_json or as_json
    return output
