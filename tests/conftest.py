"""What holds for every test: no Ray unless marked, a seed that is printed, Ray's own settings."""

import importlib.util
import os
import random
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from types import ModuleType
from typing import Any

import hypothesis
import pytest

# Ray reads its environment when it is imported, its daemons when they start: both are later than this.
# Token files belong to a person's home; a test's cluster listens on the loopback address and lives for minutes.
os.environ["RAY_AUTH_MODE"] = "disabled"
# Nobody should be counted as a user for running tests, and there may be no network.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

SEED = int(os.environ.get("REMORA_TEST_SEED") or random.SystemRandom().getrandbits(32))

# Slow machines must not fail a property; a failure prints what repeats it.
hypothesis.settings.register_profile("remora", deadline=None, print_blob=True)
hypothesis.settings.load_profile("remora")


class RayGuard(MetaPathFinder):
    """Makes ``ray.init`` raise in tests that are not marked ``ray``.

    It wraps ``ray.init`` the moment somebody imports Ray, so that tests which never touch Ray do
    not pay for its import.
    """

    def __init__(self) -> None:
        self.allowed = False

    def install(self) -> None:
        """Guard Ray, imported already or not."""
        if "ray" in sys.modules:
            self._wrap(sys.modules["ray"])
        else:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find Ray as the finders behind this one do, and wrap ``init`` once it is loaded."""
        del path, target
        if fullname != "ray":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_wrap(module: ModuleType) -> None:
                run(module)
                self._wrap(module)

            spec.loader.exec_module = run_and_wrap  # type: ignore[method-assign]  # this one loader's, not the class's
        return spec

    def _wrap(self, ray: ModuleType) -> None:
        real: Callable[..., Any] = ray.init

        def init(*args: object, **kwargs: object) -> object:
            if not self.allowed:
                # Not an Exception: no `except Exception` of the code under test may swallow it.
                pytest.fail("Unit tests do not start Ray. A test that needs a cluster is marked @pytest.mark.ray.")
            return real(*args, **kwargs)

        ray.init = init  # type: ignore[attr-defined]  # a module's attribute


_guard = RayGuard()
_guard.install()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # A hook and not a fixture: session fixtures that start a cluster are set up before any function's.
    _guard.allowed = item.get_closest_marker("ray") is not None


def pytest_report_header() -> str:
    return f"ray {version('ray')}, seed {SEED} (REMORA_TEST_SEED={SEED} draws the same again)"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Randomness that a printed seed repeats, the same whichever other tests run."""
    return random.Random(f"{SEED} {request.node.nodeid}")
