"""The app that the gateway's tests ask: the shipped entities, and one with every awkward handler."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictInt

from entities.account import Account
from entities.counter import Counter, Presence
from remora import App, Durable, EntityOptions, Rejected, Settings, command, query

PAYLOAD_BYTES_MAX = 4096


class Shape(BaseModel):
    width: int
    height: int = 1


class Notes(BaseModel):
    lines: list[str] = []


class Notebook(Durable[Notes]):
    """Keeps lines; does what handlers should not."""

    options = EntityOptions(mailbox_max=1)

    @command
    async def write(self, line: str) -> int:
        """Add a line and return how many there are."""
        self.state.lines.append(line)
        return len(self.state.lines)

    @command
    async def hang(self) -> None:
        await asyncio.get_running_loop().create_future()

    @command
    async def fail(self) -> None:
        msg = "the pencil broke"
        raise ZeroDivisionError(msg)

    @command
    async def refuse(self, reason: str = "no <b>more</b> paper") -> None:
        raise Rejected(reason)

    @query
    async def find(  # noqa: PLR0913 - one parameter of every kind
        self,
        text: str = "",
        *,
        limit: int = 10,
        exact: bool = False,
        weight: float = 1.0,
        numbers: Annotated[list[int], Field(max_length=3)] = [],  # noqa: B006 - pydantic copies it
        words: list[str] | None = None,
        since: datetime | None = None,
        shape: Shape | None = None,
        strict: StrictInt = 0,
        level: Literal[1, 2] = 1,
        copy: str = "",
    ) -> dict[str, Any]:
        """Return the arguments as they arrived."""
        return {name: value for name, value in locals().items() if name != "self"}


app = App(
    "shop", entities=[Account, Counter, Presence, Notebook], settings=Settings(payload_bytes_max=PAYLOAD_BYTES_MAX)
)
