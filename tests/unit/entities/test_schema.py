"""The apps that ship can read what their committed descriptions say was written, and these are up to date."""

from pathlib import Path

import pytest

from remora.app import load_app
from remora.schema.compare import compare, incompatible
from remora.schema.describe import describe, from_text

DESCRIPTIONS = Path(__file__).parents[3] / "entities" / "schema"
APPS = {"bank": "entities.account:app", "counters": "entities.counter:app", "flights": "entities.flights:app"}


def test_every_app_that_ships_has_a_description_and_every_description_an_app() -> None:
    assert sorted(path.stem for path in DESCRIPTIONS.iterdir()) == sorted(APPS)


@pytest.mark.parametrize("name", APPS)
def test_the_app_reads_all_that_its_description_allows_and_is_described_by_it(name: str) -> None:
    path = DESCRIPTIONS / f"{name}.json"
    kept, app = from_text(path.read_text(encoding="utf-8"), str(path)), describe(load_app(APPS[name]))

    assert incompatible(compare(kept, app)) == []
    kept.pop("history", None)
    assert kept == app, f"write it anew: remora schema write {APPS[name]} --file entities/schema/{path.name}"
