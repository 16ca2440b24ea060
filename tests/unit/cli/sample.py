"""An app whose entities do everything a command line has to report."""

import asyncio

from pydantic import BaseModel, JsonValue

from entities.account import Account
from entities.counter import Counter, Presence
from remora import App, Durable, command, query


class Echoed(BaseModel):
    """What it was told last."""

    value: JsonValue = None


class Echo(Durable[Echoed]):
    """Gives back what it is told, in several ways not at all."""

    @command
    async def say(self, value: JsonValue) -> JsonValue:
        """Return the value."""
        self.state.value = value
        return value

    @command
    async def two_words(self, first_word: str, second_word: str = "") -> str:
        """Return both."""
        return first_word + second_word

    @command
    async def fail(self) -> None:
        """Fail as code with a mistake does."""
        raise KeyError

    @command
    async def wait(self) -> None:
        """Never end."""
        await asyncio.Event().wait()

    @query
    async def last(self, default: str = "nothing") -> JsonValue:
        """Return the last value."""
        return default if self.state.value is None else self.state.value


app = App("sample", entities=[Account, Counter, Presence, Echo])
