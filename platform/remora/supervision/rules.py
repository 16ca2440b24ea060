"""The rule language of supervision: what is declared, in code or in YAML, as the same data.

::

    options = EntityOptions(supervision=(
        on(Overdrawn, KeyError).resume(),
        on("OperationalError").restart(Backoff(min_s=0.5), at_most=5, within_s=60, then=Directive.STOP),
        on(Exception).escalate(),
    ))

A handler that raises anything but ``Rejected`` has failed. Its effects vanish whatever the
directive; the directive decides what becomes of the entity:

    resume    keep the state of before the command and go on
    restart   drop the activation and recover from the journal, after a backoff
    stop      answer ``Stopped`` from now on
    escalate  the rules of its shard decide

The first rule that matches decides; where none does, the rules of the kind of entity
(``DEFAULTS``). Rules name exceptions by class name, so that a rule says the same in a file and in
code, and a process that has never imported the class can judge by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from remora.errors import Rejected

_NAME = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_<]\w*>?)*$")
CAUSES_MAX = 16
"""Causes of a failure that are looked at: a chain that is longer is a loop, or nobody's intention."""
UNBOUNDED_S = 365 * 86_400.0
"""Longest pause or window that can be declared, in seconds: a year."""

_strict = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Directive(Enum):
    """What becomes of an entity after a failure."""

    RESUME = "resume"
    RESTART = "restart"
    STOP = "stop"
    ESCALATE = "escalate"


def name_of(kind: type[BaseException]) -> str:
    """Return the name by which rules know an exception class: ``module.Class``, Python's own without the module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def kinds_of(failure: BaseException) -> tuple[str, ...]:
    """Return all that a failure is: the names of its class, of what that derives from, then those of its causes.

    A cause is what it was raised from (``raise … from cause``).
    """
    found: dict[str, None] = {}
    cause: BaseException | None = failure
    for _ in range(CAUSES_MAX):
        if cause is None:
            break
        found |= {name_of(kind): None for kind in type(cause).__mro__ if kind is not object}
        cause = cause.__cause__
    return tuple(found)


def _names(given: object) -> object:
    """Take what ``on`` is given, one or several, class or name, as names."""
    several = [given] if isinstance(given, str | type) else list(given) if isinstance(given, Iterable) else [given]
    return tuple(_name(one) for one in several)


def _name(given: object) -> str:
    if isinstance(given, type) and issubclass(given, BaseException):
        if issubclass(given, Rejected):
            msg = f"{given.__name__} is an answer and never a failure: no rule can be for it"
            raise ValueError(msg)  # noqa: TRY004 - of pydantic's validators: it is the value that is wrong
        return name_of(given)
    name = given.replace(":", ".") if isinstance(given, str) else ""
    if not _NAME.match(name):
        msg = f"{given!r} is no exception class and no name of one, such as 'ValueError' or 'shop.errors.SoldOut'"
        raise ValueError(msg)
    if name in {Rejected.__name__, name_of(Rejected)}:
        return _name(Rejected)  # as above
    return name


Seconds = Annotated[float, Field(ge=0, le=UNBOUNDED_S)]


class Backoff(BaseModel):
    """Pauses before restarts: the first, then longer ones for as long as it goes on failing."""

    model_config = _strict

    min_s: Seconds = 0.01
    """First pause, in seconds; 0: restart at once, every time."""
    max_s: Seconds = 30.0
    """Longest pause, in seconds."""
    first_s: Seconds | None = None
    """The very first pause, where it is another one: with 0 a single failure costs none, and ``min_s`` comes second."""
    factor: Annotated[float, Field(ge=1, le=1000)] = 2.0
    """By how much each pause is longer than the one before."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of a pause that is drawn at random, so that many entities do not return at once."""
    reset_s: Seconds | None = None
    """Seconds without a failure, counted from the end of the last pause, after which pauses begin with the first again;
    else half of ``min_s + max_s``, as Akka has it."""

    @model_validator(mode="after")
    def _ordered(self) -> Backoff:
        if self.min_s > self.max_s:
            msg = f"min_s ({self.min_s:g}) must not be above max_s ({self.max_s:g})"
            raise ValueError(msg)
        return self

    @property
    def well_s(self) -> float:
        """Seconds without a failure after which the first pause is due again."""
        return (self.min_s + self.max_s) / 2 if self.reset_s is None else self.reset_s

    def pause_s(self, streak: int) -> float:
        """Return the pause before the restart number ``streak`` in a row, before jitter, in seconds."""
        if self.first_s is not None:
            if streak <= 1:
                return self.first_s
            streak -= 1
        if self.min_s <= 0:
            return 0.0
        try:
            grown = self.min_s * self.factor ** max(0, streak - 1)
        except OverflowError:  # far beyond any maximum
            return self.max_s
        return min(self.max_s, grown)


