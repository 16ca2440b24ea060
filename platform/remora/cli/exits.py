"""Exit codes: one per thing a script would do next."""

from __future__ import annotations

from remora.errors import ContractError, RemoraError, StartError, Verdict

OK = 0
REJECTED = 1
"""The answer is no, and stays no: a ``Rejected``, an invalid request, a handler that failed."""
USAGE = 2
"""The command line itself is wrong; nothing was sent."""
RETRY = 3
"""No answer this time; the same command with the same command id is safe and expected to work."""
UNREACHABLE = 4
"""The platform is not reachable, or could not start."""
BUG = 70
"""A fault in Remora itself (EX_SOFTWARE of sysexits.h). Python's own code for it, 1, says "rejected" here."""
INTERRUPTED = 130
"""Ended by Ctrl-C: 128 + SIGINT, as shells report it."""

HELP = (
    "Exit codes: 0 done; 1 refused (the entity said no, or the request is invalid); 2 wrong usage; "
    "3 try again with the same command id (unavailable, overloaded, deadline over); "
    "4 the platform is not reachable or cannot start."
)
"""What ``--help`` says about them."""


class WrongUsage(Exception):  # noqa: N818 - says what it is
    """The command line is wrong as written; the message is one sentence that names the fix."""


def exit_code(error: RemoraError) -> int:
    """Return the exit code that an error ends the command line with."""
    if isinstance(error, StartError | ContractError):
        return UNREACHABLE
    return REJECTED if error.verdict is Verdict.REJECT else RETRY
