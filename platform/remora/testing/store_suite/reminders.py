"""Reminders: set, replaced, cancelled, and read in order when they are due."""

from __future__ import annotations

from remora.journal import Append, ReminderRow, ReminderSet, Store
from remora.testing.store_suite.rows import HOST, OnAStore


def timers(*rows: ReminderSet) -> Append:
    """Return an append that sets reminders."""
    return Append(reminders={(row[0], row[1]): row for row in rows})


class ReminderContract(OnAStore):
    """Durable timers."""

    async def test_reminders_are_replaced_cancelled_and_listed_when_due(self, store: Store) -> None:
        host = await store.join(HOST)
        first = {("a/1", name): ("a/1", name, "3", due, 0, 0) for name, due in (("x", 300), ("y", 100), ("z", 200))}
        await store.append(host, Append(reminders={**first, ("a/2", "x"): ("a/2", "x", "4", 1, 0, 0)}))
        await store.append(host, Append(reminders={("a/1", "x"): ("a/1", "x", "3", 50, 0, 0), ("a/1", "z"): None}))

        assert [(row.name, row.due) for row in await store.due(["3"], 1_000, 10)] == [("x", 50), ("y", 100)]
        assert [row.name for row in await store.due(["3"], 99, 10)] == ["x"]
        assert [row.name for row in await store.due(["3"], 1_000, 1)] == ["x"]
        assert [row.entity for row in await store.due(["4"], 1_000, 10)] == ["a/2"]
        assert await store.due([], 1_000, 10) == []

    async def test_cancelling_a_reminder_that_does_not_exist_is_no_error(self, store: Store) -> None:
        host = await store.join(HOST)

        await store.append(host, Append(reminders={("a/1", "x"): None}))

        assert await store.due(["3"], 1_000, 10) == []

    async def test_due_reminders_come_by_time_then_entity_then_name_page_after_page(self, store: Store) -> None:
        host = await store.join(HOST)
        keys = [
            (20, "a/1", "x"),
            (10, "b/1", "y"),
            (10, "b/1", "x"),
            (10, "a/2", "z"),
            (10, "a/10", "z"),
            (30, "a/1", "w"),
        ]
        await store.append(host, timers(*((entity, name, "3", due, 0, 0) for due, entity, name in keys)))
        ordered = sorted(keys)[:-1]

        found, after = [], (-1, "", "")
        while page := await store.due(["3"], 20, 2, after):
            assert len(page) <= 2
            after = (page[-1].due, page[-1].entity, page[-1].name)
            found += [(row.due, row.entity, row.name) for row in page]

        assert found == ordered
        assert [row.name for row in await store.due(["3"], 20, 9, (10, "b/1", "x"))] == ["y", "x"]
        assert await store.due(["3"], 20, 9, (20, "a/1", "x")) == []
        assert await store.due(["3"], 20, 0) == []

    async def test_a_reminder_is_due_from_its_millisecond_on(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, timers(("a/1", "x", "3", 1_000, 0, 0)))

        assert await store.due(["3"], 999, 9) == []
        assert len(await store.due(["3"], 1_000, 9)) == 1

    async def test_period_and_misfire_policy_come_back_and_are_replaced_with_the_rest(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, timers(("a/1", "x", "3", 10, 86_400_000, 2), ("a/1", "y", "3", 11, 0, 0)))
        assert await store.due(["3"], 99, 9) == [
            ReminderRow("a/1", "x", 10, 86_400_000, 2),
            ReminderRow("a/1", "y", 11, 0, 0),
        ]

        await store.append(host, timers(("a/1", "x", "3", 12, 5_000, 1), ("a/1", "y", "3", 13, 2**40, 0)))

        assert await store.due(["3"], 99, 9) == [
            ReminderRow("a/1", "x", 12, 5_000, 1),
            ReminderRow("a/1", "y", 13, 2**40, 0),
        ]

    async def test_reminders_of_shards_that_are_not_asked_for_stay_where_they_are(self, store: Store) -> None:
        host = await store.join(HOST)
        rows: list[ReminderSet] = [
            ("a/1", "x", "3", 10, 0, 0),
            ("a/2", "x", "4", 11, 0, 0),
            ("a/3", "x", "a/3", 12, 0, 0),
        ]
        await store.append(host, timers(*rows))

        assert [row.entity for row in await store.due(["4", "a/3"], 99, 9)] == ["a/2", "a/3"]
        assert [row.entity for row in await store.due(["4", "3"], 99, 1)] == ["a/1"]
