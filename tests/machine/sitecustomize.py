"""Gives the processes of one node a machine of their own in Remora's eyes.

The nodes of a test share a kernel, and with it the boot id that tells machines apart: the registry
would end a host of a frozen node by its pid, which nobody can do across machines. Python imports a
module of this name when it starts, where its folder is on PYTHONPATH; ``REMORA_TEST_MACHINE`` is
the name of the machine.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

WHERE = "remora.process"


class MachineName(MetaPathFinder):
    """Has ``remora.process.machine_identity`` answer with a given name, from the moment it is imported."""

    def __init__(self, machine: str) -> None:
        self.machine = machine

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as the finders behind this one do."""
        del path, target
        if fullname != WHERE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_name(module: ModuleType) -> None:
            run(module)
            assert callable(module.machine_identity)  # of that name, or this would give nobody a machine
            module.machine_identity = lambda: self.machine  # type: ignore[attr-defined]  # a module's attribute

        spec.loader.exec_module = run_and_name  # type: ignore[method-assign]  # this one loader's, not the class's
        return spec


if machine := os.environ.get("REMORA_TEST_MACHINE"):
    sys.meta_path.insert(0, MachineName(machine))
