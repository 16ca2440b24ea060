"""The unit tests: no Ray, no disk, no waiting."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Without its marker a test is refused Ray (tests/conftest.py); here the marker is refused too.
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("ray") is not None:
            msg = f"{item.nodeid} is marked `ray`. Unit tests do not start Ray: move it to tests/integration."
            raise pytest.UsageError(msg)
