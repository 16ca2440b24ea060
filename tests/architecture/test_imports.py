"""What importing Remora costs, and which way its imports point."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("asyncpg", "fastapi", "pandas", "ray", "ray.serve", "rich", "starlette", "typer")


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_import_remora_loads_neither_ray_nor_any_web_framework() -> None:
    loaded = run(sys.executable, "-c", f"import sys, remora; print(*[m for m in {HEAVY} if m in sys.modules])")

    assert loaded.split() == []


def test_the_test_kit_is_loaded_by_those_who_ask_for_it_and_needs_no_pytest() -> None:
    code = "import sys, remora; print('remora.testing' in sys.modules); import remora.testing; print('pytest' in sys.modules)"

    assert run(sys.executable, "-c", code).split() == ["False", "False"]


def test_the_entities_of_the_first_examples_load_nothing_heavy_either() -> None:
    code = f"import sys, entities.account, entities.counter; print(*[m for m in {HEAVY} if m in sys.modules])"

    assert run(sys.executable, "-c", code).split() == []


def test_platform_is_the_standard_librarys_also_from_the_root_of_the_repository() -> None:
    found = run(sys.executable, "-c", "import platform; print(platform.__file__)")

    assert Path(found.strip()).parent == Path(subprocess.__file__).parent


@pytest.mark.timeout(120)
def test_every_import_contract_is_kept() -> None:
    # Its own process: import-linter changes sys.path and keeps the graph of every package in memory.
    report = run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()")

    assert ", 0 broken" in report
