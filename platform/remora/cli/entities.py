"""``remora call``, ``state``, ``events`` and ``why``: ask one entity through the gateway."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from remora.cli.arguments import json_arguments
from remora.cli.exits import WrongUsage
from remora.cli.gateway_client import Answer, GatewayClient, entity_path, gateway_url
from remora.cli.options import Gateway, Id, Json, RunningApp, Type, output_of
from remora.cli.output import Output
from remora.clock import SystemClock
from remora.errors import UnknownCommand
from remora.gateway.problems import MethodNotAllowed
from remora.gateway.request import DEADLINE_S_MAX
from remora.ids import CommandIds, check_command_id
from remora.reference import HISTORY_LIMIT_MAX

WHY_S = 2.0
"""Longest wait for the answer to ``why``, in seconds: it comes within one, unless the gateway is away."""
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="SECONDS", help="Longest wait for the answer; else the entity type's own."),
]


def call(  # noqa: PLR0913, PLR0917 - each is an option or argument of the command
    context: typer.Context,
    type_: Type,
    id_: Id,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A command or query of the entity.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="--ARG VALUE", help="Arguments of METHOD by name; see above.", show_default=False),
    ] = None,
    args: Annotated[str | None, typer.Option(metavar="JSON", help="Arguments as one JSON object.")] = None,
    command_id: Annotated[
        str | None, typer.Option(help="The command's id; the same id again gives the same reply, applied once.")
    ] = None,
    deadline: Deadline = None,
    gateway: Gateway = None,
    app: RunningApp = None,
    json_: Json = False,
) -> None:
    """Send a command or query to an entity and print its reply as JSON.

    Options other than those below are arguments of METHOD:

    remora call account alice deposit --amount 10

    A value that is JSON is taken as that: 10, true, null, [1, 2]; any other is a string: --name Alice.
    To force a string, quote it twice: --name '"10"'.

    --name alone is true. --name=--value gives a value that begins with --. A - in a name stands for _.

    An argument that has the name of an option below is given with --args, for example --args '{"json": 1}'.
    """
    output = output_of(context, as_json=json_)
    path = entity_path(type_, id_, method)
    body = json_arguments(arguments or [], args)
    identity = _command_id(command_id)
    _check_deadline(deadline)
    client = GatewayClient(gateway_url(gateway, app))
    try:
        answer = client.ask(
            "POST", path, body=body, command_id=identity, deadline_s=deadline, entity=f"{type_}/{id_}"
        )  # fmt: skip
    except KeyboardInterrupt:
        output.remark(f"Not waiting any longer. To learn the outcome, ask again with --command-id {identity}")
        raise
    except MethodNotAllowed as error:
        # The gateway keeps these names for itself: /events and /why.
        msg = f"{method!r} is no command or query of {type_}: write `remora {method} {type_} {shlex.quote(id_)}`."
        raise UnknownCommand(msg, entity=error.entity) from error
    output.document(answer.value)
    if answer.repeated:
        output.remark("This command id was applied before; this is the reply it got then.")
    _remark_memory(output, type_, answer)


def state(
    context: typer.Context,
    type_: Type,
    id_: Id,
    deadline: Deadline = None,
    gateway: Gateway = None,
    app: RunningApp = None,
    json_: Json = False,
) -> None:
    """Print an entity's state."""
    output = output_of(context, as_json=json_)
    answer = _read(entity_path(type_, id_), gateway, app, deadline)
    output.document(answer.value)
    _remark_memory(output, type_, answer)


