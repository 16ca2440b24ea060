"""The page about testing: its Python is executed, and the tests in it are run."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.test_readme import blocks, execute

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.fixture
async def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("testing_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # annotations are resolved in their module
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        await execute(block, module)
    return module


async def test_the_tests_of_the_page_pass(page: ModuleType) -> None:
    tests = {name: value for name, value in vars(page).items() if name.startswith("test_")}

    assert len(tests) >= 6
    for test in tests.values():
        await test()


async def test_the_store_suite_of_the_page_is_ready_to_run(page: ModuleType) -> None:
    suite = page.__dict__["TestMyStore"]

    assert len([name for name in dir(suite) if name.startswith("test_")]) > 60
    assert suite.make_store is not page.__dict__["StoreContract"].make_store
