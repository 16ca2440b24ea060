"""The two kinds of entity that keep no events, side by side.

`Counter` is `Durable`: it changes `self.state`, and the new state is committed before the reply
leaves. Choose it when what is true now matters and how it became true does not.

`Presence` is `Transient`: it lives in memory only. Choose that when the state repairs itself. Here
everybody online calls `seen` every few seconds, so after a crash the list is empty for one such
round and then right again; journaling every sign of life would buy nothing.

Run both with `remora up entities.counter:app`.
"""

from datetime import datetime, timedelta

from pydantic import BaseModel, PositiveInt

from remora import App, Durable, Transient, command, query

ONLINE_FOR = timedelta(seconds=30)
"""How long a sign of life counts: three missed rounds of the ten seconds we suggest."""


class Count(BaseModel):
    """What a counter keeps."""

    value: int = 0


class Counter(Durable[Count]):
    """Counts up, and starts over when told."""

    @command
    async def increment(self, by: PositiveInt = 1) -> int:
        """Add `by` and return the new value."""
        self.state.value += by
        return self.state.value

    @command
    async def reset(self) -> int:
        """Start over at 0 and return the value reached before."""
        reached = self.state.value
        self.state.value = 0
        return reached

    @query
    async def value(self) -> int:
        """Return the value."""
        return self.state.value


class SignsOfLife(BaseModel):
    """When each person was last seen (UTC)."""

    last: dict[str, datetime] = {}


class Presence(Transient[SignsOfLife]):
    """Who is online in one place; its id names the place, for example a chat room.

    In memory only: after a crash it is empty until the next signs of life.
    """

    @command
    async def seen(self, person: str) -> None:
        """Note a sign of life; to stay online, send one every ten seconds or so."""
        now = self.now()
        last = self.state.last
        last[person] = now
        # Those who left without a word go here, so that the list is bounded by who is online.
        for name in [name for name, at in last.items() if now - at > ONLINE_FOR]:
            del last[name]

    @command
    async def left(self, person: str) -> None:
        """Take somebody off the list at once; one who is not on it is no error."""
        self.state.last.pop(person, None)

    @query
    async def online(self) -> list[str]:
        """Return who has been seen within `ONLINE_FOR`, in alphabetical order."""
        now = self.now()
        return sorted(name for name, at in self.state.last.items() if now - at <= ONLINE_FOR)


app = App("counters", entities=[Counter, Presence])
