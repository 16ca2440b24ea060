"""Events and states of older releases are brought up to the present form; those of newer ones are refused."""

import os
import types
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

import remora
from remora import ContractError, Corrupt, Durable, Event, EventSourced, command
from remora.contract import EntitySpec
from remora.journal import Append, Store
from remora.process import machine_identity
from remora.schema.reading import UnreadableEvent, UnreadableState, read_events, read_state, split_name
from remora.sharding.table import HostRow
from remora.storage.memory import MemoryStore
from remora.testing import EntityKit
from tests.unit.schema.ledgers import first, second


class Kept(MemoryStore):
    """A store that outlives the platforms it serves."""

    async def close(self) -> None:
        """Stay."""


def ref(app: remora.App, client: remora.Client, type_: str, ident: str = "a") -> Any:  # noqa: ANN401 - of the release at hand
    return client.ref(app.spec(type_).cls, ident)


async def pay(store: Store, app: remora.App, *amounts: int) -> list[int]:
    async with remora.local(app, store=store) as client:
        return [await ref(app, client, "ledger").pay(amount) for amount in amounts]


# -- what is written ------------------------------------------------------------------------------------------


async def test_the_first_version_is_written_under_the_bare_name_and_later_ones_with_their_number() -> None:
    store = Kept()
    await pay(store, first(), 3)
    await pay(store, second(), 50)

    assert [row.events for row in await store.scan(0, 10)] == [
        '[["Payment",{"pounds":3}]]',
        '[["Paid@2",{"pence":50}]]',
    ]


async def test_states_and_snapshots_carry_their_version() -> None:
    store, app = Kept(), second()
    async with remora.local(app, store=store) as client:
        await ref(app, client, "memo").write("x")

    assert [row.version for row in await store.scan_states("", 10)] == [2]


async def test_the_history_shows_events_as_written_and_says_of_which_version_they_are() -> None:
    store, app = Kept(), second()
    await pay(store, first(), 3)
    async with remora.local(app, store=store) as client:
        await ref(app, client, "ledger").pay(50)
        history = await ref(app, client, "ledger").history()

    assert [(one["event"], one.get("version"), one["data"]) for one in history] == [
        ("Payment", None, {"pounds": 3}),
        ("Paid", 2, {"pence": 50}),
    ]


# -- what is read ---------------------------------------------------------------------------------------------


async def test_events_under_a_former_name_and_of_an_older_version_are_brought_up() -> None:
    store = Kept()
    await pay(store, first(), 1, 2)

    assert await pay(store, second(), 5) == [305]


async def test_a_snapshot_of_an_older_version_without_upcaster_is_made_again_from_the_events() -> None:
    store = Kept()
    await pay(store, first(), *[1] * 7)  # two snapshots, none of which has pence

    assert await pay(store, second(), 5) == [705]


async def test_a_durable_state_of_an_older_version_is_brought_up() -> None:
    store, old, new = Kept(), first(), second()
    async with remora.local(old, store=store) as client:
        await ref(old, client, "memo").write("one\ntwo")
    async with remora.local(new, store=store) as client:
        await ref(new, client, "memo").write("three")

        assert await ref(new, client, "memo").read() == ["one", "two", "three"]


async def test_what_a_newer_release_wrote_is_corrupt_to_an_older_one_and_the_message_says_so() -> None:
    store = Kept()
    await pay(store, second(), 5)
    await store.set_schema('{"format":1,"app":"ledgers","shards":4,"entities":{}}')  # as if nobody had checked
    app = first()

    async with remora.local(app, store=store) as client:
        with pytest.raises(Corrupt, match="'Paid', which Ledger does not declare"):
            await ref(app, client, "ledger").pay(1)


class Balance(BaseModel):
    amount: int = 0


class Deposited(Event, version=3):
    amount: int

    @classmethod
    def upcast(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Read cents of version 1; version 2 is lost."""
        if version == 1:
            return {"amount": data["cents"] // 100}
        return data["nothing"]  # type: ignore[no-any-return]  # raises, or is no dict


class Taken(Event, version=2):
    amount: int


class Purse(EventSourced[Balance, Deposited | Taken]):
    state_version: ClassVar[int] = 2

    def apply(self, event: Deposited | Taken) -> None:
        """Do nothing."""


class Box(Durable[Balance]):
    state_version: ClassVar[int] = 2

    @classmethod
    def upcast_state(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Read version 1."""
        assert version == 1
        return {"amount": data["old"]}


purse: EntitySpec = Purse.__remora__
box: EntitySpec = Box.__remora__


def test_events_of_one_entry_are_each_read_by_their_own_version() -> None:
    found = read_events(purse, '[["Deposited@3",{"amount":1}],["Deposited",{"cents":250}],["Taken@2",{"amount":4}]]')

    assert found == [Deposited(amount=1), Deposited(amount=2), Taken(amount=4)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[["Deposited@4",{"amount":1}]]', "version 4 and was written by a newer release: this one knows version 3"),
        ('[["Taken",{"amount":1}]]', "written in version 1, and Taken of version 2 has no upcast"),
        ('[["Gone",{}]]', "'Gone', which Purse does not declare"),
        ('[["Gone@2",{}]]', "'Gone', which Purse does not declare"),
        ('[["Deposited",{}]]', "Deposited.upcast failed on data of version 1: KeyError: 'cents'"),
        ('[["Deposited@2",{"nothing":7}]]', "it returned int, not a dict"),
        ('[["Deposited@3",{"amount":"x"}]]', "'Deposited@3' cannot be read by Purse: amount: Input should be a valid integer"),
        ('[["Deposited",{"cents":"x"}]]', "Deposited.upcast failed"),
    ],
)  # fmt: skip
def test_an_event_that_cannot_be_read_is_told_in_a_sentence(text: str, told: str) -> None:
    with pytest.raises(UnreadableEvent) as caught:
        read_events(purse, text)

    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "text", "version", "told"),
    [
        (box, '{"amount":1}', 3, "version 3 and was written by a newer release: Box of this one knows version 2"),
        (purse, '{"amount":1}', 1, "written in version 1, and Purse of version 2 has no upcast_state"),
        (box, '{"amount":"x"}', 2, "cannot be read by Box: amount: Input should be a valid integer"),
        (box, "{}", 1, "Box.upcast_state failed on data of version 1: KeyError: 'old'"),
    ],
)
def test_a_state_that_cannot_be_read_is_told_in_a_sentence(
    spec: EntitySpec, text: str, version: int, told: str
) -> None:
    with pytest.raises(UnreadableState) as caught:
        read_state(spec, text, version)

    assert told in str(caught.value)


