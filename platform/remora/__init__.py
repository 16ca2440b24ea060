"""Remora runs millions of small stateful entities on Ray.

Start with ``remora.entity``, the programming model; ``docs/architecture.md`` draws the rest.
"""

from remora.app import App
from remora.client import Client
from remora.connection import connect
from remora.entity import Durable, Entity, Event, EventSourced, Transient, command, query
from remora.errors import (
    CallCycle,
    CannotDrain,
    ClusterUnreachable,
    CommandIdReused,
    ContractError,
    Corrupt,
    DeadlineExceeded,
    HandlerFailed,
    InvalidArgument,
    InvalidId,
    InvalidInput,
    NonDeterministic,
    NotOwner,
    Overloaded,
    PayloadTooLarge,
    PortTaken,
    Quarantined,
    Rejected,
    RemoraError,
    StartError,
    Stopped,
    StoreMismatch,
    StoreUnavailable,
    TooOld,
    TryAgain,
    Unavailable,
    UnknownCommand,
    UnknownEntity,
    UnknownNode,
    Verdict,
)
from remora.local import local
from remora.options import EntityOptions, HostGroup
from remora.settings import Settings
from remora.sharding.allocation import Allocation, External, LeastShards, Move, Pinned, View
from remora.supervision.blame import Blame
from remora.supervision.failure import Failure
from remora.supervision.levels import Supervision
from remora.supervision.readiness import Readiness
from remora.supervision.rules import Backoff, Directive, Rule, on
from remora.supervisor import Supervisor, Terminated
from remora.why import Why

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "App",
    "Backoff",
    "Blame",
    "CallCycle",
    "CannotDrain",
    "Client",
    "ClusterUnreachable",
    "CommandIdReused",
    "ContractError",
    "Corrupt",
    "DeadlineExceeded",
    "Directive",
    "Durable",
    "Entity",
    "EntityOptions",
    "Event",
    "EventSourced",
    "External",
    "Failure",
    "HandlerFailed",
    "HostGroup",
    "InvalidArgument",
    "InvalidId",
    "InvalidInput",
    "LeastShards",
    "Move",
    "NonDeterministic",
    "NotOwner",
    "Overloaded",
    "PayloadTooLarge",
    "Pinned",
    "PortTaken",
    "Quarantined",
    "Readiness",
    "Rejected",
    "RemoraError",
    "Rule",
    "Settings",
    "StartError",
    "Stopped",
    "StoreMismatch",
    "StoreUnavailable",
    "Supervision",
    "Supervisor",
    "Terminated",
    "TooOld",
    "Transient",
    "TryAgain",
    "Unavailable",
    "UnknownCommand",
    "UnknownEntity",
    "UnknownNode",
    "Verdict",
    "View",
    "Why",
    "command",
    "connect",
    "local",
    "on",
    "query",
]
