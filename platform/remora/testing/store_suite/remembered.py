"""Entities that are to be activated without being asked: written with a commit, read by shard."""

from __future__ import annotations

import pytest

from remora.errors import Fenced
from remora.journal import Append, Store
from remora.testing.store_suite.rows import HOST, MakeStore, OnAStore, entry, fenced_out


def remembering(*keys: str, shard: str = "3") -> Append:
    """Return an append that remembers entities."""
    return Append(remembered={key: (key, shard) for key in keys})


class RememberedContract(OnAStore):
    """What comes back by itself."""

    async def test_remembered_entities_are_read_by_shard_and_key_page_after_page(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, remembering("b/1", "a/2", "a/10", "Ä/é 😀"))
        await store.append(host, remembering("a/3", shard="4"))
        await store.append(host, remembering("gpu/1", shard="gpu/1"))

        assert await store.remembered(["3"], 10) == ["a/10", "a/2", "b/1", "Ä/é 😀"]
        assert await store.remembered(["3", "4", "gpu/1"], 3) == ["a/10", "a/2", "a/3"]
        assert await store.remembered(["3", "4", "gpu/1"], 3, "a/3") == ["b/1", "gpu/1", "Ä/é 😀"]
        assert await store.remembered(["3"], 10, "Ä/é 😀") == []
        assert await store.remembered(["5"], 10) == await store.remembered([], 10) == []

    async def test_one_that_is_forgotten_is_not_read_and_may_be_remembered_again(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, remembering("a/1", "a/2"))
        await store.append(host, remembering("a/2"))
        await store.append(host, Append(remembered={"a/1": None, "a/2": None, "a/never": None}))
        assert await store.remembered(["3"], 10) == []

        await store.append(host, Append(remembered={"a/1": None, "a/2": ("a/2", "3")}))

        assert await store.remembered(["3"], 10) == ["a/2"]

    async def test_an_append_remembers_and_forgets_with_all_its_other_rows_or_not_at_all(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, Append(entries=[entry("a/1", 1)], remembered={"a/1": ("a/1", "3")}))
        with pytest.raises(Fenced):
            await store.append(host, Append(entries=[entry("a/1", 1)], remembered={"a/1": None, "a/2": ("a/2", "3")}))
        assert await store.remembered(["3"], 10) == ["a/1"]

        await fenced_out(store, host)
        with pytest.raises(Fenced):
            await store.append(host, Append(remembered={"a/1": None}))

        assert await store.remembered(["3"], 10) == ["a/1"]

    async def test_what_is_remembered_is_there_when_the_store_is_opened_again(
        self, store: Store, make_store: MakeStore
    ) -> None:
        host = await store.join(HOST)
        await store.append(host, remembering("a/1"))
        again = make_store()
        await again.open("bank", 8)
        try:
            assert await again.remembered(["3"], 10) == ["a/1"]
        finally:
            await again.close()

    async def test_deleting_an_entity_does_not_make_it_forgotten(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, Append(entries=[entry("a/1", 1)], remembered={"a/1": ("a/1", "3")}))
        await store.append(host, Append(entries=[entry("a/1", 2)], deletions={"a/1": ("a/1", 2, 1)}))

        assert await store.remembered(["3"], 10) == ["a/1"]
