"""``remora status``: what runs where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from remora.cli.options import AppName, Json, output_of
from remora.cli.output import Output
from remora.why import how_long

_COUNTERS = ("live", "commands", "commits", "recovered", "opened_warm", "outbox", "error")
"""What a host counts, or why it did not tell; see ``Host.status``."""


def status(context: typer.Context, app: AppName = None, json_: Json = False) -> None:
    """Show an app's hosts, shards, outboxes and URLs."""
    from remora.cluster import record as records

    output = output_of(context, as_json=json_)
    record = records.load(app)
    with output.progress() as report:
        report("asking the registry")
        from remora import operations

        found = operations.status(record)
    if output.as_json:
        output.document(found)
    else:
        show_status(output, found)


def show_status(output: Output, found: Mapping[str, Any]) -> None:
    """Print what ``operations.status`` returned for people."""
    told = {host["name"]: host for host in found.get("live", [])}
    # The registry's word on who owns what counts; the host adds what only it knows.
    hosts: list[dict[str, Any]] = [told.get(host["name"], {}) | host for host in found.get("hosts", [])]
    outbox: dict[str, Any] = found.get("outbox", {})
    counters = [name for name in _COUNTERS if any(name in host for host in hosts)]
    states = ["state"] if any("state" in host for host in hosts) else []
    columns = ["name", *states, "node", "pid", "incarnation", "shards", *counters]
    rows = [[host.get(column) for column in columns] for host in hosts]
    output.table(columns, rows, title=f"app {found.get('app', '')}")
    parked: list[dict[str, Any]] = found.get("parked", [])
    if parked:
        columns = ["sender", "sends", "reason"]
        sent = [
            [row["entity"], ", ".join(f"{s[0]}/{s[1]}.{s[2]}" for s in row["sends"]), row["reason"]] for row in parked
        ]
        output.table(columns, sent, title="parked sends: mend the reason, then `remora release TYPE ID` of the sender")
    show_troubles(output, found)
    about = {
        "stopped": found.get("halted"),
        "gateway": found.get("gateway"),
        "dashboard": found.get("dashboard"),
        "ray": found.get("address"),
        "store": found.get("store"),
        "shards": found.get("shards"),
        "undelivered sends": outbox.get("undelivered"),
        "parked sends": outbox.get("parked"),
        "registry": found.get("leader"),
        "in quarantine": found.get("quarantine") or None,
        "drained nodes": ", ".join(found.get("drained", [])),
    }
    output.pairs({name: value for name, value in about.items() if value not in {None, ""}})


def show_troubles(output: Output, found: Mapping[str, Any]) -> None:
    """Print what is waited for, which hosts are gone, and which could not be started."""
    waiting: list[dict[str, Any]] = found.get("waiting", [])
    if waiting:
        rows = [(row["what"], how_long(row["for_s"]), row["waits_for"]) for row in waiting]
        output.table(["what", "for", "waits for"], rows, title="not ready yet")
    gone: list[dict[str, Any]] = found.get("gone", [])
    if gone:
        rows = [(row["name"], how_long(row["for_s"]), row["because"]) for row in gone]
        output.table(["name", "gone for", "because"], rows, title="hosts given up lately")
    supervisors: list[dict[str, Any]] = found.get("supervisors", [])
    if supervisors:
        columns = ["name", "state", "node", "pid", "restarts", "because"]
        output.table(columns, [[row.get(column) for column in columns] for row in supervisors], title="supervisors")
    refused: dict[str, str] = found.get("refused", {})
    if refused:
        output.table(["slot", "because"], list(refused.items()), title="hosts that could not be started")
