"""From words on a command line to the JSON arguments of a command.

The rules, as ``remora call --help`` states them:

- ``--name value`` and ``--name=value`` give the argument ``name``; ``-`` in a name stands for ``_``.
- ``--name`` with nothing after it, or with the next ``--name`` after it, gives ``true``.
- A value that is JSON is that JSON (``10``, ``true``, ``null``, ``[1, 2]``, ``"10"``); any other is a string.
- A value that itself begins with ``--`` is written ``--name=--value``.
- ``--args '{"name": …}'`` gives several at once; an argument given twice is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Never

from remora.cli.exits import WrongUsage

_OPTION = "--"


def json_arguments(words: Sequence[str], given: str | None = None) -> str:
    """Return the arguments as the text of one JSON object.

    Numbers keep the digits that were typed: this side neither rounds nor judges them.

    Args:
        words: What stood on the command line behind TYPE ID METHOD.
        given: The value of ``--args``.

    Raises:
        WrongUsage: The words break the rules; the message says how to write it.
    """
    values: dict[str, str] = {} if given is None else _members(given)
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix(_OPTION).partition("=")
        name = name.replace("-", "_")
        if not word.startswith(_OPTION) or not name.isidentifier():
            msg = f"{word!r} is not an argument of the method: write --NAME VALUE."
            raise WrongUsage(msg)
        if name in values:
            msg = f"the argument {name!r} is given twice."
            raise WrongUsage(msg)
        if equals:
            values[name] = json_value(value)
        elif rest and not rest[0].startswith(_OPTION):
            values[name] = json_value(rest.pop(0))
        else:
            values[name] = "true"
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in values.items()) + "}"


def json_value(text: str) -> str:
    """Return ``text`` if it is JSON, else ``text`` as a JSON string."""
    try:
        return _text(_parse(text))
    except (ValueError, RecursionError):
        return json.dumps(text)


def _members(text: str) -> dict[str, str]:
    """Return the members of a JSON object, each value as the text it was written with."""
    try:
        found = _parse(text)
    except (ValueError, RecursionError) as error:
        msg = f"--args is not JSON ({error}): write --args '{{\"amount\": 10}}'."
        raise WrongUsage(msg) from error
    if not isinstance(found, _Members):
        msg = "--args must be one JSON object: write --args '{\"amount\": 10}'."
        raise WrongUsage(msg)
    names = [name for name, _ in found]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        msg = f"the argument {double!r} is given twice in --args."
        raise WrongUsage(msg)
    return {name: _text(value) for name, value in found}


class _Members(list[tuple[str, object]]):
    """A parsed JSON object."""


class _Number(str):
    """A parsed JSON number, as its digits."""

    __slots__ = ()


def _parse(text: str) -> object:
    """Parse strictly, keeping numbers as their digits."""
    return json.loads(
        text, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant, object_pairs_hook=_Members
    )


def _no_constant(name: str) -> Never:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _text(value: object) -> str:
    """Return the JSON text of what ``_parse`` returned."""
    match value:
        case _Number():
            return str(value)
        case _Members():
            return "{" + ", ".join(f"{json.dumps(name)}: {_text(member)}" for name, member in value) + "}"
        case list():
            return "[" + ", ".join(_text(item) for item in value) + "]"
        case _:
            return json.dumps(value)
