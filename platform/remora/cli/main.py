"""The command line's entry point: ``remora`` and ``python -m remora.cli``."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache

import typer

from remora.cli import exits
from remora.cli.down import down
from remora.cli.entities import call, events, release, state, why
from remora.cli.exits import WrongUsage
from remora.cli.failures import failures
from remora.cli.options import Json, output_of
from remora.cli.output import Output
from remora.cli.placement import drain, rebalance, shards, undrain
from remora.cli.quarantine import list_, show
from remora.cli.quarantine import release as release_from_quarantine
from remora.cli.schema import accept, check, write
from remora.cli.status import status
from remora.cli.up import up
from remora.errors import RemoraError

app = typer.Typer(
    name="remora",
    help="Run small stateful entities on Ray, and ask them things.",
    epilog=exits.HELP,
    add_completion=False,
)


@app.callback()
def remora(context: typer.Context, json_: Json = False) -> None:
    """Run small stateful entities on Ray, and ask them things."""
    output_of(context, as_json=json_)


def _register(panel: str, *commands: Callable[..., None], **settings: bool) -> None:
    for command in commands:
        app.command(rich_help_panel=panel, epilog=exits.HELP, context_settings=settings)(command)


_register("The platform", up, down, status, shards, drain, undrain, rebalance, failures)
_register("Entities", call, ignore_unknown_options=True)  # they are the method's arguments
_register("Entities", state, events, why, release)

schema = typer.Typer(
    name="schema",
    help="Whether a new release of an app can read what the older ones wrote.",
    epilog=exits.HELP,
)
for _command in (write, check, accept):
    schema.command(epilog=exits.HELP)(_command)
app.add_typer(schema, rich_help_panel="Releases")

quarantine = typer.Typer(
    name="quarantine",
    help="What keeps taking its host down, and is held apart for that.",
    epilog=exits.HELP,
)
quarantine.command("list", epilog=exits.HELP)(list_)
quarantine.command(epilog=exits.HELP)(show)
quarantine.command(epilog=exits.HELP)(release_from_quarantine)
app.add_typer(quarantine, rich_help_panel="The platform")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        args: The words behind ``remora``; those of this process if None.
    """
    words = list(sys.argv[1:] if args is None else args)
    own = words[: words.index("--")] if "--" in words else words
    # Known before parsing, because what cannot be parsed is reported as JSON too.
    output = Output(as_json="--json" in own)
    code = _run(words or ["--help"], output)
    code = exits.USAGE if not words else code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # As below; and the interpreter's own last flush must not meet the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


@cache
def _program() -> Callable[..., object]:
    """Return the commands as typer reads them from the functions, which takes as long as a call or two."""
    return typer.main.get_command(app)


def _run(words: list[str], output: Output) -> int:
    try:
        ended = _program()(words, prog_name="remora", obj=output, standalone_mode=False)
    except WrongUsage as wrong:
        output.usage(str(wrong))
        return exits.USAGE
    except typer.TyperException as wrong:
        command = wrong.ctx.command_path if getattr(wrong, "ctx", None) else "remora"  # type: ignore[attr-defined]  # usage errors have one
        output.usage(wrong.format_message(), f"`{command} --help` shows how to write it.")
        return exits.USAGE
    except typer.Abort:
        return exits.INTERRUPTED
    except SystemExit:
        # How typer and rich end when nobody reads on: `remora events … | head` is no error.
        ended = exits.OK
    except RemoraError as error:
        output.error(error)
        return exits.exit_code(error)
    except Exception as error:  # noqa: BLE001 - Python's own exit code for a traceback means "refused" here
        traceback.print_exc()
        bug = RemoraError(f"A fault in Remora: {type(error).__name__}: {error}. Please report it with the lines above.")
        output.error(bug)
        return exits.BUG
    return ended if isinstance(ended, int) else exits.OK


if __name__ == "__main__":
    sys.exit(main())
