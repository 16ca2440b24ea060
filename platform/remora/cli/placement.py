"""``remora shards``, ``drain``, ``undrain`` and ``rebalance``: see and steer which host owns what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any

import typer

from remora.cli import exits
from remora.cli.options import Json, RunningApp, output_of
from remora.cli.output import Output
from remora.cluster.record import ClusterRecord
from remora.errors import RemoraError

LOOK_S = 0.5
"""Seconds between looks at how far a drain has come."""
Node = Annotated[
    str,
    typer.Argument(
        metavar="NODE", help="A node id, the beginning of one, or a host's name; `remora status` lists them."
    ),
]
Row = Mapping[str, Any]


def shards(context: typer.Context, app: RunningApp = None, json_: Json = False) -> None:
    """Show which host owns which shard."""
    from remora.cluster import record as records

    output = output_of(context, as_json=json_)
    record = records.load(app)
    with output.progress() as report:
        report("asking the registry")
        from remora import operations

        found = operations.shards(record)
    if output.as_json:
        output.document(found)
    else:
        show_shards(output, found)


def show_shards(output: Output, found: Sequence[Row]) -> None:
    """Print shards for people, the sum below."""
    counted = [name for name in ("live", "commands_s") if any(name in row for row in found)]
    names = {"commands_s": "commands/s", "owner": "incarnation"}
    columns = ["shard", "host", "owner", "node", "epoch", "state", *counted]
    output.table(
        [names.get(name, name) for name in columns],
        [[row.get(name) if name != "owner" or row["owner"] else None for name in columns] for row in found],
    )
    hosts = {row["host"] for row in found if row.get("host")}
    states = ", ".join(f"{count} {state}" for state, count in Counter(row["state"] for row in found).most_common())
    output.line(f"{len(found)} shards on {len(hosts)} hosts: {states}")


def drain(context: typer.Context, node: Node, app: RunningApp = None, json_: Json = False) -> None:
    """Empty a node's hosts, or one host, and let them go. The node gets no hosts again until `remora undrain`."""
    from remora.cluster import record as records

    output = output_of(context, as_json=json_)
    record = records.load(app)
    with output.progress() as report:
        found = _drain(record, node, report)
    left: list[str] = found["left"]
    if output.as_json:
        output.document(found)
    elif left:
        output.line(f"{found['node']} could not be emptied in time: {len(left)} shards are still there.")
        output.remark(f"They are {', '.join(left[:10])}{' …' if len(left) > 10 else ''}. Draining it again goes on.")  # noqa: PLR2004 - a line's worth
    else:
        output.line(
            f"{found['node']} is empty: {', '.join(found['hosts'])} {_have(found['hosts'])} handed over all shards."
        )
    if left:
        raise typer.Exit(exits.RETRY)


def _have(hosts: Sequence[str]) -> str:
    return "has" if len(hosts) == 1 else "have"


def _drain(record: ClusterRecord, node: str, report: Callable[[str], None]) -> dict[str, Any]:
    """Drain, and meanwhile tell how far it has come."""
    from remora import operations

    # Asked for first: it joins the cluster, which the thread then finds done.
    begun = _there(operations.shards(record), node)
    with ThreadPoolExecutor(1, thread_name_prefix="drain") as thread:
        draining: Future[dict[str, Any]] = thread.submit(operations.drain, record, node, report)
        while True:
            try:
                return draining.result(timeout=LOOK_S)
            except TimeoutError:
                if draining.done():  # it is what the drain itself ended with
                    raise
            try:
                left = _there(operations.shards(record), node)
            except RemoraError as error:
                report(f"emptying {node}; how far it has come is not known ({error.message})")
            else:
                report(f"emptying {node}: {left} of {begun} shards left")


def _there(found: Sequence[Row], node: str) -> int:
    return sum(1 for row in found if row["host"] == node or str(row["node"]).startswith(node))


def undrain(context: typer.Context, node: Node, app: RunningApp = None, json_: Json = False) -> None:
    """Let a drained node have hosts again."""
    from remora.cluster import record as records

    output = output_of(context, as_json=json_)
    record = records.load(app)
    with output.progress() as report:
        report("asking the registry")
        from remora import operations

        found = operations.undrain(record, node)
    if output.as_json:
        output.document(found)
    else:
        output.line(f"{', '.join(found['nodes'])} may have hosts again.")


def rebalance(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the next round would move.")] = False,
    app: RunningApp = None,
    json_: Json = False,
) -> None:
    """Begin the next round of rebalancing now, and say what it moves and why."""
    from remora.cluster import record as records

    output = output_of(context, as_json=json_)
    record = records.load(app)
    with output.progress() as report:
        report("asking the registry")
        from remora import operations

        moves = operations.rebalance(record, dry_run=dry_run)
    if output.as_json:
        output.document(moves)
        return
    if moves:
        columns = ["shard", "source", "target", "because"]
        output.table(columns, [[move[name] for name in columns] for move in moves])
    what = f"{len(moves)} {'shard' if len(moves) == 1 else 'shards'}"
    if not moves:
        output.line("Nothing is to be moved.")
    elif dry_run:
        output.line(f"The next round would move {what}.")
    else:
        output.line(f"The round that moves {what} has begun.")
