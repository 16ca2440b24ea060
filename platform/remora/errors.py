"""Every error Remora raises, under one root, each with its verdict.

    RemoraError
    ├── Rejected              REJECT    the entity said a business "no"; recorded, so a repeat gets it again
    ├── InvalidInput          REJECT    the request is wrong as written; nothing of it was applied
    │   ├── InvalidArgument             an argument is missing, unknown, of a wrong type or out of range
    │   ├── InvalidId                   an entity id or command id that cannot be one
    │   ├── UnknownEntity               no such entity type in this app
    │   ├── UnknownCommand              the type has no such command or query
    │   ├── PayloadTooLarge             arguments, an event or a state over the stated bound
    │   ├── CommandIdReused             the command id stands for another command already
    │   ├── TooOld                      the command id is older than the type's window
    │   ├── UnknownNode                 no such node or host in this cluster
    │   └── CannotDrain                 nobody else could take what is to be moved away
    ├── ContractError         REJECT    a class or an app breaks the programming contract
    ├── CallCycle             REJECT    a call would wait for itself; the chain is named
    ├── NonDeterministic      REJECT    a command that was run again called others with something else than before
    ├── HandlerFailed         REJECT    the entity's own code raised; its effects vanished
    ├── Corrupt               REJECT    what the store holds for this entity cannot be read
    ├── Stopped               REJECT    supervision stopped this entity
    │   └── Quarantined                 it kept taking its host down, and is held apart
    ├── NotOwner              RELOCATE  the host that was asked does not own the shard (any more)
    │   ├── HostGone                    the host died or cannot be reached; the outcome is unknown
    │   └── NotLeader                   the registry that was asked stands by
    ├── TryAgain              RETRY     the same id again is safe and is expected to work
    │   ├── Overloaded                  a bounded queue is full; says when to come back
    │   ├── Unavailable                 the entity restarts, moves or recovers, or was not sent: its shard has no owner
    │   ├── StoreUnavailable            the store did not take or give the data
    │   ├── OutOfOrder                  an earlier command of the lane has not arrived
    │   └── DeadlineExceeded            the wait ended first; the outcome is unknown, the id is in the error
    ├── Fenced                RELOCATE  this host's incarnation was ended in the store
    └── StartError            REJECT    the platform cannot start or be reached as asked
        ├── StoreMismatch               the store belongs to another app, shard count, machine or release
        ├── ClusterUnreachable          no Ray cluster, registry or gateway answers there
        └── PortTaken                   a port the platform needs is in use

The verdict tells callers, supervision and the HTTP gateway alike what to do next, so that no
part of the system keeps a ladder of ``isinstance`` of its own.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import msgspec


class Verdict(Enum):
    """What the receiver of an error does next."""

    RETRY = "retry"
    """Ask again with the same command id, after ``retry_after_s``."""
    REJECT = "reject"
    """Asking again the same way gives the same answer."""
    RELOCATE = "relocate"
    """Look the owner up again, then ask again with the same command id."""


class ErrorBody(msgspec.Struct, array_like=True):
    """An error as it travels between processes and as it is recorded for repeats."""

    code: str
    message: str
    entity: str = ""
    command_id: str = ""
    retry_after_s: float = 0.0
    details: list[dict[str, Any]] = []


class RemoraError(Exception):
    """Root of all errors of Remora.

    Args:
        message: One sentence that names the fix.
        entity: ``type/id`` of the entity concerned, or empty.
        command_id: Id of the command concerned, or empty.
        retry_after_s: Seconds to wait before asking again; 0 means at once.
        details: One mapping per finding, for errors that hold several (validation).
    """

    code: ClassVar[str] = "remora_error"
    verdict: ClassVar[Verdict] = Verdict.REJECT
    status: ClassVar[int] = 500
    """HTTP status the gateway answers with."""

    def __init__(
        self,
        message: str,
        *,
        entity: str = "",
        command_id: str = "",
        retry_after_s: float = 0.0,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.entity = entity
        self.command_id = command_id
        self.retry_after_s = retry_after_s
        self.details = details or []
        self.repeated = False
        """Whether this is the recorded answer to a command decided before."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle all fields: errors cross process boundaries."""
        return (_rebuild, (type(self), self.body()))

    def body(self) -> ErrorBody:
        """Return the error as plain data."""
        return ErrorBody(self.code, self.message, self.entity, self.command_id, self.retry_after_s, self.details)

    def encode(self) -> bytes:
        """Return the error as the bytes that travel in an answer."""
        return msgspec.json.encode(self.body())


def _rebuild(cls: type[RemoraError], body: ErrorBody) -> RemoraError:
    return cls(
        body.message,
        entity=body.entity,
        command_id=body.command_id,
        retry_after_s=body.retry_after_s,
        details=body.details,
    )


class Rejected(RemoraError):  # noqa: N818 - the glossary's word; a business "no" is not a fault
    """A business "no" of an entity: raise it in a command; callers get the message."""

    code, status = "rejected", 409


class InvalidInput(RemoraError):  # noqa: N818 - reads as the field's standard term
    """The request is wrong as written; nothing of it was applied."""

    code, status = "invalid_input", 400


class InvalidArgument(InvalidInput):
    """An argument is missing, unknown, of a wrong type or out of range."""

    code, status = "invalid_argument", 422


