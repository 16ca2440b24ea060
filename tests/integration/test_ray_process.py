"""Stopping a cluster by its record, when the record is stale. No cluster is needed for that."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remora.cluster.ray_process import runs, stop_ray
from tests.integration.running import alive, until

WAITS = "import signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[str]]:
    """Somebody's process, which leads a session of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_pid_that_was_given_anew_is_not_stopped(bystander: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = str(tmp_path / "remora-gone")

    assert not runs(bystander.pid, folder)
    stop_ray(bystander.pid, folder)

    assert bystander.poll() is None


def test_a_cluster_of_which_nothing_is_left_is_stopped_without_complaint(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert not alive(ended.pid)
    assert not runs(ended.pid, str(tmp_path))
    stop_ray(ended.pid, str(tmp_path / "remora-gone"))


@pytest.fixture
def orphan() -> tuple[int, int]:
    """A session's first process, which has ended, and one that it left behind."""
    start = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {WAITS!r}]).pid, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", start], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as first:
        assert first.stdout is not None
        left = int(first.stdout.readline())
    return first.pid, left


async def test_what_is_left_of_a_cluster_whose_first_process_died_is_stopped(
    orphan: tuple[int, int], tmp_path: Path
) -> None:
    first, left = orphan
    assert alive(left)

    stop_ray(first, str(tmp_path / "remora-left"))

    await until(lambda: not alive(left), 5.0, "what was left has ended")
