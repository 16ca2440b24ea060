"""The page about supervision: its Python is executed, and its YAML says the same."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import remora
from remora import HandlerFailed
from remora.config import read_config
from remora.supervision.rules import kinds_of
from tests.docs.test_readme import blocks, execute

PAGE = Path(__file__).parents[2] / "docs" / "supervision.md"


@pytest.fixture
async def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("supervision_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # annotations are resolved in their module
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        await execute(block, module)
    return module


async def test_the_entity_of_the_page_resumes(page: ModuleType) -> None:
    app, shelf_type = page.__dict__["app"], page.__dict__["Shelf"]
    async with remora.local(remora.App(app.name, entities=[shelf_type])) as client:
        shelf = client.ref(shelf_type, "a")
        assert await shelf.take() == 0
        with pytest.raises(HandlerFailed, match="SoldOutError"):
            await shelf.take()


async def test_the_app_of_the_page_starts_in_order(page: ModuleType) -> None:
    app, basket = page.__dict__["baskets"], page.__dict__["Basket"]
    async with remora.local(app) as client:
        assert await client.ref(basket, "a").fill() == "weights"


async def test_the_file_of_the_page_says_what_its_code_says(page: ModuleType) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    app = page.__dict__["app"]

    read = app.configured(read_config(text, "shop.yaml"))

    assert read.supervision.shard == app.supervision.shard
    in_file, in_code = (one.rules["shelf"][0] for one in (read, app))
    assert len(in_file) == len(in_code) == 1
    assert all(rule.matches(kinds_of(page.__dict__["SoldOutError"]())) for rule in (*in_file, *in_code))
