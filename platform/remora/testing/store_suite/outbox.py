"""Durable sends: owed until delivered or given up."""

from __future__ import annotations

import pytest

from remora.errors import Fenced
from remora.journal import Append, Store
from remora.sharding.table import ShardRow
from remora.testing.store_suite.rows import HOST, OnAStore


class OutboxContract(OnAStore):
    """The outbox, and what was parked."""

    async def test_the_outbox_lists_undelivered_sends_of_the_asked_shards_oldest_first_per_entity(
        self, store: Store
    ) -> None:
        host = await store.join(HOST)
        rows = [("a/1", 2, "3", b"[2]"), ("a/1", 1, "3", b"[1]"), ("a/2", 1, "4", b"[1]"), ("a/1", 10, "3", b"[10]")]
        await store.append(host, Append(outbox=rows))

        assert [(row.entity, row.n) for row in await store.outbox(["3", "5"], 10)] == [
            ("a/1", 1),
            ("a/1", 2),
            ("a/1", 10),
        ]
        assert [(row.entity, row.n) for row in await store.outbox(["3", "4"], 2)] == [("a/1", 1), ("a/1", 2)]
        assert await store.outbox([], 10) == []

    async def test_delivered_sends_leave_the_outbox_and_parked_ones_are_counted_apart(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, Append(outbox=[("a/1", n, "3", b"[]") for n in (1, 2, 3)]))
        assert await store.outbox_counts() == (3, 0)

        await store.append(
            host, Append(delivered=[("a/1", 1), ("a/9", 1)], parked=[("no such command", b"[]", "a/1", 2)])
        )

        assert [row.n for row in await store.outbox(["3"], 10)] == [3]
        assert await store.outbox_counts() == (1, 1)

    async def test_a_fenced_incarnation_cannot_take_sends_out_of_the_outbox(self, store: Store) -> None:
        host, other = await store.join(HOST), await store.join(HOST)
        await store.append(host, Append(outbox=[("a/1", 1, "3", b"[]")]))
        await store.write_table(await store.lead(), 1, [host], {"3": ShardRow(other, 2)})

        with pytest.raises(Fenced):
            await store.append(host, Append(delivered=[("a/1", 1)]))

        assert [row.n for row in await store.outbox(["3"], 10)] == [1]

    async def test_parked_sends_are_listed_with_their_reason_and_only_what_failed_of_them(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(
            host, Append(outbox=[("b/1", 1, "3", b"[1,2]"), ("a/1", 10, "4", b"[3]"), ("a/1", 2, "3", b"[4]")])
        )
        failed = [
            ("it raised: \"ä\" 'x'", b"[2]", "b/1", 1),
            ("no such type", b"[3]", "a/1", 10),
            ("why", b"[]", "a/1", 2),
        ]
        await store.append(host, Append(parked=failed))

        assert [(row.entity, row.n, row.reason, row.sends) for row in await store.parked(9)] == [
            ("a/1", 2, "why", "[]"),
            ("a/1", 10, "no such type", "[3]"),
            ("b/1", 1, "it raised: \"ä\" 'x'", "[2]"),
        ]
        assert [row.n for row in await store.parked(1)] == [2]
        assert await store.parked(0) == []
        assert [row.n for row in await store.parked(9, "a/1")] == [2, 10]
        assert await store.parked(9, "a/9") == []
        assert await store.outbox(["3", "4"], 9) == [], "they are not tried any more"

    async def test_parked_sends_can_be_done_with_and_what_is_not_in_the_outbox_cannot_be_parked(
        self, store: Store
    ) -> None:
        host = await store.join(HOST)
        await store.append(host, Append(outbox=[("a/1", 1, "3", b"[1]"), ("a/1", 2, "3", b"[2]")]))
        await store.append(host, Append(parked=[("why", b"[1]", "a/1", 1), ("why", b"[9]", "a/9", 9)]))
        assert await store.outbox_counts() == (1, 1)

        await store.append(host, Append(delivered=[("a/1", 1)]))

        assert await store.parked(9) == []
        assert await store.outbox_counts() == (1, 0)

    async def test_a_send_that_was_parked_and_is_owed_again_is_tried_again(self, store: Store) -> None:
        host = await store.join(HOST)
        await store.append(host, Append(outbox=[("a/1", 1, "3", b"[1,2]")]))
        await store.append(host, Append(parked=[("why", b"[2]", "a/1", 1)]))

        await store.append(host, Append(delivered=[("a/1", 1)]))
        await store.append(host, Append(outbox=[("a/1", 5, "3", b"[2]")]))

        assert [(row.n, row.sends) for row in await store.outbox(["3"], 9)] == [(5, "[2]")]
        assert await store.outbox_counts() == (1, 0)

    @pytest.mark.parametrize("limit", [0, 1, 2, 3, 99])
    async def test_the_outbox_is_listed_up_to_a_limit(self, store: Store, limit: int) -> None:
        host = await store.join(HOST)
        await store.append(host, Append(outbox=[("a/1", n, "3", b"[]") for n in (1, 2, 3)]))

        assert [row.n for row in await store.outbox(["3"], limit)] == [1, 2, 3][:limit]
