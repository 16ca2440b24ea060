"""Wrong use inside an entity: each line that ends in `# refused` must be refused by both type checkers, no other."""

from tests.typing.correct import Account, Balance, Branch, Deposited, Withdrawn

from remora import App, Durable, Event, EventSourced, Transient, command


class Renamed(Event):
    name: str


class Savings(EventSourced[Balance, Deposited]):
    @command
    async def deposit(self, amount: int) -> int:
        self.emit(Withdrawn(amount=amount))  # refused
        self.emit(Renamed(name="x"))  # refused
        self.emit(amount)  # refused
        return self.state.total  # refused

    @command
    async def wrong_reply(self) -> int:
        return "done"  # refused

    @command
    async def sends(self) -> None:
        self.send(Branch.visited, "downtown", 7)  # refused
        self.send(Branch.visited, "downtown")  # refused
        self.send(Branch.visited, "downtown", "alice", often=2)  # refused
        self.send(Branch.visited, 7, "alice")  # refused
        self.send(Branch.visitd, "downtown", "alice")  # refused
        self.send("visited", "downtown", "alice")  # refused

    @command
    async def calls(self) -> None:
        await self.ref(Account, "alice").deposit("ten")  # refused
        text: str = await self.ref(Account, "alice").deposit(10)  # refused
        print(text)

    def apply(self, event: Deposited) -> None:
        self.state.amount = str(event.amount)  # refused


class Desk(Durable[Balance]):
    @command
    async def emits(self) -> None:
        self.emit(Deposited(amount=1))  # refused

    @command
    async def reminds(self) -> None:
        self.remind("later", after="5 minutes")  # refused
        self.remind("later")  # refused


class Lobby(Transient[Balance]):
    @command
    async def effects(self) -> None:
        self.send(Branch.visited, "downtown", "alice")  # refused
        self.remind("later", after=1)  # refused


class NoModel(Durable[int]):  # refused
    pass


@command  # refused
def not_async(amount: int) -> int:
    return amount


App("bank", entities=[Balance])  # refused
App(7, entities=[Account])  # refused