class InvalidId(InvalidInput):
    """An entity id or command id that cannot be one."""

    code, status = "invalid_id", 400


class UnknownEntity(InvalidInput):
    """The app has no entity type of this name."""

    code, status = "unknown_entity", 404


class UnknownCommand(InvalidInput):
    """The entity type has no command or query of this name."""

    code, status = "unknown_command", 404


class PayloadTooLarge(InvalidInput):
    """Arguments, an event or a state exceed the stated bound."""

    code, status = "payload_too_large", 413


class CommandIdReused(InvalidInput):
    """The command id was given to another command, or the same with other arguments; nothing was applied.

    Status 422 as in the IETF draft of the Idempotency-Key header.
    """

    code, status = "command_id_reused", 422


class TooOld(InvalidInput):
    """The command id is older than the window in which repeats are recognised."""

    code, status = "too_old", 409


class UnknownNode(InvalidInput):
    """There is no such node or host; the message lists those there are."""

    code, status = "unknown_node", 404


class CannotDrain(InvalidInput):
    """Nobody else could take what is to be moved away; nothing was moved."""

    code, status = "cannot_drain", 409


class ContractError(RemoraError):
    """A class or an app breaks the programming contract; raised when it is defined."""

    code, status = "contract_error", 500


class CallCycle(RemoraError):  # noqa: N818 - named in the public contract
    """A call between entities would wait for itself; the message names the chain."""

    code, status = "call_cycle", 409


class NonDeterministic(RemoraError):  # noqa: N818 - named in the public contract
    """A command that was run again, after a crash or a failure, made its n-th call with something else than before.

    Its calls have ids of their own, so that a second run gets the answers of the first. Take what
    decides about a call from state, arguments and ``self.now()``, or ask for it in an earlier call.
    """

    code, status = "non_deterministic", 500


class HandlerFailed(RemoraError):  # noqa: N818 - states what happened
    """The entity's own code raised; the command left no effect."""

    code, status = "handler_failed", 500


class Corrupt(RemoraError):  # noqa: N818 - named in the public contract
    """What the store holds for this entity cannot be read."""

    code, status = "corrupt", 500


class Stopped(RemoraError):  # noqa: N818 - states what happened
    """Supervision stopped this entity; it stays stopped until its host restarts."""

    code, status = "stopped", 503


class Quarantined(Stopped):
    """The entity, or this command of it, kept taking its host down; it is held apart until an operator releases it.

    Other entities go on. ``remora quarantine show`` says what happened, ``remora quarantine release`` lets it run again.
    """

    code = "quarantined"


class NotOwner(RemoraError):  # noqa: N818 - named in the public contract
    """The host that was asked does not own the entity's shard (any more)."""

    code, status, verdict = "not_owner", 503, Verdict.RELOCATE


class HostGone(NotOwner):
    """The host died or cannot be reached; what it did with the command is unknown."""

    code = "host_gone"


class NotLeader(NotOwner):
    """The registry that was asked stands by: another one leads, or is about to."""

    code = "not_leader"


class TryAgain(RemoraError):  # noqa: N818 - states what to do
    """Asking again with the same command id is safe and expected to work."""

    code, status, verdict = "try_again", 503, Verdict.RETRY


class Overloaded(TryAgain):
    """A bounded queue is full; come back after ``retry_after_s``."""

    code, status = "overloaded", 429


class Unavailable(TryAgain):
    """The entity restarts, moves or recovers, or the command was not sent until its deadline, for want of an owner of its shard."""

    code = "unavailable"


class StoreUnavailable(TryAgain):
    """The store did not take or give the data in time."""

    code = "store_unavailable"


class OutOfOrder(TryAgain):
    """An earlier command of the same lane has not arrived; re-send the lane in order."""

    code = "out_of_order"


class DeadlineExceeded(TryAgain):
    """The wait ended before the answer; asking again with ``command_id`` is safe."""

    code, status = "deadline_exceeded", 504


class Fenced(RemoraError):  # noqa: N818 - the field's standard term
    """This host's incarnation was ended in the store; nothing of the append was written."""

    code, status, verdict = "fenced", 503, Verdict.RELOCATE


class StartError(RemoraError):
    """The platform cannot start or be reached as asked."""

    code, status = "start_error", 503


class StoreMismatch(StartError):  # noqa: N818 - named in the public contract
    """The store belongs to another app, shard count, machine or release."""

    code = "store_mismatch"


class ClusterUnreachable(StartError):  # noqa: N818 - named in the public contract
    """No Ray cluster, registry or gateway answers at that address."""

    code = "cluster_unreachable"


class PortTaken(StartError):  # noqa: N818 - named in the public contract
    """A port the platform needs is in use by another process."""

    code = "port_taken"


def _tree(root: type[RemoraError]) -> dict[str, type[RemoraError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


BY_CODE: dict[str, type[RemoraError]] = _tree(RemoraError)
"""Error class by wire code."""

_decode_body = msgspec.json.Decoder(ErrorBody).decode


def decode_error(data: bytes | str) -> RemoraError:
    """Return the error that ``RemoraError.encode`` made ``data`` from."""
    body = _decode_body(data)
    return _rebuild(BY_CODE.get(body.code, RemoraError), body)
