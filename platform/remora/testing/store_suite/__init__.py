"""The tests that every store must pass: for authors of a store, whatever it is built on.

Subclass ``StoreContract`` in a test module and say how to make the store::

    from remora.testing.store_suite import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "bank.db")

``make_store`` returns a function that returns a store object, not opened, on data that is empty at
the beginning of each test; called again in the same test, it returns another object on the same data.
Its parts, ``JournalContract`` and so on, can be subclassed one by one while a store is being written.

Needs pytest and pytest-asyncio. Stores that pass keep every rule that Remora's guarantees stand on.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in ("failures", "journal", "membership", "outbox", "remembered", "reminders", "rows", "snapshots")
    )
)

from remora.testing.store_suite.failures import FailureContract  # noqa: E402 - after their assertions are registered
from remora.testing.store_suite.journal import JournalContract  # noqa: E402 - as above
from remora.testing.store_suite.membership import MembershipContract  # noqa: E402 - as above
from remora.testing.store_suite.outbox import OutboxContract  # noqa: E402 - as above
from remora.testing.store_suite.remembered import RememberedContract  # noqa: E402 - as above
from remora.testing.store_suite.reminders import ReminderContract  # noqa: E402 - as above
from remora.testing.store_suite.rows import MakeStore  # noqa: E402 - as above
from remora.testing.store_suite.snapshots import SnapshotContract  # noqa: E402 - as above

__all__ = [
    "FailureContract",
    "JournalContract",
    "MakeStore",
    "MembershipContract",
    "OutboxContract",
    "RememberedContract",
    "ReminderContract",
    "SnapshotContract",
    "StoreContract",
]


class StoreContract(
    JournalContract,
    SnapshotContract,
    ReminderContract,
    RememberedContract,
    OutboxContract,
    FailureContract,
    MembershipContract,
):
    """All of the port ``remora.journal.Store``."""
