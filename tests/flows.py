"""Entities that reach other entities: durable sends, reminders, calls."""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

from remora import (
    App,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    Rejected,
    Settings,
    command,
    on,
    query,
)
from tests.things import GATES, RUNS, Boom, gate


class Heard(BaseModel):
    items: list[str] = []


class Listener(Durable[Heard]):
    """Hears what is sent to it; its moods are chosen by the text."""

    options = EntityOptions(snapshot_every=7, dedup_window=20, deadline_s=5.0, supervision=(on(Exception).resume(),))

    @command
    async def hear(self, text: str) -> int:
        if text.startswith("no"):
            msg = f"I do not want to hear {text}"
            raise Rejected(msg)
        if text.startswith("bad") and not GATES["mend"].is_set():
            RUNS.append(text)
            raise Boom
        if text.startswith("wait"):
            await gate(text)
        self.state.items.append(text)
        return len(self.state.items)

    @query
    async def heard(self) -> list[str]:
        return self.state.items


class Gone(Durable[Heard]):
    """A type that is not in the app."""

    @command
    async def hear(self, text: str) -> None: ...


class Told(Event):
    text: str


class Said(BaseModel):
    count: int = 0


class Teller(EventSourced[Said, Told]):
    """Tells listeners."""

    options = EntityOptions(snapshot_every=3, dedup_window=100)

    @command
    async def tell(self, who: list[str], text: str) -> int:
        self.emit(Told(text=text))
        for name in who:
            self.send(Listener.hear, name, text)
        return self.state.count

    @command
    async def tell_and_raise(self, who: str, text: str) -> None:
        self.send(Listener.hear, who, text)
        raise Boom

    @command
    async def tell_and_reject(self, who: str, text: str) -> None:
        self.send(Listener.hear, who, text)
        msg = "Not today"
        raise Rejected(msg)

    @command
    async def tell_somebody_unknown(self, text: str) -> None:
        self.send(Gone.hear, "x", text)

    @command
    async def tell_many(self, count: int) -> None:
        for number in range(count):
            self.send(Listener.hear, "a", str(number))

    @command
    async def tell_some(self, texts: list[str]) -> None:
        for text in texts:
            self.send(Listener.hear, "a", text)

    @command
    async def ask_a_query(self) -> None:
        self.send(Listener.heard, "a")

    @command
    async def tell_badly(self, who: str) -> None:
        self.send(Listener.hear, who, "x")

    @command
    async def pass_on(self, who: str, via: str, text: str) -> None:
        self.send(Relay.relay, via, who, text)

    def apply(self, event: Told) -> None:
        del event
        self.state.count += 1


class Relay(Durable[Heard]):
    """Calls listeners from within a command that may have been sent durably."""

    options = EntityOptions(supervision=(on(Exception).resume(),), deadline_s=3.0)

    @command
    async def relay(self, who: str, text: str) -> int:
        heard = await self.ref(Listener, who).hear(text)
        self.state.items.append(text)
        return heard

    @command
    async def relay_twice_and_wait(self, who: str, text: str, name: str) -> int:
        first = await self.ref(Listener, who).hear(text)
        await gate(name)
        await self.ref(Listener, who).hear(text + "!")
        self.state.items.append(text)
        return first

    @command
    async def call_at(self, who: str, name: str) -> int:
        RUNS.append("call_at")
        await gate(name)
        return 1 + await self.ref(Relay, who).round_trip([])

    @command
    async def relay_slowly(self, who: str, text: str) -> int:
        return await self.ref(Listener, who).with_options(deadline_s=0.05).hear(text)

    @command
    async def send_then_relay(self, who: str) -> int:
        self.send(Listener.hear, who, "sent")
        return await self.ref(Listener, who).hear("called")

    @command
    async def round_trip(self, path: list[str]) -> int:
        if not path:
            return 0
        return 1 + await self.ref(Relay, path[0]).round_trip(path[1:])

    @query
    async def overhear(self, who: str) -> list[str]:
        return await self.ref(Listener, who).heard()

    @query
    async def meddle(self, who: str) -> int:
        return await self.ref(Listener, who).hear("from a query")

    @query
    async def relayed(self) -> list[str]:
        return self.state.items


class Rang(BaseModel):
    times: list[str] = []
    left: int = 0


class Alarm(Durable[Rang]):
    """Sets reminders and notes when they ring."""

    options = EntityOptions(passivate_after_s=30.0, supervision=(on(Exception).resume(),))

    @command
    async def wake_me(self, name: str, after: float) -> None:
        self.remind(name, after=timedelta(seconds=after))

    @command
    async def every(self, name: str, seconds: float, misfire: Literal["coalesce", "skip", "each"]) -> None:
        self.remind(name, after=seconds, every=seconds, misfire=misfire)

    @command
    async def wake_me_and_raise(self, name: str, after: float) -> None:
        self.remind(name, after=after)
        raise Boom

    @command
    async def repeat(self, name: str, times: int) -> None:
        self.state.left = times
        self.remind(name, after=0)

    @command
    async def never_mind(self, name: str) -> None:
        self.cancel_reminder(name)

    @command
    async def set_badly(self, name: str, after: float) -> None:
        self.remind(name, after=after)

    async def on_reminder(self, name: str) -> None:
        RUNS.append(name)
        if name == "bad" and not GATES["mend"].is_set():
            raise Boom
        self.state.times.append(name)
        if self.state.left > 1:
            self.state.left -= 1
            self.remind(name, after=0)
        if name.startswith("tell>"):
            await self.ref(Listener, "all").hear(self.id)

    @query
    async def rang(self) -> list[str]:
        return self.state.times


class Sleeper(Durable[Rang]):
    """Sets a reminder and has nothing to handle it with."""

    @command
    async def wake_me(self) -> None:
        self.remind("x", after=0)


SETTINGS = Settings(shards=8, reminder_tick_s=0.01)
app = App("flows", entities=[Listener, Teller, Relay, Alarm, Sleeper], settings=SETTINGS)