class Rule(BaseModel):
    """One declared rule; ``on(…)`` writes it more shortly."""

    model_config = _strict

    # Not `on`, which YAML 1.1 takes for true.
    exceptions: Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)] = ("Exception",)
    """What it is for, by class or name: what derives from those and what was caused by those as well. ``ValueError`` is
    any class of that name, ``shop.errors.SoldOut`` that one."""
    directive: Directive = Directive.RESTART
    """What to do."""
    backoff: Backoff = Backoff()
    """Before restarts."""
    at_most: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Uses within ``within_s`` before ``then`` takes over; 0: it takes over at once; None: no limit."""
    within_s: Annotated[float, Field(gt=0, le=UNBOUNDED_S)] = 60.0
    """The window in which uses are counted, in seconds."""
    then: Directive = Directive.STOP
    """What to do beyond the limit."""

    @model_validator(mode="before")
    @classmethod
    def _not_on(cls, given: object) -> object:
        if isinstance(given, dict) and given.keys() & {True, "on"}:
            msg = "write `exceptions:` (YAML reads a key `on` as true)"
            raise ValueError(msg)
        return given

    def matches(self, kinds: Iterable[str]) -> bool:
        """Return whether it is for a failure of these kinds (see ``kinds_of``)."""
        return any(
            kind == name or ("." not in name and kind.rpartition(".")[2] == name)
            for name in self.exceptions
            for kind in kinds
        )


Rules = tuple[Rule, ...]
"""Rules in order; the first that matches decides."""


class on:  # noqa: N801 - read as a word of the rule language
    """The beginning of a rule: ``on(ValueError, "OperationalError").restart(at_most=3)``.

    Args:
        exceptions: Exception classes, or names of some.
    """

    def __init__(self, *exceptions: type[BaseException] | str) -> None:
        self._exceptions = exceptions

    def resume(self, *, at_most: int | None = None, within_s: float = 60.0, then: Directive = Directive.STOP) -> Rule:
        """Return the rule that keeps the state of before the command; see ``Rule`` for the arguments."""
        return self._rule(Directive.RESUME, at_most=at_most, within_s=within_s, then=then)

    def restart(
        self, backoff: Backoff | None = None, *, at_most: int | None = None, within_s: float = 60.0,
        then: Directive = Directive.STOP,
    ) -> Rule:  # fmt: skip
        """Return the rule that recovers from the journal after a pause; see ``Rule`` for the arguments."""
        pauses = backoff or Backoff()
        return self._rule(Directive.RESTART, backoff=pauses, at_most=at_most, within_s=within_s, then=then)

    def stop(self) -> Rule:
        """Return the rule that stops."""
        return self._rule(Directive.STOP)

    def escalate(self) -> Rule:
        """Return the rule that leaves the decision to the level above."""
        return self._rule(Directive.ESCALATE)

    def _rule(self, directive: Directive, **more: object) -> Rule:
        return Rule.model_validate({"exceptions": self._exceptions, "directive": directive, **more})