def events(  # noqa: PLR0913, PLR0917 - each is an option or argument of the command
    context: typer.Context,
    type_: Type,
    id_: Id,
    after: Annotated[int, typer.Option(min=0, help="Only events with a higher sequence number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=HISTORY_LIMIT_MAX, help="At most so many.")] = 100,
    deadline: Deadline = None,
    gateway: Gateway = None,
    app: RunningApp = None,
    json_: Json = False,
) -> None:
    """Print the recorded events of an event-sourced entity, oldest first."""
    output = output_of(context, as_json=json_)
    answer = _read(entity_path(type_, id_) + "/events", gateway, app, deadline, after=str(after), limit=str(limit))
    if output.as_json:
        output.document(answer.value)
        return
    found: list[dict[str, Any]] = answer.value
    rows = [(event["seq"], _utc(event["at_ms"]), event["event"], event["data"], event["command_id"]) for event in found]
    output.table(["seq", "at (UTC)", "event", "data", "command id"], rows)
    if len(found) == limit:
        output.remark(f"There may be more: --after {found[-1]['seq']} shows those that follow.")


def why(
    context: typer.Context,
    type_: Type,
    id_: Id,
    deadline: Deadline = None,
    gateway: Gateway = None,
    app: RunningApp = None,
    json_: Json = False,
) -> None:
    """Say what an entity does or waits for, and for how long. Answers within a second, whatever is dead."""
    output = output_of(context, as_json=json_)
    answer = _read(entity_path(type_, id_) + "/why", gateway, app, WHY_S if deadline is None else deadline)
    if output.as_json:
        output.document(answer.value)
    else:
        show_why(output, answer.value)
        _remark_memory(output, type_, answer)


def show_why(output: Output, found: dict[str, Any]) -> None:
    """Print what an entity waits for, for people: the sentence first, then what stands behind it."""
    output.line(f"{found['entity']}: {found['state'].replace('_', ' ')}")
    output.line(found["because"])
    running: dict[str, Any] = found.get("running") or {}
    about = {
        "host": found.get("host"),
        "node": found.get("node"),
        "shard": found.get("shard"),
        "told by": found.get("told_by"),
        "recorded": found.get("entries"),
        "waiting": found.get("mailbox"),
        "handler": running.get("method"),
        "command id": running.get("command_id"),
        "called by": " → ".join(running.get("callers", ())),
        "reason": found.get("reason"),
    }
    output.line("")
    output.pairs({name: value for name, value in about.items() if value not in {None, ""}})
    if running.get("where"):
        output.line(running["where"].rstrip())
    calls: list[dict[str, Any]] = found.get("calls", [])
    if calls:
        rows = [(call["entity"], call["method"], f"{call['for_s']:.1f} s", call["waits_for"]) for call in calls]
        output.table(["entity", "runs", "for", "waits for"], rows)


def release(
    context: typer.Context,
    type_: Type,
    id_: Id,
    deadline: Deadline = None,
    gateway: Gateway = None,
    app: RunningApp = None,
    json_: Json = False,
) -> None:
    """Send again what was parked of an entity's durable sends; `remora status` lists those."""
    output = output_of(context, as_json=json_)
    _check_deadline(deadline)
    client = GatewayClient(gateway_url(gateway, app))
    answer = client.ask("POST", entity_path(type_, id_) + "/release_sends", body="{}", deadline_s=deadline)
    output.document(answer.value)
    output.remark(f"{answer.value} sends of {type_}/{id_} are on their way again.")


def _read(path: str, gateway: str | None, app: str | None, deadline_s: float | None, **params: str) -> Answer:
    _check_deadline(deadline_s)
    return GatewayClient(gateway_url(gateway, app)).ask("GET", path, params=params, deadline_s=deadline_s)


def _command_id(given: str | None) -> str:
    """Return the id to send: made here, so that an answer that never comes can be asked for again."""
    if given is None:
        return CommandIds(SystemClock().now_ms).next()
    if given != given.strip():
        msg = "--command-id begins or ends with a space, which HTTP would drop: leave it out."
        raise WrongUsage(msg)
    return check_command_id(given)


def _check_deadline(seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds <= DEADLINE_S_MAX:
        msg = f"--deadline must be above 0 and at most {DEADLINE_S_MAX:.0f} seconds."
        raise WrongUsage(msg)


def _remark_memory(output: Output, entity_type: str, answer: Answer) -> None:
    if not answer.durable:
        output.remark(f"{entity_type} is transient: this is in memory only and starts over after a crash.")


def _utc(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
