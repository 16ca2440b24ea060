"""For tests of entities and of stores: nothing here is needed at run time, and nothing at run time imports it.

* ``EntityKit`` runs one entity without a platform; see ``docs/testing.md``.
* ``FaultyStore`` wraps a store and makes it fail on demand; ``ManualClock`` stands still until it
  is advanced. Both go into ``remora.local(app, store=…, clock=…)``.
* ``remora.testing.store_suite`` holds the tests that every store must pass; it needs pytest.
"""

from remora.testing.clock import ManualClock
from remora.testing.faults import Fault, FaultyStore
from remora.testing.kit import EntityKit, KitClock, Outcome, Reminder
from remora.testing.outside import Message, UnansweredCall, message
from remora.testing.watch import EffectMismatch, RoundTripMismatch

__all__ = [
    "EffectMismatch",
    "EntityKit",
    "Fault",
    "FaultyStore",
    "KitClock",
    "ManualClock",
    "Message",
    "Outcome",
    "Reminder",
    "RoundTripMismatch",
    "UnansweredCall",
    "message",
]
