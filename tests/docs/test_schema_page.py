"""docs/schema.md: its Python runs as written, top to bottom, each block as the next release of one app."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from remora.cli.main import app, schema
from tests.docs.test_readme import blocks, execute

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"


async def test_the_releases_on_the_page_read_each_other_as_it_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = ModuleType("schema_page")
    monkeypatch.chdir(tmp_path)  # its store belongs to this run
    monkeypatch.setitem(sys.modules, module.__name__, module)  # annotations are resolved in their module
    found = blocks(PAGE.read_text(encoding="utf-8"))

    assert len(found) == 3
    for block in found:
        await execute(block, module)


def test_the_commands_on_the_page_exist() -> None:
    named = set(re.findall(r"^remora schema (\w+)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    (group,) = [one for one in app.registered_groups if one.typer_instance is schema]

    assert group.typer_instance is not None
    known = {getattr(one.callback, "__name__", "") for one in group.typer_instance.registered_commands}
    assert named == known
