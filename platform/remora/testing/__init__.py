"""For tests of entities and of stores: nothing here is needed at run time, and nothing at run time imports it.

* ``EntityKit`` runs one entity without a platform; see ``docs/testing.md``.
* ``FaultyStore`` wraps a store and makes it fail on demand; ``ManualClock`` stands still until it
  is advanced. Both go into ``remora.local(app, store=…, clock=…)``.
* ``remora.testing.store_suite`` holds the tests that every store must pass; it needs pytest.
"""

from remora.testing.clock import ManualClock
from remora.testing.faults import Fault, FaultyStore

__all__ = ["Fault", "FaultyStore", "ManualClock"]
