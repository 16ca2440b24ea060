"""The first entity to read: a bank account, kept as the events that happened to it.

`deposit` and `withdraw` are commands. Each is applied once per command id, also when the caller
asks again after a crash, and has been committed when its reply arrives. `withdraw` says a business
"no" by raising `Rejected`: nothing is recorded but the refusal itself. `balance` is a query: it
sees every command acknowledged before it was asked. `apply` is the only place that changes the
state, because it runs again whenever the account is brought back from its journal.

Run it with `remora up entities.account:app`.
"""
# The code below is the README's, to the letter.
# fmt: off
# ruff: noqa: E701, EM102, I001, TRY003 - an example kept short

from remora import App, Event, EventSourced, Rejected, command, query
from pydantic import BaseModel, PositiveInt

class Balance(BaseModel):
    amount: int = 0

class Deposited(Event):
    amount: int

class Withdrawn(Event):
    amount: int

class Account(EventSourced[Balance, Deposited | Withdrawn]):
    """A bank account."""

    @command
    async def deposit(self, amount: PositiveInt) -> int:
        self.emit(Deposited(amount=amount))
        return self.state.amount

    @command
    async def withdraw(self, amount: PositiveInt) -> int:
        if amount > self.state.amount:
            raise Rejected(f"Balance {self.state.amount} does not cover {amount}")
        self.emit(Withdrawn(amount=amount))
        return self.state.amount

    @query
    async def balance(self) -> int:
        return self.state.amount

    def apply(self, event: Deposited | Withdrawn) -> None:
        match event:
            case Deposited(): self.state.amount += event.amount
            case Withdrawn(): self.state.amount -= event.amount

app = App("bank", entities=[Account])
