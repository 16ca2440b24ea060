"""What a client process saw, written down outside of the platform: before it sent, and after each answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

What = Literal["append", "refuse", "seen"]


class Shown(NamedTuple):
    """The prefix that an answer shows."""

    items: int
    chain: int


@dataclass
class Operation:
    """One command or query of one caller, from before it was sent to its outcome."""

    number: int
    caller: str
    """Who the order is kept for: one client process."""
    key: str
    what: What
    item: str
    """Of commands; it is the command id too."""
    sent_ns: int
    """When it was about to be sent, on a clock that all processes of the machine share."""
    given_up: int = 0
    """Times its deadline passed and it was sent again with the same id."""
    answered_ns: int | None = None
    shown: Shown | None = None
    errors: tuple[str, ...] = ()
    refused: str = ""
    """The error that ended it, if one that asking again cannot help did."""

    @property
    def took_s(self) -> float | None:
        """Seconds from sending it to its answer."""
        return None if self.answered_ns is None else (self.answered_ns - self.sent_ns) / 1e9


class Witness:
    """Writes one client's log; every line is handed to the kernel before anything else happens.

    Args:
        path: The log, which nobody else writes to.
        caller: The client's name.
    """

    def __init__(self, path: Path, caller: str) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._number = 0
        self.caller = caller
        self.answers = 0
        self.errors = 0

    def sends(self, key: str, what: What, item: str) -> int:
        """Note what is about to be sent; return its number."""
        self._number += 1
        self._write("sends", self._number, time.monotonic_ns(), key, what, item)  # noqa: TID251 - shared by all processes
        return self._number

    def given_up(self, number: int, error: BaseException) -> None:
        """Note that it is about to be sent again, its outcome unknown."""
        self.errors += 1
        self._write("given up", number, time.monotonic_ns(), f"{type(error).__name__}: {error}")  # noqa: TID251 - as above

    def answered(self, number: int, at_ns: int, shown: Shown) -> None:
        """Note an answer and when it came."""
        self.answers += 1
        self._write("answered", number, at_ns, *shown)

    def refused(self, number: int, error: BaseException) -> None:
        """Note an error that asking again would not help."""
        self.errors += 1
        self._write("refused", number, time.monotonic_ns(), f"{type(error).__name__}: {error}")  # noqa: TID251 - as above

    def close(self) -> None:
        """End the log."""
        self._file.close()

    def _write(self, *line: object) -> None:
        self._file.write(json.dumps(line) + "\n")


class Log:
    """What a client has written so far, read as it grows: only what is new is read again.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._found: dict[int, Operation] = {}

    def operations(self) -> list[Operation]:
        """Return all operations, in the order they were sent."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._read_bytes += len(whole) + 1
            self._take(whole.decode().splitlines())
        return list(self._found.values())

    def _take(self, lines: Iterable[str]) -> None:
        found = self._found
        for line in lines:
            kind, number, at_ns, *rest = json.loads(line)
            if kind == "sends":
                key, what, item = rest
                found[number] = Operation(number, self._path.stem, key, what, item, at_ns)
                continue
            one = found[number]
            match kind:
                case "given up":
                    one.given_up += 1
                    one.errors = (*one.errors, rest[0])
                case "answered":
                    one.answered_ns, one.shown = at_ns, Shown(*rest)
                case "refused":
                    one.refused = rest[0]
                case _:
                    msg = f"no witness writes {kind!r}"
                    raise ValueError(msg)


def read_logs(paths: Sequence[Path]) -> list[Operation]:
    """Return the operations of several clients, which may still be writing."""
    return [one for path in paths for one in Log(path).operations()]
