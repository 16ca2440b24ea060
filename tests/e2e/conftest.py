"""A Ray cluster that is somebody else's: never joined by accident, and what Serve configs are deployed on."""

import shutil
from collections.abc import Iterator

import pytest

from remora.cluster.ray_process import RayProcess, start_ray, stop_ray
from tests.e2e.machine import source_path


@pytest.fixture(scope="package")
def stray() -> Iterator[RayProcess]:
    """A running Ray cluster with nothing of Remora's in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", source_path())
        started = start_ray(4)
    try:
        yield started
    finally:
        stop_ray(started.pid, started.temp_dir)
        shutil.rmtree(started.temp_dir, ignore_errors=True)
