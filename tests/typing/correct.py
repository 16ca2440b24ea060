# pyright: strict
"""Ordinary use: mypy (strict) and pyright (strict) accept every line, and infer the types that are asserted."""

from datetime import datetime, timedelta
from typing import Any, ClassVar, assert_type

from pydantic import BaseModel, PositiveInt

import remora
from remora import App, Durable, EntityOptions, Event, EventSourced, Rejected, Transient, command, query
from remora.testing import EntityKit, Message, message


class Balance(BaseModel):
    amount: int = 0


class Deposited(Event):
    amount: int


class Withdrawn(Event):
    amount: int


class Moved(Event, name="moved", version=2, formerly=("Relocated",)):
    street: str

    @classmethod
    def upcast(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        return {"street": data["address"]} if version == 1 else data


class Visits(BaseModel):
    count: int = 0
    last: datetime | None = None


class Branch(Durable[Visits]):
    """Counts what its accounts tell it."""

    state_version: ClassVar[int] = 2

    @classmethod
    def upcast_state(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        return {**data, "count": data["visits"]} if version == 1 else data

    options = EntityOptions(passivate_after_s=30.0, mailbox_max=64)

    @command
    async def visited(self, account: str, *, times: int = 1) -> int:
        self.state.count += times
        self.state.last = self.now()
        self.remind(f"thank {account}", after=timedelta(minutes=5))
        self.remind("close", after=3600.0)
        return self.state.count

    @command
    async def stay_open(self) -> None:
        self.cancel_reminder("close")

    @query
    async def count(self) -> int:
        return self.state.count

    async def on_reminder(self, name: str) -> None:
        assert_type(name, str)
        self.passivate()


class Account(EventSourced[Balance, Deposited | Withdrawn]):
    """A bank account."""

    @command
    async def deposit(self, amount: PositiveInt) -> int:
        self.emit(Deposited(amount=amount))
        self.send(Branch.visited, "downtown", self.id)
        self.send(Branch.visited, "downtown", account=self.id, times=2)
        return self.state.amount

    @command
    async def withdraw(self, amount: PositiveInt) -> int:
        if amount > self.state.amount:
            message = f"Balance {self.state.amount} does not cover {amount}"
            raise Rejected(message)
        self.emit(Withdrawn(amount=amount))
        return self.state.amount

    @command
    async def take_from(self, other: str, amount: PositiveInt) -> int:
        left = await self.ref(Account, other).withdraw(amount)
        assert_type(left, int)
        self.emit(Deposited(amount=amount))
        return left

    @query
    async def balance(self) -> int:
        return self.state.amount

    @query
    async def statement(self) -> Balance:
        return self.state

    def apply(self, event: Deposited | Withdrawn) -> None:
        match event:
            case Deposited():
                self.state.amount += event.amount
            case Withdrawn():
                self.state.amount -= event.amount


class Presence(Transient[Visits]):
    """Who is here now; in memory only."""

    @command
    async def seen(self) -> None:
        self.state.count += 1


app = App("bank", entities=[Account, Branch, Presence])


async def replies_are_inferred(client: remora.Client) -> None:
    alice = client.ref(Account, "alice")

    assert_type(alice, Account)
    assert_type(await alice.deposit(10), int)
    assert_type(await alice.withdraw(amount=3), int)
    assert_type(await alice.statement(), Balance)
    assert_type(await client.ref(Presence, "alice").seen(), None)


async def options_keep_the_type(client: remora.Client) -> None:
    alice = client.ref(Account, "alice")
    again = alice.with_options(command_id="pay-7", deadline_s=2.0)

    assert_type(again, Account)
    assert_type(await again.deposit(10), int)
    assert_type(await alice.with_options(stale=True).balance(), int)


async def both_ways_in_give_a_client() -> None:
    async with remora.local(app) as client:
        assert_type(client, remora.Client)
    async with remora.local(app, hosts=2, store="memory://") as client:
        assert_type(await client.ref(Branch, "downtown").count(), int)
    async with remora.connect("bank") as client:
        assert_type(client, remora.Client)


async def a_kit_knows_what_its_entity_answers() -> None:
    kit = EntityKit(Account, "alice")
    result = await kit.run(Account.deposit, 10)
    assert_type(result.reply, int)
    assert_type(result.state, Balance)
    assert_type(result.events, list[Deposited | Withdrawn])
    assert_type(result.rejected, Rejected | None)
    assert_type((await kit.run(Account.statement)).reply, Balance)
    assert_type(await kit.state(), Balance)
    assert_type((await kit.clock.advance(60))[0].state, Balance)
    kit.answer(Branch.count, 7)
    kit.answer(Account.deposit, lambda amount: amount + 1)
    assert_type(message(Account.deposit, "bob", 10), Message)
    assert_type((await EntityKit(Branch).run(Branch.visited, "alice", times=2)).reply, int)
    assert_type((await EntityKit(Presence).run(Presence.seen)).state, Visits)
