"""One Ray cluster for all integration tests, and the figures they saw."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from remora.cluster import bootstrap
from remora.cluster.ray_process import RayProcess, start_ray, stop_ray

Figure = Callable[[str, float], None]
_figures: list[str] = []


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayProcess]:
    """Ray, started as `remora up` starts it; it takes ten seconds, so all tests share it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("REMORA_HOME", str(tmp_path_factory.mktemp("home")))
    patch.setenv("PYTHONPATH", os.pathsep.join((str(Path("platform").absolute()), str(Path.cwd()))))
    # Hosts ask for a CPU each; tests that follow each other may overlap while processes end.
    started = start_ray(16)
    # Where the state API asks: it would guess, or refuse to when other clusters run on this machine.
    patch.setenv("RAY_API_SERVER_ADDRESS", started.dashboard_url)
    try:
        bootstrap.join_ray(started.address)
        yield started
    finally:
        ray.shutdown()
        stop_ray(started.pid, started.temp_dir)
        shutil.rmtree(started.temp_dir, ignore_errors=True)
        patch.undo()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Note a measured time in seconds: printed at the end, whether captured or not."""

    def note(what: str, seconds: float) -> None:
        _figures.append(f"{request.node.name}: {what} {seconds:.3f} s")

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("figures seen (not promises: the machine may be busy)")
        for line in _figures:
            terminalreporter.line(line)