def test_an_older_state_is_brought_up_and_one_of_the_present_version_is_read_at_once() -> None:
    assert read_state(box, '{"old":4}', 1) == Balance(amount=4)
    assert read_state(box, '{"amount":5}', 2) == Balance(amount=5)


@pytest.mark.parametrize(
    ("written", "read"),
    [("Paid", ("Paid", 1)), ("Paid@2", ("Paid", 2)), ("a@b", ("a@b", 1)), ("@2", ("", 2)), ("a@b@12", ("a@b", 12))],
)
def test_name_and_version_are_told_apart(written: str, read: tuple[str, int]) -> None:
    assert split_name(written) == read


async def test_a_journal_that_holds_nothing_readable_below_its_snapshots_stops_that_entity_alone() -> None:
    store, app = Kept(), second()
    await store.open(app.name, app.settings.shards)
    host = await store.join(HostRow(0, "h", machine=machine_identity(), pid=os.getpid()))
    append = Append(entries=[("ledger/a", 1, 1, b'[["Paid@2",{"pence":1}]]', "c", 0, b"null", 0, 0)])
    append.snapshots["ledger/a"] = ("ledger/a", 1, 1, b'{"pence":"many"}', 1, 2)
    await store.append(host, append)

    assert await pay(store, app, 4) == [5]


# -- what is refused when a class is defined --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"name": "a@b"}, "quotes, backslashes and @"),
        ({"version": 0}, "whole number from 1"),
        ({"version": True}, "whole number from 1"),
        ({"version": "2"}, "whole number from 1"),
        ({"formerly": "Old"}, r"formerly=\('Old',\)"),
        ({"formerly": ("Old@2",)}, "cannot be the name"),
        ({"formerly": ("",)}, "cannot be the name"),
    ],
)
def test_an_event_with_keywords_that_cannot_be_is_refused(keywords: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError, match=told):
        type("Odd", (Event,), {}, **keywords)


def test_a_name_that_release_0_1_0_allowed_may_stand_in_formerly() -> None:
    class Mailed(Event, formerly=("mail@home",)):
        pass

    class Post(EventSourced[Balance, Mailed]):
        def apply(self, event: Mailed) -> None:
            """Do nothing."""

    assert read_events(Post.__remora__, '[["mail@home",{}]]') == [Mailed()]


def test_a_former_name_that_another_event_has_is_refused() -> None:
    class Old(Event):
        pass

    class New(Event, formerly=("Old",)):
        pass

    with pytest.raises(ContractError, match="New was formerly 'Old', a name that Old has"):

        class Both(EventSourced[Balance, Old | New]):
            pass


@pytest.mark.parametrize("version", [0, "1", True])
def test_a_state_version_that_is_no_number_is_refused(version: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(ContractError, match="state_version must be a whole number"):
        types.new_class("Odd", (Durable[Balance],), {}, lambda body: body.update(state_version=version))


def test_a_command_may_not_be_named_as_an_upcaster() -> None:
    with pytest.raises(ContractError, match="upcast_state"):

        class Odd(Durable[Balance]):
            @command
            async def upcast_state(self) -> None:  # type: ignore[override]  # wrong on purpose
                """Do nothing."""


async def test_an_erased_entity_starts_over_in_whatever_form_the_present_release_begins_with() -> None:
    def release(version: int) -> remora.App:
        class Total(BaseModel):
            amount: int = version * 1000

        class Added(Event):
            amount: int

        class Sum(EventSourced[Total, Added]):
            options = remora.EntityOptions(dedup_window=2)
            state_version: ClassVar[int] = version

            @command
            async def add(self, amount: int) -> int:
                self.emit(Added(amount=amount))
                return self.state.amount

            @command
            async def forget(self) -> None:
                self.erase()

            def apply(self, event: Added) -> None:
                self.state.amount += event.amount

        return remora.App("sums", entities=[Sum])

    store, old, new = Kept(), release(1), release(2)
    async with remora.local(old, store=store) as client:
        for _ in range(5):
            await ref(old, client, "sum").add(1)
        await ref(old, client, "sum").forget()
        await ref(old, client, "sum").add(10)

    async with remora.local(new, store=store) as client:
        assert await ref(new, client, "sum").add(100) == 2110


async def test_the_testing_kit_takes_events_of_later_versions() -> None:
    cls: Any = second().specs["ledger"].cls
    kit: EntityKit[Any, Any] = EntityKit(cls, "a")

    result = await kit.run(cls.pay, 50)

    assert [event.model_dump() for event in result.events] == [{"pence": 50}]
