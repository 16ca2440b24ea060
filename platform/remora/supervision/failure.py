"""A failure as a value: what failed, where, with what, and what was decided."""

from __future__ import annotations

import traceback

import msgspec

MESSAGE_MAX = 500
"""Characters of an exception's message that are kept."""
TRACEBACK_MAX = 4_000
"""Characters of a traceback that are kept: its end, where it was raised."""
ARGUMENTS_MAX = 1_000
"""Characters of a command's arguments that are kept."""
RECOVERY, SNAPSHOT = "recovery", "snapshot"
"""Where an entity fails beside its commands and queries, as it is noted in the place of a command."""


class Failure(msgspec.Struct, frozen=True):
    """One failure of an entity, as plain data."""

    entity: str
    """``type/id``."""
    command: str
    """Name of the command or query."""
    kind: str
    """Name of the exception's class, as rules have it."""
    message: str
    kinds: tuple[str, ...] = ()
    """All that the exception is, its causes included; see ``rules.kinds_of``."""
    traceback: str = ""
    arguments: str = ""
    """As JSON; what is declared as ``SecretStr`` or ``SecretBytes`` is masked."""
    command_id: str = ""
    directive: str = ""
    """What was decided; empty while a supervisor is asked."""
    after_s: float = 0.0
    """After which pause, in seconds."""
    count: int = 1
    """Which use of its rule within the window this was."""
    host: str = ""
    node: str = ""
    incarnation: int = 0
    shard: str = ""
    epoch: int = 0
    """Of the shard."""
    at_ms: int = 0
    times: int = 1
    """How many failures this stands for, where a supervisor is told of several as one."""

    @property
    def path(self) -> str:
        """Where it failed, level after level: ``host/SHARD/type/id``."""
        return f"{self.host}/{self.shard}/{self.entity}"


def message_of(failure: BaseException) -> str:
    """Return an exception's message, bounded, as text that any store takes."""
    try:
        text = str(failure)
    except Exception as error:  # noqa: BLE001 - an exception of the application's, whose text fails as well
        text = f"(its message cannot be had: {type(error).__name__})"
    return _shortened(text, MESSAGE_MAX)


def described(failure: BaseException) -> str:
    """Return an exception in a line."""
    return f"{type(failure).__name__}: {message_of(failure)}".removesuffix(": ")


def traceback_of(failure: BaseException) -> str:
    """Return the end of an exception's traceback as text, its causes included."""
    try:
        text = "".join(traceback.format_exception(failure))
    except Exception as error:  # noqa: BLE001 - as above
        text = f"(its traceback cannot be had: {type(error).__name__})"
    text = _storable(text)
    return text if len(text) <= TRACEBACK_MAX else "… " + text[-TRACEBACK_MAX:]


def shown(arguments: bytes) -> str:
    """Return arguments as JSON, bounded."""
    return _shortened(arguments.decode(errors="replace"), ARGUMENTS_MAX)


def _shortened(text: str, most: int) -> str:
    text = _storable(text)
    return text if len(text) <= most else text[:most] + " …"


def _storable(text: str) -> str:
    """Return text without what PostgreSQL or UTF-8 cannot hold."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
