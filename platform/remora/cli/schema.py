"""``remora schema``: whether a new release of an app can read what the older ones wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from remora.app import App
from remora.cli import exits
from remora.cli.exits import WrongUsage
from remora.cli.options import Json, output_of
from remora.cli.output import Output
from remora.cli.up import import_app
from remora.journal import Store
from remora.runtime.survey import Survey, survey
from remora.schema.compare import Finding, compare, incompatible, merge
from remora.schema.describe import describe, from_text, to_text
from remora.storage.open import open_store, open_to_read

DEFAULT_FILE = Path("remora-schema.json")

AppPath = Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, for example entities.account:app.")]
File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help=f"The description kept beside the code; {DEFAULT_FILE} if not given."),
]
Report = Callable[[str], None]


@dataclass
class Checked:
    """What was compared with what, and what was found."""

    compared: list[str] = field(default_factory=list)
    findings: list[tuple[str, Finding]] = field(default_factory=list)
    """(where the older form was found, finding)"""
    remarks: list[str] = field(default_factory=list)
    read: Survey | None = None
    """What reading the whole store brought up, if it was read."""

    def add(self, source: str, findings: list[Finding]) -> None:
        """Take in what was found by comparing with one source."""
        self.compared.append(source)
        known = [finding for _, finding in self.findings]
        self.findings += [(source, finding) for finding in findings if finding not in known]

    @property
    def compatible(self) -> bool:
        """Whether nothing stands against it."""
        return not incompatible([finding for _, finding in self.findings])


def write(
    context: typer.Context,
    app_path: AppPath,
    file: File = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file whatever it says, its history of older forms too.")
    ] = False,
    json_: Json = False,
) -> None:
    """Write what the app's events, states and commands look like into a file, to be committed with the code."""
    output = output_of(context, as_json=json_)
    app, path = import_app(app_path), file or DEFAULT_FILE
    old = _read(path) if path.exists() and not force else None
    new = describe(app)
    if old is not None:
        checked = Checked()
        checked.add(str(path), compare(old, new))
        if not checked.compatible:
            _show(output, app, checked)
            output.remark(f"{path} was left as it is; --force replaces it, where nothing was released under it yet.")
            raise typer.Exit(exits.REJECTED)
    text = to_text(merge(old, new), indent=1) + "\n"
    changed = not path.exists() or path.read_text(encoding="utf-8") != text
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"Cannot write {path}: {error.strerror}. Choose another place with --file."
        raise WrongUsage(msg) from error
    if output.as_json:
        output.document({"app": app.name, "file": str(path), "changed": changed})
    else:
        output.line(
            f"{path} {'describes' if changed else 'described'} the app {app.name}{'' if changed else ' already'}."
        )


def check(
    context: typer.Context,
    app_path: AppPath,
    file: File = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Compare with what this store holds too: sqlite:///PATH or env:NAME."),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read everything in the store, not only its description.")
    ] = False,
    json_: Json = False,
) -> None:
    """Say whether the app can read what its older releases wrote, and what to do where it cannot. Changes nothing."""
    output = output_of(context, as_json=json_)
    if deep and store is None:
        msg = "--deep reads a store: name it with --store URL."
        raise WrongUsage(msg)
    app = import_app(app_path)
    checked = Checked()
    path = file or DEFAULT_FILE
    if path.exists():
        _check_file(app, path, checked)
    elif file is not None or store is None:
        msg = f"There is no {path}: write it with `remora schema write {app_path}`, or name a store with --store."
        raise WrongUsage(msg)
    if store is not None:
        with output.progress() as report, open_to_read(store) as opened:
            asyncio.run(_check_store(app, opened, store, checked, deep=deep, report=report))
    _show(output, app, checked)
    if not checked.compatible:
        raise typer.Exit(exits.REJECTED)


def accept(
    context: typer.Context,
    app_path: AppPath,
    store: Annotated[str, typer.Option(metavar="URL", help="The app's store; nothing should run on it.")],
    drop: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="An entity type whose data nobody needs any more.")
    ] = None,
    json_: Json = False,
) -> None:
    """Read everything in a store, and if the app can, forget the older forms that it refuses to start for."""
    output = output_of(context, as_json=json_)
    app, checked = import_app(app_path), Checked()
    with output.progress() as report:
        with open_to_read(store):
            pass  # nothing is made where there is none
        asyncio.run(_accept(app, open_store(store), set(drop or ()), checked, report))
    _show(output, app, checked)
    if not checked.compatible:
        raise typer.Exit(exits.REJECTED)


async def _accept(app: App, store: Store, drop: set[str], checked: Checked, report: Report) -> None:
    try:
        await store.open(app.name, app.settings.shards)
        checked.read = await survey(app, store, report)
        checked.add(store.url, [one for one in checked.read.findings() if one.entity not in drop - app.specs.keys()])
        if checked.compatible:
            await store.set_schema(to_text(describe(app)))
            checked.remarks.append("The store is described by the app as it is now.")
    finally:
        await store.close()


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        msg = f"Cannot read {path}: {error}."
        raise WrongUsage(msg) from error
    return from_text(text, str(path))


def _check_file(app: App, path: Path, checked: Checked) -> None:
    old, new = _read(path), describe(app)
    checked.add(str(path), compare(old, new))
    if merge(old, new) != old:
        checked.remarks.append(f"{path} is not up to date: `remora schema write` notes what has changed.")


async def _check_store(app: App, store: Store, url: str, checked: Checked, *, deep: bool, report: Report) -> None:
    try:
        report(f"reading the description in {url}")
        await store.open(app.name, app.settings.shards)
        kept = await store.schema()
        if kept is not None:
            checked.add(url, compare(from_text(kept, f"The store {url}"), describe(app)))
        elif not deep:
            checked.remarks.append(f"{url} has no description yet: --deep reads all that it holds instead.")
        if deep:
            checked.read = await survey(app, store, report)
            checked.add(f"{url}, read", checked.read.findings())
    finally:
        await store.close()


def _show(output: Output, app: App, checked: Checked) -> None:
    read = checked.read
    if output.as_json:
        document: dict[str, Any] = {
            "app": app.name,
            "compatible": checked.compatible,
            "compared": checked.compared,
            "findings": [{**asdict(finding), "source": source} for source, finding in checked.findings],
            "remarks": checked.remarks,
        }
        if read is not None:
            document["read"] = {"events": read.events, "states": read.states, "sends": read.sends}
        output.document(document)
        return
    if checked.findings:
        rows = [(one.severity, one.where, one.what, one.fix) for _, one in checked.findings]
        output.table(("severity", "where", "what", "what to do"), rows)
    if read is not None:
        output.line(f"{read.events} events, {read.states} states and {read.sends} undelivered sends were read.")
    sources = " and ".join(checked.compared) or "nothing"
    if checked.compatible:
        output.line(f"The app {app.name} is compatible with {sources}.")
    else:
        output.line(f"The app {app.name} cannot read all that was written before; compared with {sources}.")
    for remark in checked.remarks:
        output.remark(remark)
