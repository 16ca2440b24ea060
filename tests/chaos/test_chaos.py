"""Chaos under load: everything that a cluster can do to its entities, and a witness outside of it who judges.

It runs as `make chaos` does, in a process of its own: that one joins a cluster of several nodes.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SEED

SLOW_MINUTES = 2.0


def chaos(folder: Path, *options: str) -> str:
    """Run the chaos; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--folder", str(folder), *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(420)
def test_55_a_host_a_node_a_frozen_node_the_registry_and_the_store_fail_under_load_and_every_promise_is_kept(
    tmp_path: Path,
) -> None:
    print(chaos(tmp_path, "--short"))  # noqa: T201 - shown with -s


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_56_everything_fails_again_and_again_under_load_for_minutes_and_every_promise_is_kept(tmp_path: Path) -> None:
    print(chaos(tmp_path, "--minutes", str(SLOW_MINUTES)))  # noqa: T201 - shown with -s
