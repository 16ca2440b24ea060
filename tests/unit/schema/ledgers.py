"""One ledger as several releases of an app wrote it."""

from typing import Any, ClassVar

from pydantic import BaseModel

from remora import App, Durable, EntityOptions, Event, EventSourced, Settings, command, query

SETTINGS = Settings(shards=4)
OPTIONS = EntityOptions(snapshot_every=3)


def first() -> App:
    """The first release: pounds, as whole numbers."""

    class Total(BaseModel):
        pounds: int = 0

    class Payment(Event):
        pounds: int

    class Ledger(EventSourced[Total, Payment]):
        options = OPTIONS

        @command
        async def pay(self, pounds: int) -> int:
            self.emit(Payment(pounds=pounds))
            return self.state.pounds

        def apply(self, event: Payment) -> None:
            self.state.pounds += event.pounds

    class Note(BaseModel):
        text: str = ""

    class Memo(Durable[Note]):
        @command
        async def write(self, text: str) -> None:
            self.state.text = text

    return App("ledgers", entities=[Ledger, Memo], settings=SETTINGS)


def second(*, upcasting: bool = True) -> App:
    """The second release: pence, the event under a new name, the memo as lines.

    Args:
        upcasting: Whether it knows how to read what the first release wrote.
    """

    class Total(BaseModel):
        pence: int = 0

    class Paid(Event, version=2, formerly=("Payment",)):
        pence: int

    class Ledger(EventSourced[Total, Paid]):
        options = OPTIONS
        state_version: ClassVar[int] = 2

        @command
        async def pay(self, pence: int) -> int:
            self.emit(Paid(pence=pence))
            return self.state.pence

        def apply(self, event: Paid) -> None:
            self.state.pence += event.pence

    class Note(BaseModel):
        lines: list[str] = []

    class Memo(Durable[Note]):
        state_version: ClassVar[int] = 2

        @command
        async def write(self, text: str) -> None:
            self.state.lines.append(text)

        @query
        async def read(self) -> list[str]:
            return self.state.lines

    if upcasting:

        def upcast(cls: type, data: dict[str, Any], version: int) -> dict[str, Any]:
            del cls
            assert version == 1
            return {"pence": data["pounds"] * 100}

        def upcast_state(cls: type, data: dict[str, Any], version: int) -> dict[str, Any]:
            del cls
            assert version == 1
            return {"lines": data["text"].splitlines()}

        Paid.upcast = classmethod(upcast)  # type: ignore[assignment, method-assign]  # as if written in the class
        Memo.upcast_state = classmethod(upcast_state)  # type: ignore[assignment, method-assign]  # as above
    return App("ledgers", entities=[Ledger, Memo], settings=SETTINGS)
