"""Readiness checks: what an app waits for before it serves, as it declares it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from remora.ids import snake_case

Check = Callable[[], object]
"""A function without arguments, async or plain: True or nothing once it is ready, False or an exception until then."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """One check: ``ready_when=(Readiness(model_loaded, every_s=5),)``; a bare function stands for one with the defaults.

    It is run in each process concerned, again and again until it passes, and then never again: readiness is about
    starting, and what fails later is supervision's business.
    """

    check: Check
    """Returns True or nothing once it is ready; False, or an exception, until then. A plain function runs in a thread; an
    async one must not block, as it runs in its host's event loop."""
    name: str = ""
    """What it is called where somebody looks; the function's name if empty."""
    timeout_s: float = 5.0
    """Longest wait for one try, in seconds: half the default deadline of a command. What has not answered by then is not
    ready; no second try begins beside it."""
    every_s: float = 1.0
    """Longest pause between tries, in seconds; the first ones are shorter. What becomes ready is used that much later."""

    def __post_init__(self) -> None:
        """Refuse what cannot be called."""
        if not callable(self.check):
            msg = f"Readiness.check is a function without arguments, not {self.check!r}."
            raise ValueError(msg)  # noqa: TRY004 - as every other value that cannot work
        if not self.name:
            object.__setattr__(self, "name", getattr(self.check, "__name__", type(self.check).__name__))
        if needed := _needed(self.check):
            msg = f"The readiness check {self.name} needs {', '.join(needed)}: it is called without arguments."
            raise ValueError(msg)
        for field in ("timeout_s", "every_s"):
            if not getattr(self, field) > 0:
                msg = f"Readiness.{field} must be above 0, not {getattr(self, field)!r}."
                raise ValueError(msg)


def _needed(check: Check) -> list[str]:
    """Return the arguments that a function cannot be called without."""
    try:
        parameters = inspect.signature(check).parameters.values()
    except ValueError:  # one that is written in C does not always say
        return []
    return [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}
    ]


def readiness(given: object, where: str) -> tuple[Readiness, ...]:
    """Return checks as they were declared, bare functions made into ``Readiness``.

    Args:
        given: What stands under ``ready_when``.
        where: Whose that is, for the message.

    Raises:
        ValueError: It is no tuple of checks.
    """
    if not isinstance(given, tuple):
        msg = f"{where}.ready_when is a tuple of functions or Readiness: ready_when=(database_answers,)."
        raise ValueError(msg)  # noqa: TRY004 - as every other value that cannot work
    return tuple(one if isinstance(one, Readiness) else Readiness(one) for one in given)


def names(given: object, where: str) -> tuple[str, ...]:
    """Return what something depends on, by name.

    Args:
        given: What stands under ``depends_on``: names, or classes that stand for theirs.
        where: Whose that is, for the message.

    Raises:
        ValueError: It is no tuple of names and classes.
    """
    if not isinstance(given, tuple) or not all(isinstance(one, str | type) for one in given):
        msg = f'{where}.depends_on is a tuple of names: depends_on=("account",).'
        raise ValueError(msg)
    return tuple(one if isinstance(one, str) else snake_case(one.__name__) for one in given)
