"""``remora up``: start an app."""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from remora.app import App, load_app
from remora.cli.examples import first_command
from remora.cli.options import Json, output_of
from remora.cli.output import Output
from remora.cli.status import show_status
from remora.cluster.record import ClusterRecord
from remora.config import AS_CODED, AppConfig, read_config
from remora.errors import RemoraError, StartError


def up(
    context: typer.Context,
    app_path: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, for example entities.account:app.")],
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Store: sqlite:///PATH, postgresql://…, or env:NAME. Else .remora/<app>.db here."
        ),
    ] = None,
    hosts: Annotated[int | None, typer.Option(min=1, max=10_000, help="Shared hosts; else one per CPU.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The gateway's port on this machine.")] = 8000,
    address: Annotated[
        str | None,
        typer.Option(metavar="RAY", help="Join the Ray cluster at this address (host:port) instead of starting one."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML that stands in the place of what the code says: supervision rules."),
    ] = None,
    json_: Json = False,
) -> None:
    """Start an app: Ray, registry, hosts and gateway. It runs on after this command, until `remora down`."""
    output = output_of(context, as_json=json_)
    with output.progress() as report:
        report(f"reading {app_path}")
        configured = read_file(config)
        app = import_app(app_path).configured(configured)
        from remora import operations

        record = operations.up(
            app_path, store=store, hosts=hosts, port=port, address=address, config=configured, report=report
        )
        report("asking what runs where")
        found = operations.status(record)
    if output.as_json:
        output.document({**msgspec.to_builtins(record), "status": found})
        return
    show_status(output, found)
    show_next(output, app, record)


def read_file(config: Path | None) -> AppConfig:
    """Return what a config file says; nothing where none is named.

    Raises:
        StartError: It cannot be read, or says something unknown or wrong.
    """
    if config is None:
        return AS_CODED
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{config} cannot be read ({error}): name a YAML file with --config."
        raise StartError(msg) from error
    return read_config(text, str(config))


def import_app(path: str) -> App:
    """Import an app from this folder or the installed packages.

    Raises:
        StartError: It cannot be imported; the message names the line that failed.
        ContractError: One of its classes breaks the programming contract.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        # A console script is not started with the current folder on its path, `python -m` is.
        sys.path.insert(0, here)
    try:
        return load_app(path)
    except RemoraError:
        raise
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        msg = f"{path.partition(':')[0]!r} cannot be imported: {_told(error)}."
        raise StartError(msg) from error


def _told(error: BaseException) -> str:
    """Return what failed and on which line of the user's own code, without the frames between."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} in {error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path.cwd())]
    frame = (own or frames)[-1]
    return f"{type(error).__name__}: {error} in {frame.filename}, line {frame.lineno}"


def show_next(output: Output, app: App, record: ClusterRecord) -> None:
    """Print commands to try, made from the app's first command."""
    example = first_command(app)
    if example is None:
        return
    url = f"{record.gateway_url}/v1/{example.type}/{example.id}"
    header = shlex.quote("content-type: application/json")
    output.line("")
    output.line("Try:")
    output.line(f"  curl -X POST {url}/{example.method} -H {header} -d {shlex.quote(example.body)}")
    output.line(f"  remora state {example.type} {example.id}")
    output.line(f"  remora down {record.app}")
