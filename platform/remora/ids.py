"""Names and ids: validated once at the edge, plain strings inside."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from remora.errors import InvalidId

ENTITY_ID_BYTES_MAX = 512
"""Longest entity id, in UTF-8 bytes. Ids are keys in the journal and in URLs; 512 leaves room in both."""
SEND_DIGITS_MAX = 18
"""Digits of a durable send's number at most: what 64 bits hold in any case."""
COMMAND_ID_BYTES_MAX = 256
"""Longest command id, in UTF-8 bytes (an Idempotency-Key is usually a UUID of 36)."""

_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TIME_ORDERED = re.compile(r"^r[0-9a-v]{10}-[0-9a-v]{16}$")
_SPACE, _DELETE = 0x20, 0x7F
_BASE32 = "0123456789abcdefghijklmnopqrstuv"
_decode = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def snake_case(name: str) -> str:
    """Return a class name as the entity type: ``FlightPlan`` → ``flight_plan``."""
    return _WORD_BREAK.sub("_", name).lower()


def check_entity_id(entity_id: object, entity_type: str = "") -> str:
    """Return ``entity_id`` if it can be one.

    An id is a non-empty Unicode text of at most 512 UTF-8 bytes without ``/`` (it separates type
    and id), control characters (NUL among them) or unpaired surrogates. ``.`` and ``..`` are
    refused because HTTP clients rewrite them in paths.

    Raises:
        InvalidId: With what is wrong and how to mend it.
    """
    where = f" of {entity_type}" if entity_type else ""
    if not isinstance(entity_id, str):
        msg = f"The id{where} must be a str, not {type(entity_id).__name__}: convert it, for example with str(...)."
        raise InvalidId(msg)
    if entity_id.isascii() and entity_id.isalnum() and len(entity_id) <= ENTITY_ID_BYTES_MAX:
        return entity_id
    if not entity_id:
        msg = f"The id{where} is empty: give the entity a name."
        raise InvalidId(msg)
    if entity_id in {".", ".."}:
        msg = f"The id{where} cannot be {entity_id!r}, which URLs resolve as a folder: choose another."
        raise InvalidId(msg)
    if "/" in entity_id:
        msg = f"The id{where} holds '/', which separates type and id: use another separator, such as '-' or ':'."
        raise InvalidId(msg)
    if any(ord(character) < _SPACE or ord(character) == _DELETE for character in entity_id):
        msg = f"The id{where} holds a control character (NUL, line break, …): remove it."
        raise InvalidId(msg)
    _check_length(entity_id, ENTITY_ID_BYTES_MAX, f"The id{where}")
    return entity_id


def check_command_id(command_id: object) -> str:
    """Return ``command_id`` if it can be one: printable text of 1 to 256 UTF-8 bytes, no ``>``.

    ``>`` marks the ids that the outbox makes (sender ``>`` number).

    Raises:
        InvalidId: With what is wrong and how to mend it.
    """
    if not isinstance(command_id, str) or not command_id:
        msg = "A command id must be a non-empty str: leave it out and Remora makes one."
        raise InvalidId(msg)
    if ">" in command_id or not command_id.isprintable():
        msg = "A command id may hold printable characters other than '>': use a UUID, for example."
        raise InvalidId(msg)
    _check_length(command_id, COMMAND_ID_BYTES_MAX, "The command id")
    return command_id


def send_of(command_id: str) -> tuple[str, int] | None:
    """Return sender and number if a recorded id is that of a durable send: only the outbox makes such ids."""
    sender, mark, number = command_id.rpartition(">")
    if not mark or not number.isdecimal() or len(number) > SEND_DIGITS_MAX:
        return None
    return sender, int(number)


def _check_length(text: str, bytes_max: int, what: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        msg = f"{what} holds an unpaired surrogate, which no UTF-8 text can: decode the text properly first."
        raise InvalidId(msg) from error
    if size > bytes_max:
        msg = f"{what} has {size} bytes in UTF-8, {bytes_max} are allowed: use a shorter one, such as a hash."
        raise InvalidId(msg)


def _base32(value: int, digits: int) -> str:
    out = []
    for _ in range(digits):
        out.append(_BASE32[value & 31])
        value >>= 5
    return "".join(reversed(out))


_PAIRS = [_base32(value, 2) for value in range(1024)]


class CommandIds:
    """Makes time-ordered command ids: ``r`` + milliseconds + ``-`` + 60 random bits + a count of 20 bits.

    The layout follows UUIDv7 (RFC 9562 §5.7): ids sort by the time they were made, which lets an
    entity refuse an id older than its window without having kept it.

    Args:
        now_ms: Wall-clock milliseconds.
        entropy: Gives that many random bytes.
    """

    def __init__(self, now_ms: Callable[[], int], entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._now_ms = now_ms
        self._entropy = entropy
        self._random = ""
        self._count = 0
        self._at_ms = -1
        self._time = ""

    def next(self) -> str:
        """Return a new id."""
        count = self._count = (self._count + 1) & 0xFFFFF
        if count == 1 or not self._random:
            self._random = _base32(int.from_bytes(self._entropy(8), "big") >> 4, 12)
        at_ms = self._now_ms()
        if at_ms != self._at_ms:
            self._at_ms, self._time = at_ms, f"r{_base32(at_ms, 10)}-"
        return f"{self._time}{self._random}{_PAIRS[count >> 10]}{_PAIRS[count & 0x3FF]}"


def made_at_ms(command_id: str) -> int | None:
    """Return when Remora made ``command_id`` (milliseconds), or None for a caller's own id."""
    if len(command_id) != 28 or _TIME_ORDERED.match(command_id) is None:  # noqa: PLR2004 - 'r' + 10 + '-' + 16
        return None
    return int(command_id[1:11], 32)


def fingerprint(method: str, args: bytes) -> int:
    """Return what tells one request from another: a hash of method and arguments, as signed 64 bits, never 0.

    Two spellings of the same JSON values (order of names, white space) have one fingerprint; an
    argument left out and the same one given with its default have two.

    Args:
        method: The command.
        args: Its arguments as JSON; what is none is taken as it is written.
    """
    try:
        plain = _encode_sorted(_decode(args)) if args and args != b"{}" else b"{}"
    except (ValueError, RecursionError):
        plain = args
    digest = blake2b(b"%b\0%b" % (method.encode(), plain), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1
