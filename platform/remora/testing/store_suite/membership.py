"""Hosts, shards, leases and leaders; opening, and what survives it."""

from __future__ import annotations

import pytest

from remora.errors import Fenced, StoreMismatch, StoreUnavailable
from remora.journal import Append, Span, Store
from remora.sharding.table import HostRow, ShardRow
from remora.testing.store_suite.rows import APP, HOST, SHARDS, MakeStore, OnAStore, entry, loaded, numbers


class MembershipContract(OnAStore):
    """Who may write what, and whose store it is."""

    async def test_a_fenced_incarnation_can_neither_release_shards_nor_go_on_as_a_new_one(self, store: Store) -> None:
        host, other = await store.join(HOST), await store.join(HOST)
        await store.write_table(await store.lead(), 1, [host], {"3": ShardRow(other, 2)})

        with pytest.raises(Fenced):
            await store.release(host, ["3"])
        with pytest.raises(Fenced):
            await store.reincarnate(host)

        assert (await store.read_table()).shards == {"3": ShardRow(other, 2)}

    async def test_every_incarnation_is_higher_than_any_before_also_after_fencing(self, store: Store) -> None:
        first, second = await store.join(HOST), await store.join(HOST)
        await store.write_table(await store.lead(), 1, [first, second], {})

        third = await store.join(HOST)
        fourth = await store.reincarnate(third)

        assert 0 < first < second < third < fourth

    async def test_the_table_shows_the_hosts_that_stand_and_who_owns_what(self, store: Store) -> None:
        first, second = await store.join(HOST), await store.join(HostRow(0, "host-2", dedicated="a/1"))

        await store.write_table(
            await store.lead(), 5, [first], {"0": ShardRow(second, 1), "1": ShardRow(0, 3), "a/1": ShardRow(second, 1)}
        )

        table = await store.read_table()
        assert table.version == 5
        assert table.hosts == {second: HostRow(second, "host-2", dedicated="a/1")}
        assert table.shards == {"0": ShardRow(second, 1), "1": ShardRow(0, 3), "a/1": ShardRow(second, 1)}

    async def test_what_a_host_said_about_itself_when_it_joined_comes_back(self, store: Store) -> None:
        number = await store.join(HOST)

        row = (await store.read_table()).hosts[number]

        assert (row.name, row.node, row.machine, row.pid, row.started) == ("host-1", "n", "m", 7, 1.5)

    async def test_a_host_keeps_its_group_weight_labels_and_release_also_under_a_new_incarnation(
        self, store: Store
    ) -> None:
        told = HostRow(0, "host-1", group="gpu", weight=2.5, labels={"zone": "ä"}, release="r1")

        number = await store.reincarnate(await store.join(told))

        row = (await store.read_table()).hosts[number]
        assert (row.group, row.weight, row.labels, row.release) == ("gpu", 2.5, {"zone": "ä"}, "r1")

    async def test_release_gives_up_own_shards_only_and_keeps_their_epoch(self, store: Store) -> None:
        mine, other = await store.join(HOST), await store.join(HOST)
        rows = {"0": ShardRow(mine, 4), "1": ShardRow(mine, 4), "2": ShardRow(other, 6)}
        await store.write_table(await store.lead(), 1, [], rows)

        await store.release(mine, ["0", "2", "7"])

        assert (await store.read_table()).shards == {
            "0": ShardRow(0, 4),
            "1": ShardRow(mine, 4),
            "2": ShardRow(other, 6),
        }

    async def test_assigning_raises_the_epoch_as_told(self, store: Store) -> None:
        mine, other = await store.join(HOST), await store.join(HOST)
        term = await store.lead()
        await store.write_table(term, 1, [], {"0": ShardRow(mine, 1)})
        await store.release(mine, ["0"])

        await store.write_table(term, 2, [], {"0": ShardRow(other, 2)})

        assert (await store.read_table()).shards == {"0": ShardRow(other, 2)}

    async def test_a_new_incarnation_takes_the_shards_of_the_old_one_in_one_step_and_the_old_one_is_fenced(
        self,
        store: Store,
    ) -> None:
        mine, other = await store.join(HOST), await store.join(HostRow(0, "host-2"))
        await store.write_table(await store.lead(), 1, [], {"0": ShardRow(mine, 1), "1": ShardRow(other, 1)})

        successor = await store.reincarnate(mine)

        table = await store.read_table()
        assert table.shards == {"0": ShardRow(successor, 2), "1": ShardRow(other, 1)}
        assert {number: row.name for number, row in table.hosts.items()} == {other: "host-2", successor: "host-1"}
        with pytest.raises(Fenced):
            await store.append(mine, numbers([entry("a/1", 1)]))
        await store.append(successor, numbers([entry("a/1", 1)]))

    async def test_a_leader_of_an_earlier_term_writes_nothing(self, store: Store) -> None:
        host = await store.join(HOST)
        old = await store.lead()
        new = await store.lead()
        assert new > old

        with pytest.raises(Fenced, match="term"):
            await store.write_table(old, 7, [host], {"0": ShardRow(host, 1)})

        table = await store.read_table()
        assert (table.version, table.shards, list(table.hosts)) == (0, {}, [host])
        await store.write_table(new, 1, [], {"0": ShardRow(host, 1)})
        assert (await store.read_table()).version == 1

    async def test_of_several_that_want_to_lead_after_the_same_term_one_does(self, store: Store) -> None:
        term, _ = await store.leader()
        first = await store.lead(term)

        with pytest.raises(Fenced, match="term"):
            await store.lead(term)

        assert (await store.leader())[0] == first > term

    async def test_a_leaders_renewals_are_seen_and_end_with_its_term(self, store: Store) -> None:
        first = await store.lead()
        assert await store.leader() == (first, 0.0)
        await store.renew_leader(first, 2.5)
        assert await store.leader() == (first, 2.5)

        second = await store.lead(first)

        assert await store.leader() == (second, 0.0)
        with pytest.raises(Fenced, match="term"):
            await store.renew_leader(first, 3.5)
        assert await store.leader() == (second, 0.0)
        assert not {first, -first, second, -second} & (await store.leases()).keys()

    async def test_notes_are_kept_by_name_and_written_by_the_leader_alone(self, store: Store) -> None:
        old = await store.lead()
        await store.set_note(old, "a", "1")
        new = await store.lead()
        await store.set_note(new, "b", "ä")
        await store.set_note(new, "b", "2")

        with pytest.raises(Fenced, match="term"):
            await store.set_note(old, "a", "late")

        assert [await store.note(name) for name in ("a", "b", "c")] == ["1", "2", None]

    @pytest.mark.parametrize("overtaken", [ShardRow(7, 2), ShardRow(7, 3)])
    async def test_owners_that_were_decided_on_before_a_later_change_are_not_written(
        self, store: Store, overtaken: ShardRow
    ) -> None:
        mine, other = await store.join(HOST), await store.join(HOST)
        term = await store.lead()
        await store.write_table(term, 1, [], {"0": ShardRow(mine, 2), "1": ShardRow(other, 1)})
        successor = await store.reincarnate(mine)

        with pytest.raises(StoreUnavailable, match="Shard 0 has got another owner meanwhile"):
            await store.write_table(term, 2, [other], {"1": ShardRow(successor, 2), "0": overtaken})

        table = await store.read_table()
        assert (table.version, sorted(table.hosts)) == (1, [other, successor])
        assert table.shards == {"0": ShardRow(successor, 3), "1": ShardRow(other, 1)}

    async def test_an_incarnation_that_has_ended_is_given_nothing(self, store: Store) -> None:
        mine, other = await store.join(HOST), await store.join(HOST)
        term = await store.lead()
        successor = await store.reincarnate(mine)

        for fence in ([], [other]):
            with pytest.raises(StoreUnavailable, match="has ended meanwhile"):
                await store.write_table(term, 2, fence, {"1": ShardRow(other, 1), "0": ShardRow(mine, 1)})
        with pytest.raises(StoreUnavailable, match="has ended meanwhile"):
            await store.write_table(term, 2, [other], {"1": ShardRow(other, 1)})

        table = await store.read_table()
        assert (table.version, sorted(table.hosts), table.shards) == (0, [other, successor], {})

    async def test_writing_the_same_owners_twice_is_the_same_as_once(self, store: Store) -> None:
        host = await store.join(HOST)
        term = await store.lead()
        for _ in range(2):
            await store.write_table(term, 1, [], {"0": ShardRow(host, 2), "1": ShardRow(0, 2)})

        assert (await store.read_table()).shards == {"0": ShardRow(host, 2), "1": ShardRow(0, 2)}

    async def test_a_fenced_incarnation_renews_no_lease(self, store: Store) -> None:
        host, other = await store.join(HOST), await store.join(HOST)
        store.renew(host, 1.0)
        await store.write_table(await store.lead(), 1, [host], {"3": ShardRow(other, 2)})

        with pytest.raises(Fenced, match="has ended"):
            store.renew(host, 2.0)
        store.renew(other, 2.0)

    async def test_leases_are_the_last_renewal_per_incarnation(self, store: Store) -> None:
        first, second = await store.join(HOST), await store.join(HOST)
        for number, at_s in ((first, 1.25), (second, 2.0), (first, 3.5)):
            store.renew(number, at_s)

        leases = await store.leases()

        assert (leases[first], leases[second]) == (3.5, 2.0)

    # -- opening ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("app", "shards", "fix"), [("shop", SHARDS, APP), (APP, 16, str(SHARDS))])
    async def test_a_store_of_another_app_or_shard_count_is_refused_and_the_message_says_what_it_holds(
        self, store: Store, make_store: MakeStore, app: str, shards: int, fix: str
    ) -> None:
        again = make_store()
        if app != APP and again.url.startswith("postgresql://"):
            pytest.skip("each app has a schema of its own in a PostgreSQL database")

        with pytest.raises(StoreMismatch, match=fix):
            await again.open(app, shards)

        if again is not store:
            await again.close()
        await store.append(await store.join(HOST), numbers([entry("a/1", 1)]))

    async def test_opening_the_same_store_again_finds_everything(self, store: Store, make_store: MakeStore) -> None:
        host = await store.join(HOST)
        await store.write_table(await store.lead(), 3, [], {"0": ShardRow(host, 1)})
        await store.append(
            host,
            Append(
                entries=[entry("a/1", 1), entry("b/1", 1), entry("b/1", 2)],
                states={"a/1": ("a/1", 1, 1, b'{"x":1}', 4)},
                snapshots={"b/1": ("b/1", 1, 1, b'{"y":1}', 5, 2)},
                marks={"a/1": ("a/1", 1, b"{}")},
                outbox=[("a/1", 1, "0", b"[]"), ("a/1", 2, "0", b"[]")],
                parked=[("why", b"[]", "a/1", 2)],
                reminders={("a/1", "tick"): ("a/1", "tick", "0", 9, 7, 1)},
                trims={"b/1": ("b/1", 1)},
            ),
        )
        await store.set_schema("what it writes")
        await store.close()
        again = make_store()

        await again.open(APP, SHARDS)

        one, two = await loaded(again, "a/1"), await loaded(again, "b/1")
        assert [row.command_id for row in (await again.known([Span("a/1", 0, 9)]))[0]] == ["c1"]
        assert (one.state, one.state_version) == ('{"x":1}', 4)
        assert ([entry.n for entry in two.tail], two.state, two.state_version, two.last) == ([2], '{"y":1}', 5, 2)
        assert await again.outbox_counts() == (1, 1)
        assert [(row.n, row.reason) for row in await again.parked(9)] == [(2, "why")]
        assert [(row.name, row.every, row.misfire) for row in await again.due(["0"], 9, 9)] == [("tick", 7, 1)]
        assert await again.schema() == "what it writes"
        table = await again.read_table()
        assert (table.version, table.shards, list(table.hosts)) == (3, {"0": ShardRow(host, 1)}, [host])
        assert await again.join(HOST) > host
        assert await again.lead() > 1
        await again.close()

    async def test_a_store_can_be_closed_twice(self, store: Store) -> None:
        await store.close()

    async def test_the_description_of_what_the_app_writes_is_kept_and_replaced(self, store: Store) -> None:
        assert await store.schema() is None

        for text in ('{"a": 1}', "", "ä" * 100_000):
            await store.set_schema(text)
            assert await store.schema() == text
