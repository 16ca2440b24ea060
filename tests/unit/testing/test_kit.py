"""The kit for unit tests of entities: what it shows, and the mistakes that it finds."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field, PrivateAttr, field_serializer

from entities.account import Account, Balance, Deposited, Withdrawn
from entities.flights.aircraft import Aircraft
from remora import (
    ContractError,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    HandlerFailed,
    InvalidArgument,
    Rejected,
    StoreUnavailable,
    Transient,
    command,
    query,
)
from remora.errors import NotOwner
from remora.testing import EffectMismatch, EntityKit, Message, RoundTripMismatch, UnansweredCall, message

DRAWS = random.Random(7)
COUNTED: list[int] = []


class Total(BaseModel):
    total: int = 0


class Added(Event):
    amount: int
    note: Any = None


class Bank(Durable[Total]):
    """Is called and told things."""

    @query
    async def rate(self, currency: str) -> int:
        return len(currency)

    @command
    async def book(self, amount: int, note: str = "") -> int:
        self.state.total += amount + len(note)
        return self.state.total


class Purse(EventSourced[Total, Added]):
    """Makes every mistake that the kit knows."""

    @command
    async def add(self, amount: int) -> int:
        self.emit(Added(amount=amount))
        return self.state.total

    @command
    async def add_and_tell(self, amount: int) -> None:
        self.emit(Added(amount=amount))
        self.send(Bank.book, "main", amount)
        self.send(Bank.book, "side", amount, note="half")

    @command
    async def add_converted(self, amount: int, currency: str) -> int:
        rate = await self.ref(Bank, "main").rate(currency)
        self.emit(Added(amount=amount * rate))
        return self.state.total

    @command
    async def later(self, seconds: float) -> None:
        self.remind("pay", after=seconds)

    @command
    async def never_mind(self) -> None:
        self.cancel_reminder("pay")

    @command
    async def add_and_fail(self) -> None:
        self.emit(Added(amount=1))
        msg = "on fire"
        raise ValueError(msg)

    @command
    async def change_beside(self) -> None:
        self.state.total += 1

    @command
    async def draw(self) -> int:
        self.emit(Added(amount=DRAWS.randrange(10**9)))
        return 0

    @command
    async def count(self) -> None:
        COUNTED.append(len(COUNTED))
        self.emit(Added(amount=COUNTED[-1]))

    @command
    async def note(self, note: list[int]) -> None:
        self.emit(Added(amount=0, note=tuple(note)))

    @command
    async def tell_nonsense(self) -> None:
        self.send(Bank.book, "main", "ten")  # type: ignore[arg-type]  # the mistake

    @query
    async def total(self) -> int:
        return self.state.total

    @query
    async def spoil(self) -> int:
        self.state.total += 1
        return 0

    @command
    async def every(self, seconds: float) -> None:
        self.remind("tick", after=seconds, every=seconds)

    @command
    async def forget(self) -> None:
        self.emit(Added(amount=1))
        self.erase()

    async def on_reminder(self, name: str) -> None:
        if name == "tick":
            self.emit(Added(amount=1))
            return
        if name == "broken":
            msg = "no bell"
            raise ValueError(msg)
        if name == "refused":
            msg = "not now"
            raise Rejected(msg)
        self.emit(Added(amount=100))
        if self.state.total < 300:
            self.remind(name, after=10)

    @command
    async def remind_me(self, name: str) -> None:
        self.remind(name, after=5)

    def apply(self, event: Added) -> None:
        self.state.total += event.amount


class Rounded(BaseModel):
    exact: float = 0.0

    @field_serializer("exact")
    def _round(self, value: float) -> float:
        return round(value, 1)


class Hoard(BaseModel):
    counts: dict[str, int] = Field(default_factory=dict)
    level: Rounded = Rounded()
    _seen: int = PrivateAttr(default=0)


class Chest(Durable[Hoard]):
    """Keeps its state."""

    @command
    async def put(self, what: str) -> int:
        self.state.counts[what] = self.state.counts.get(what, 0) + 1
        return self.state.counts[what]

    @command
    async def keep_counts(self) -> None:
        self.state.counts = defaultdict(int, {"x": 1})

    @command
    async def weigh(self, grams: float) -> None:
        self.state.level.exact = grams

    @command
    async def weigh_precisely(self, load: Rounded) -> None:
        self.state.counts["weighed"] = int(load.exact)

    @command
    async def answer_roughly(self) -> Rounded:
        return Rounded(exact=0.123)

    @command
    async def look_on(self) -> None:
        self.state._seen += 1  # noqa: SLF001 - the mistake

    @command
    async def refuse(self) -> None:
        self.state.counts["refused"] = 1
        msg = "full"
        raise Rejected(msg)


class Screen(Transient[Total]):
    """Memory only."""

    options = EntityOptions(passivate_after_s=60.0)

    @command
    async def add(self) -> int:
        self.state.total += 1
        return self.state.total


@pytest.fixture
async def purse() -> AsyncIterator[EntityKit[Total, Added]]:
    async with EntityKit(Purse, "p") as kit:
        yield kit


# -- what it shows ---------------------------------------------------------------------------------------


async def test_a_command_shows_its_events_its_state_and_its_reply() -> None:
    kit = EntityKit(Account, "alice")

    result = await kit.run(Account.deposit, 10)

    assert result.events == [Deposited(amount=10)]
    assert result.state == Balance(amount=10)
    assert result.reply == 10
    assert result.rejected is None
    assert (result.sends, result.calls, result.reminders, result.erased) == ([], [], {}, False)


async def test_a_rejection_is_a_result_that_has_no_reply_and_left_nothing() -> None:
    kit = EntityKit(Account, "alice")
    await kit.run(Account.deposit, 10)

    result = await kit.run(Account.withdraw, 11)

    assert isinstance(result.rejected, Rejected)
    assert "does not cover 11" in result.rejected.message
    assert (result.events, result.state.amount) == ([], 10)
    with pytest.raises(AssertionError, match="rejected: Balance 10 does not cover 11"):
        _ = result.reply


async def test_commands_follow_each_other_and_queries_see_what_they_did() -> None:
    kit = EntityKit(Account, "alice")
    await kit.run(Account.deposit, amount=10)
    result = await kit.run(Account.withdraw, 3)

    assert result.events == [Withdrawn(amount=3)]
    assert (await kit.run(Account.balance)).reply == 7
    assert await kit.state() == Balance(amount=7)


async def test_the_state_that_a_result_shows_is_a_copy() -> None:
    kit = EntityKit(Account, "alice")
    result = await kit.run(Account.deposit, 10)

    result.state.amount = 1_000
    (await kit.state()).amount = 1_000

    assert (await kit.run(Account.balance)).reply == 10


async def test_durable_sends_are_shown_as_their_receivers_get_them(purse: EntityKit[Total, Added]) -> None:
    result = await purse.run(Purse.add_and_tell, 4)

    assert result.sends == [message(Bank.book, "main", 4), message(Bank.book, "side", 4, note="half")]
    assert result.sends[0] == Message("bank", "main", "book", {"amount": 4, "note": ""})


async def test_calls_are_answered_by_a_value_a_function_or_an_error(purse: EntityKit[Total, Added]) -> None:
    purse.answer(Bank.rate, 3)
    assert (await purse.run(Purse.add_converted, 10, "USD")).reply == 30

    purse.answer(Bank.rate, lambda currency: len(currency) + 1)
    result = await purse.run(Purse.add_converted, 10, "EU")
    assert (result.reply, result.calls) == (60, [message(Bank.rate, "main", "EU")])

    purse.answer(Bank.rate, Rejected("closed"))
    closed = await purse.run(Purse.add_converted, 10, "EU")
    assert closed.rejected is not None
    assert closed.rejected.message == "closed"


async def test_what_is_said_of_one_id_goes_before_what_is_said_of_any(purse: EntityKit[Total, Added]) -> None:
    purse.answer(Bank.rate, 3)
    purse.answer(Bank.rate, 7, entity_id="main")

    assert (await purse.run(Purse.add_converted, 1, "USD")).reply == 7


async def test_a_call_that_nothing_answers_is_an_error_that_says_what_to_write(purse: EntityKit[Total, Added]) -> None:
    with pytest.raises(UnansweredCall, match=r"kit\.answer\(Bank\.rate"):
        await purse.run(Purse.add_converted, 10, "USD")


async def test_an_answer_that_the_method_cannot_give_is_refused_where_it_is_said(
    purse: EntityKit[Total, Added],
) -> None:
    with pytest.raises(TypeError, match=r"bank\.rate"):
        purse.answer(Bank.rate, "three")  # type: ignore[arg-type, unused-ignore]  # the mistake


async def test_what_a_handler_raises_comes_as_handler_failed_from_the_error_itself(
    purse: EntityKit[Total, Added],
) -> None:
    await purse.run(Purse.add, 5)

    with pytest.raises(HandlerFailed, match="on fire") as caught:
        await purse.run(Purse.add_and_fail)

    assert isinstance(caught.value.__cause__, ValueError)
    assert await purse.state() == Total(total=5)


async def test_arguments_that_are_refused_are_refused_as_over_the_wire() -> None:
    kit = EntityKit(Account, "alice")

    with pytest.raises(InvalidArgument, match="amount"):
        await kit.run(Account.deposit, -1)

    assert kit.store.appends == []


async def test_a_method_of_another_entity_is_refused(purse: EntityKit[Total, Added]) -> None:
    with pytest.raises(ContractError, match="This kit runs Purse"):
        await purse.run(Bank.book, 1)


async def test_a_type_with_many_sends_and_no_stubs_runs_as_it_is() -> None:
    kit = EntityKit(Aircraft, "N14228")

    assert (await kit.state()).model_dump() == Aircraft.__remora__.state_type().model_dump()


# -- time --------------------------------------------------------------------------------------------------


async def test_a_reminder_that_is_set_is_shown_and_fires_at_its_instant(purse: EntityKit[Total, Added]) -> None:
    began = purse.clock.now
    result = await purse.run(Purse.later, 60)

    set_to = result.reminders["pay"]
    assert set_to is not None
    assert set_to.due == began + timedelta(seconds=60)
    assert await purse.reminders() == {"pay": set_to}
    assert await purse.clock.advance(59.9) == []
    (rang,) = await purse.clock.advance(0.1)

    assert (rang.events, rang.state.total) == ([Added(amount=100)], 100)
    assert rang.reminders["pay"] is not None


async def test_a_jump_fires_every_reminder_on_its_way_in_order(purse: EntityKit[Total, Added]) -> None:
    await purse.run(Purse.later, 60)

    rang = await purse.clock.advance(timedelta(hours=1))

    assert [outcome.state.total for outcome in rang] == [100, 200, 300]
    assert await purse.reminders() == {}
    assert purse.clock.now == datetime(2013, 1, 1, 1, 26, 40, tzinfo=UTC)


async def test_a_cancelled_reminder_is_shown_and_does_not_fire(purse: EntityKit[Total, Added]) -> None:
    await purse.run(Purse.later, 60)
    result = await purse.run(Purse.never_mind)

    assert result.reminders == {"pay": None}
    assert await purse.clock.advance(100) == []


async def test_a_reminder_that_raises_fails_the_test_and_one_that_rejects_is_shown(
    purse: EntityKit[Total, Added],
) -> None:
    await purse.run(Purse.remind_me, "refused")
    (refused,) = await purse.clock.advance(5)
    assert refused.rejected is not None

    await purse.run(Purse.remind_me, "broken")
    with pytest.raises(HandlerFailed, match="no bell"):
        await purse.clock.advance(5)


async def test_a_reminder_that_raised_rings_again_when_time_passes(purse: EntityKit[Total, Added]) -> None:
    await purse.run(Purse.remind_me, "broken")

    for seconds in (5, 0, 1):
        with pytest.raises(HandlerFailed, match="no bell"):
            await purse.clock.advance(seconds)


async def test_a_periodic_reminder_rings_at_every_period(purse: EntityKit[Total, Added]) -> None:
    result = await purse.run(Purse.every, 10)
    assert result.reminders["tick"] is not None
    assert result.reminders["tick"].every == timedelta(seconds=10)

    rang = await purse.clock.advance(35)

    assert [outcome.state.total for outcome in rang] == [1, 2, 3]
    assert list(await purse.reminders()) == ["tick"]


async def test_an_erased_entity_is_shown_as_it_begins_anew(purse: EntityKit[Total, Added]) -> None:
    await purse.run(Purse.add, 5)
    await purse.run(Purse.later, 60)

    result = await purse.run(Purse.forget)

    assert (result.erased, result.state.total, result.events) == (True, 0, [Added(amount=1)])
    assert await purse.reminders() == {}
    await purse.restart()
    assert (await purse.run(Purse.add, 1)).reply == 1


async def test_a_reminder_outlives_a_restart(purse: EntityKit[Total, Added]) -> None:
    await purse.run(Purse.later, 60)
    await purse.restart()

    assert len(await purse.clock.advance(60)) == 1


async def test_a_transient_entity_has_its_first_state_after_a_restart_and_after_passivation() -> None:
    kit = EntityKit(Screen)
    assert (await kit.run(Screen.add)).reply == 1
    assert (await kit.run(Screen.add)).state == Total(total=2)

    await kit.restart()
    assert (await kit.run(Screen.add)).reply == 1

    await kit.clock.advance(61)
    assert (await kit.run(Screen.add)).reply == 1


# -- the mistakes it finds -----------------------------------------------------------------------------------


async def test_a_restart_rebuilds_the_entity_from_its_journal() -> None:
    kit = EntityKit(Chest)
    for what in ("x", "y", "x"):
        await kit.run(Chest.put, what)

    await kit.restart()

    assert (await kit.state()).counts == {"x": 2, "y": 1}
    assert (await kit.run(Chest.put, "x")).reply == 3


async def test_state_that_the_journal_does_not_hold_is_named_by_its_field() -> None:
    kit = EntityKit(Chest)

    with pytest.raises(RoundTripMismatch, match=r"state\._seen: 1, then 0"):
        await kit.run(Chest.look_on)
    with pytest.raises(RoundTripMismatch, match=r"state\._seen"):
        await kit.restart()


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda kit: kit.run(Chest.weigh, 0.123), r"state\.level\.exact: 0\.123, then 0\.1"),
        (lambda kit: kit.run(Chest.keep_counts), r"state\.counts: .*defaultdict.*dict"),
        (lambda kit: kit.run(Chest.answer_roughly), r"reply\.exact: 0\.123, then 0\.1"),
        (lambda kit: kit.run(Chest.weigh_precisely, Rounded(exact=0.123)), r"load\.exact: 0\.123, then 0\.1"),
    ],
    ids=["state", "type", "reply", "argument"],
)
async def test_a_value_that_does_not_survive_being_written_is_named(fault: Any, named: str) -> None:  # noqa: ANN401 - any call of a kit
    with pytest.raises(RoundTripMismatch, match=named):
        await fault(EntityKit(Chest))


async def test_an_event_that_does_not_come_back_as_it_was_is_named(purse: EntityKit[Total, Added]) -> None:
    with pytest.raises(RoundTripMismatch, match=r"Added\.note: \(1, 2\) \(tuple\), then \[1, 2\] \(list\)"):
        await purse.run(Purse.note, [1, 2])


async def test_state_changed_beside_the_events_is_found(purse: EntityKit[Total, Added]) -> None:
    with pytest.raises(RoundTripMismatch, match=r"state\.total: 1, then 0\. Change self\.state in apply only"):
        await purse.run(Purse.change_beside)


@pytest.mark.parametrize("method", [Purse.draw, Purse.count], ids=["randomness", "a global"])
async def test_a_command_that_does_two_things_is_found_and_the_difference_named(
    purse: EntityKit[Total, Added],
    method: Any,  # noqa: ANN401 - any command
) -> None:
    with pytest.raises(EffectMismatch, match=r"events\[0\]\['Added'\]\['amount'\]: \d+, then \d+.*self\.now\(\)"):
        await purse.run(method)


async def test_a_handler_that_cannot_run_twice_can_be_run_once() -> None:
    kit = EntityKit(Purse, check_effects=False)
    COUNTED.clear()

    await kit.run(Purse.count)

    assert COUNTED == [0]


async def test_a_query_that_changes_the_state_is_found(purse: EntityKit[Total, Added]) -> None:
    with pytest.raises(AssertionError, match="is a query and changed the state"):
        await purse.run(Purse.spoil)


async def test_a_send_that_its_receiver_would_refuse_is_found(purse: EntityKit[Total, Added]) -> None:
    with pytest.raises(RoundTripMismatch, match="sends what the receiver would refuse"):
        await purse.run(Purse.tell_nonsense)


async def test_a_rejection_of_a_durable_entity_leaves_its_state_as_it_was() -> None:
    kit = EntityKit(Chest)
    await kit.run(Chest.put, "x")

    assert (await kit.run(Chest.refuse)).state.counts == {"x": 1}
    assert (await kit.state()).counts == {"x": 1}
    await kit.restart()


# -- a journal that fails --------------------------------------------------------------------------------------


async def test_the_journal_can_be_failed_and_the_entity_goes_on(purse: EntityKit[Total, Added]) -> None:
    await purse.run(Purse.add, 1)

    for after in (False, True):
        purse.store.fail_next(after=after)
        with pytest.raises(StoreUnavailable):
            await purse.run(Purse.add, 10)

    assert (await purse.run(Purse.add, 100)).reply == 111, "one of the two was written"
    await purse.restart()


async def test_a_fenced_entity_commits_nothing_and_comes_back_with_a_restart(purse: EntityKit[Total, Added]) -> None:
    await purse.run(Purse.add, 1)
    purse.store.fence_next()

    with pytest.raises(Exception, match="has ended"):
        await purse.run(Purse.add, 10)
    with pytest.raises(NotOwner):
        await purse.run(Purse.add, 10)
    await purse.close()

    assert (await purse.run(Purse.add, 100)).reply == 101
