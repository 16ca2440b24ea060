"""What the command line prints: for people, or with ``--json`` for programs.

With ``--json`` standard output holds exactly one JSON document, the result or a problem document
(RFC 9457), and the exit code tells which. Progress and, without ``--json``, errors go to standard
error, so that standard output is always the result alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from remora.cli.exits import UNREACHABLE, exit_code
from remora.errors import RemoraError, Verdict
from remora.gateway.problems import TYPE_PREFIX, problem

if TYPE_CHECKING:
    from rich.console import Console

Row = Sequence[object]


class Output:
    """Where results, progress and errors go.

    Args:
        as_json: Print one JSON document instead of text and tables.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def document(self, value: object) -> None:
        """Print a value as JSON: compact for programs, indented for people."""
        if self.as_json:
            # ASCII, so that no locale's encoding can refuse it.
            print(json.dumps(value, separators=(",", ":")))
        else:
            self._out.print(readable(json.dumps(value, indent=2, ensure_ascii=False)), soft_wrap=True)

    def line(self, text: str) -> None:
        """Print a line of a result for people."""
        self._out.print(readable(text), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Row], title: str = "") -> None:
        """Print a table for people; long cells fold, nothing is cut off."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold", min_width=len(column))
        for row in rows:
            table.add_row(*(Text(readable(cell_text(cell)), overflow="fold") for cell in row))
        self._out.print(table)

    def pairs(self, values: Mapping[str, object]) -> None:
        """Print names and values, one pair per line, for people."""
        width = max((len(name) for name in values), default=0)
        for name, value in values.items():
            self.line(f"{name:<{width}}  {cell_text(value)}")

    @contextmanager
    def progress(self) -> Iterator[Callable[[str], None]]:
        """Show what is being done on standard error; gives the function to report each step with."""
        console = self._err
        # What libraries print meanwhile is progress too, and no part of the result.
        with redirect_stdout(sys.stderr):
            if not console.is_terminal:
                yield lambda step: console.print(f"{readable(step)} …", soft_wrap=True)
                return
            with console.status("…") as status:
                yield lambda step: status.update(f"{readable(step)} …")

    def remark(self, text: str) -> None:
        """Tell people something about the result, beside it."""
        if not self.as_json:
            self._err.print(readable(text), style="dim", soft_wrap=True)

    def usage(self, message: str, hint: str = "") -> None:
        """Say what is wrong with the command line."""
        if self.as_json:
            self.document({"type": TYPE_PREFIX + "usage", "title": "Usage", "code": "usage", "detail": message})
            return
        self._error_line(message)
        if hint:
            self._err.print(readable(hint), soft_wrap=True)

    def error(self, error: RemoraError) -> None:
        """Say what happened, how to mend it, and whether and how to ask again."""
        if self.as_json:
            self.document(msgspec.to_builtins(problem(error)))
            return
        self._error_line(error.message)
        for text in map(finding_text, error.details):
            if text not in error.message:  # which already holds the first few
                self._note(text)
        if error.entity:
            self._note(f"entity: {error.entity}")
        if error.command_id:
            self._note(f"command id: {error.command_id}")
        if error.verdict is not Verdict.REJECT and exit_code(error) != UNREACHABLE:
            self._note(retry_hint(error))
        self._note(f"code: {error.code}")

    def _error_line(self, message: str) -> None:
        from rich.text import Text

        self._err.print(Text("error: ", style="bold red"), Text(readable(message)), sep="", soft_wrap=True)

    def _note(self, text: str) -> None:
        self._err.print(f"  {readable(text)}", soft_wrap=True)

    @property
    def _out(self) -> Console:
        return _console(stderr=False)

    @property
    def _err(self) -> Console:
        return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    # No markup: what is printed holds ids, states and messages of users, brackets included.
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def readable(text: str) -> str:
    """Return ``text`` with control characters shown, so that no stored value steers the terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )


def cell_text(value: object) -> str:
    """Return a value as it stands in a table: strings bare, nothing as nothing, the rest as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def finding_text(finding: Mapping[str, Any]) -> str:
    """Return one finding of a validation as ``argument: problem``."""
    argument, what = finding.get("argument"), finding.get("problem")
    if what is None:
        return cell_text(dict(finding))
    return f"{argument or 'arguments'}: {what}"


def retry_hint(error: RemoraError) -> str:
    """Return how to ask again."""
    when = f"after {error.retry_after_s:g} s" if error.retry_after_s > 0 else "now"
    if not error.command_id:
        return f"try again: {when}, the same way"
    return (
        f"try again: {when}, the same way with --command-id {error.command_id}; it is applied once, whatever happened"
    )


def at(at_ms: int) -> str:
    """Return a time of the store, in ms since 1970, as people read it."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(sep=" ", timespec="seconds")
