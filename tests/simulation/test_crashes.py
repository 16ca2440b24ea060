"""Random commands, random failures, and a model that holds what was acknowledged.

Several clients pipeline commands to several entities while hosts crash, commits fail before and
after they are written, the store does not answer, shards move, what is handed over in a move is lost,
late or doubled, entities leave memory, and batches or their answers are lost. At the end: nothing acknowledged is lost, nothing is applied twice, what
one client sent to one entity is in its order, every reply and every query is true of the one history,
durable sends arrived once and in order, and a fresh platform on the same store says the same.

Time is virtual and the seed is in the test's name: `REMORA_TEST_SEED` (printed at the top) and the
run's number draw the same again.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from remora import (
    App,
    Client,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    HandlerFailed,
    Rejected,
    Settings,
    command,
    on,
    query,
)
from remora.errors import HostGone, StoreUnavailable
from remora.local import LocalPlatform
from remora.runtime import host as hosts
from remora.sharding.allocation import Move
from remora.storage.memory import MemoryStore
from tests.conftest import SEED
from tests.simulation.virtual import VirtualClock, VirtualLease, run

RUNS = 24
CLIENTS = 3
ENTITIES = 4
COMMANDS = 60
"""Per client."""
DEADLINE_S = 300.0
"""Virtual seconds: far beyond the last failure, so that every command has an outcome."""


class Lines(BaseModel):
    lines: list[str] = []


class Wrote(Event):
    text: str


class Boom(Exception):  # noqa: N818 - what happened
    pass


class Book(EventSourced[Lines, Wrote]):
    """Nested state, short snapshots, commands that reject, fail, wait and send."""

    options = EntityOptions(
        snapshot_every=7, dedup_window=400, deadline_s=DEADLINE_S, supervision=(on(Exception).restart(),)
    )

    @command
    async def write(self, text: str) -> int:
        self.emit(Wrote(text=text))
        return len(self.state.lines)

    @command
    async def write_slowly(self, text: str, turns: int) -> int:
        for _ in range(turns):
            await _pause(0.01)
        self.emit(Wrote(text=text))
        return len(self.state.lines)

    @command
    async def write_and_tell(self, text: str, who: str) -> int:
        self.emit(Wrote(text=text))
        self.send(Shelf.put, who, f"{self.id}:{text}")
        return len(self.state.lines)

    @command
    async def write_and_reject(self, text: str) -> int:
        self.emit(Wrote(text=text))
        self.send(Shelf.put, "s0", f"rejected:{text}")
        msg = f"No {text}"
        raise Rejected(msg)

    @command
    async def write_and_fail(self, text: str) -> int:
        self.emit(Wrote(text=text))
        raise Boom

    @command
    async def leave(self) -> None:
        self.passivate()

    @query
    async def read(self) -> list[str]:
        return self.state.lines

    def apply(self, event: Wrote) -> None:
        self.state.lines.append(event.text)


class Shelf(Durable[Lines]):
    """Takes what books send, and commands of its own."""

    options = EntityOptions(
        snapshot_every=5, dedup_window=400, mailbox_max=20, deadline_s=DEADLINE_S,
        supervision=(on(Exception).resume(),),
    )  # fmt: skip

    @command
    async def put(self, text: str) -> int:
        self.state.lines.append(text)
        return len(self.state.lines)

    @command
    async def put_and_reject(self, text: str) -> int:
        self.state.lines.append(text)
        msg = f"No {text}"
        raise Rejected(msg)

    @query
    async def read(self) -> list[str]:
        return self.state.lines


SETTINGS = Settings(shards=6, commit_timeout_s=1.0)
APP = App("library", entities=[Book, Shelf], settings=SETTINGS)


class Weather:
    """Draws the failures of one run; silent until it begins and after it ends."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.storm = False
        self.commit = rng.choice([0.0, 0.02, 0.1])
        self.store = rng.choice([0.0, 0.02, 0.1])
        self.batch = rng.choice([0.0, 0.02, 0.1])
        self.hand_over = rng.choice([0.0, 0.4, 0.8])
        self.seen: dict[str, int] = defaultdict(int)

    def strikes(self, what: str, chance: float) -> bool:
        if self.storm and self.rng.random() < chance:
            self.seen[what] += 1
            return True
        return False


class StormyStore:
    """A memory store whose every method may fail, before or after it did its work."""

    def __init__(self, inner: MemoryStore, weather: Weather) -> None:
        self.inner = inner
        self._weather = weather

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method of the store
        method = getattr(self.inner, name)
        if name in {"open", "close", "renew", "url"}:
            return method
        weather = self._weather
        chance = weather.commit if name == "append" else weather.store

        async def stormy(*args: Any) -> Any:  # noqa: ANN401 - any method of the store
            await _pause(weather.rng.random() * 0.004)
            if weather.strikes(f"{name} before", chance / 2):
                msg = "The store did not answer."
                raise StoreUnavailable(msg)
            result = await method(*args)
            if weather.strikes(f"{name} after", chance / 2):
                msg = "The store's answer was lost."
                raise StoreUnavailable(msg)
            return result

        return stormy


class StormyPlatform(LocalPlatform):
    """A platform whose batches, and whose answers, may be lost on the way."""

    weather: Weather

    async def exchange(self, host: str, data: bytes) -> bytes:
        if self.weather.strikes("batch lost", self.weather.batch / 2):
            msg = "The batch was lost."
            raise HostGone(msg)
        answers = await super().exchange(host, data)
        if self.weather.strikes("answers lost", self.weather.batch / 2):
            msg = "The answers were lost."
            raise HostGone(msg)
        return answers

    async def hand_over(self, host: str, data: bytes) -> None:
        """Lose, delay or double what a host sends of shards that it lets go."""
        chance = self.weather.hand_over / 4
        if self.weather.strikes("hand-over lost", chance):
            msg = "The hand-over was lost."
            raise HostGone(msg)
        if self.weather.strikes("hand-over late", chance):
            self._later(host, data)
            msg = "The hand-over takes its time."
            raise HostGone(msg)
        if self.weather.strikes("hand-over twice", chance):
            self._later(host, data)
        await super().hand_over(host, data)
        if self.weather.strikes("hand-over unconfirmed", chance):
            msg = "The answer to a hand-over was lost."
            raise HostGone(msg)

    def _later(self, name: str, data: bytes) -> None:
        def arrive() -> None:
            if name in self.hosts:
                self.hosts[name].take(data)

        asyncio.get_running_loop().call_later(self.weather.rng.random() * 0.5, arrive)


async def _pause(seconds: float) -> None:
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, done.cancel)
    await asyncio.wait([done])


class Model:
    """What the test knows: every command, what became of it, and what queries said."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, str, int], list[str]] = defaultdict(list)
        """(type, id, client) → texts in the order sent"""
        self.acknowledged: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        """(type, id) → text → reply: the line's number"""
        self.refused: set[str] = set()
        """Texts that were rejected or whose handler failed."""
        self.told: dict[tuple[str, str], list[str]] = defaultdict(list)
        """(book, shelf) → texts sent durably"""
        self.seen: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
        self.surprises: list[str] = []


class Caller:
    """One client, pipelining commands."""

    def __init__(self, number: int, client: Client, model: Model, rng: random.Random) -> None:
        self.number = number
        self.client = client
        self.model = model
        self.rng = rng
        self.tasks: list[asyncio.Task[None]] = []

    async def work(self) -> None:
        for n in range(COMMANDS):
            self._one(f"{self.number}.{n:03d}")
            if self.rng.random() < 0.3:
                await _pause(self.rng.random() * 0.05)
        await asyncio.gather(*self.tasks)

    def _one(self, text: str) -> None:
        name = str(self.rng.randrange(ENTITIES))
        draw = self.rng.random()
        if draw < 0.1:
            self._spawn(self._query(*self.rng.choice([(Book, f"b{name}"), (Shelf, f"s{name}")])))
        elif draw < 0.3:
            self._command(Shelf, f"s{name}", text, lambda ref: ref.put(text))
        elif draw < 0.35:
            self._command(Shelf, f"s{name}", text, lambda ref: ref.put_and_reject(text))
        elif draw < 0.5:
            shelf = f"s{self.rng.randrange(ENTITIES)}"
            self.model.told[f"b{name}", shelf].append(text)
            self._command(Book, f"b{name}", text, lambda ref: ref.write_and_tell(text, shelf))
        elif draw < 0.55:
            self._command(Book, f"b{name}", text, lambda ref: ref.write_and_reject(text))
        elif draw < 0.6:
            self._command(Book, f"b{name}", text, lambda ref: ref.write_and_fail(text))
        elif draw < 0.65:
            turns = self.rng.randrange(1, 4)
            self._command(Book, f"b{name}", text, lambda ref: ref.write_slowly(text, turns))
        elif draw < 0.7:
            self._spawn(self.client.ref(Book, f"b{name}").leave())
        else:
            self._command(Book, f"b{name}", text, lambda ref: ref.write(text))

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - any coroutine
        self.tasks.append(asyncio.create_task(work))

    def _command(self, cls: Any, name: str, text: str, call: Callable[[Any], Awaitable[int]]) -> None:  # noqa: ANN401 - two entity classes
        kind = cls.__remora__.type
        self.model.sent[kind, name, self.number].append(text)
        repeat = self.rng.random() < 0.2
        ref = self.client.ref(cls, name)
        if repeat:
            ref = ref.with_options(command_id=f"own-{text}")
        self._spawn(self._follow(kind, name, text, call, ref, repeat=repeat))

    async def _follow(
        self,
        kind: str,
        name: str,
        text: str,
        call: Callable[[Any], Awaitable[int]],
        ref: Any,  # noqa: ANN401 - a reference
        *,
        repeat: bool,
    ) -> None:
        try:
            reply = await call(ref)
        except (Rejected, HandlerFailed) as refusal:
            self.model.refused.add(text)
            if repeat and isinstance(refusal, Rejected):
                try:
                    again: object = await call(ref)
                except Rejected as second:
                    again = second.message
                if again != refusal.message:
                    self.model.surprises.append(f"{text}: rejected, then {again!r}")
            return
        self.model.acknowledged[kind, name][text] = reply
        if repeat and (again := await call(ref)) != reply:
            self.model.surprises.append(f"{text}: {reply}, then {again}")

    async def _query(self, cls: Any, name: str) -> None:  # noqa: ANN401 - two entity classes
        key = (cls.__remora__.type, name)
        before = dict(self.model.acknowledged[key])
        lines = await self.client.ref(cls, name).read()
        self.model.seen[key].append(lines)
        missing = [text for text, reply in before.items() if lines[reply - 1 : reply] != [text]]
        if missing:
            self.model.surprises.append(f"a query of {key} did not see {missing}")


async def trouble(platform: StormyPlatform, rng: random.Random, until: asyncio.Event) -> None:
    """Crash hosts and move shards until told to stop."""
    crashes, moves = rng.choice([(0, 3), (0, 12), (2, 0), (2, 3), (4, 6), (3, 12)])
    kinds = ["crash"] * crashes + ["move"] * moves
    rng.shuffle(kinds)
    for kind in kinds:
        await _pause(rng.random() * 0.4)
        if until.is_set():
            return
        names = sorted(platform.hosts)
        if not names:
            continue
        platform.weather.seen[kind] += 1
        if kind == "crash":
            await platform.crash(rng.choice(names))
            continue
        shard = str(rng.randrange(SETTINGS.shards))
        row = platform.registry.current.shards[shard]
        target = platform.hosts[rng.choice(names)].incarnation
        try:
            await platform.registry.move({shard: Move(row.owner, target)})
        except Exception as error:  # noqa: BLE001 - a move that meets a crash fails; the rebalance repairs it
            platform.weather.seen[f"move failed: {type(error).__name__}"] += 1


async def simulate(seed: str) -> None:
    rng = random.Random(seed)
    weather = Weather(rng)
    inner = MemoryStore()
    platform = StormyPlatform(APP, StormyStore(inner, weather), VirtualClock(), seed=rng.randrange(1000))
    platform.weather = weather
    model = Model()
    await platform.start(rng.choice([1, 2, 3]))
    callers = [Caller(n, await platform.client().start(), model, random.Random(rng.random())) for n in range(CLIENTS)]
    weather.storm = True
    over = asyncio.Event()
    troubles = asyncio.create_task(trouble(platform, rng, over))
    working = [asyncio.create_task(caller.work()) for caller in callers]
    await _pause(1.0 + 2 * rng.random())
    weather.storm = False
    try:
        await asyncio.gather(*working)
        over.set()
        await troubles
        async with asyncio.timeout(DEADLINE_S):
            while await inner.outbox_counts() != (0, 0):
                await _pause(0.05)
        final = await read_all(callers[0].client)
    finally:
        await platform.close()
    check(model, final)
    again = LocalPlatform(APP, inner, VirtualClock())
    await again.start(2)
    client = await again.client().start()
    recovered = await read_all(client)
    await again.close()
    assert recovered == final, "a fresh platform on the same store says the same"


async def read_all(client: Client) -> dict[tuple[str, str], list[str]]:
    found = {}
    for n in range(ENTITIES):
        found["book", f"b{n}"] = await client.ref(Book, f"b{n}").read()
        found["shelf", f"s{n}"] = await client.ref(Shelf, f"s{n}").read()
        events: list[dict[str, Any]] = []
        while page := await client.ref(Book, f"b{n}").history(after=len(events), limit=50):
            events += page
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert [event["data"]["text"] for event in events] == found["book", f"b{n}"], "the events make the state"
    return found


def check(model: Model, final: dict[tuple[str, str], list[str]]) -> None:
    assert model.surprises == []
    for key, lines in final.items():
        own = [line for line in lines if ":" not in line]
        assert len(set(lines)) == len(lines), f"{key}: applied twice"
        assert not set(own) & model.refused, f"{key}: a refused command left a trace"
        for text, reply in model.acknowledged[key].items():
            assert lines[reply - 1] == text, f"{key}: {text} was acknowledged as line {reply}"
        assert set(own) == set(model.acknowledged[key]), f"{key}: every command has its outcome"
        for client in range(CLIENTS):
            applied = [line for line in own if line.startswith(f"{client}.")]
            assert applied == [text for text in model.sent[*key, client] if text in applied], f"{key}: order"
        for seen in model.seen[key]:
            assert seen == lines[: len(seen)], f"{key}: a query saw what is not of the one history"
    for n in range(ENTITIES):
        arrived = [line for line in final["shelf", f"s{n}"] if ":" in line]
        for b in range(ENTITIES):
            written = final["book", f"b{b}"]
            told = [text for text in written if text in set(model.told[f"b{b}", f"s{n}"])]
            assert [line for line in arrived if line.startswith(f"b{b}:")] == [f"b{b}:{text}" for text in told], "sends"
        assert not [line for line in arrived if line.startswith("rejected")]


@pytest.mark.parametrize("number", range(RUNS))
def test_nothing_acknowledged_is_lost_doubled_or_out_of_order_whatever_fails(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "Lease", VirtualLease)
    logging.getLogger("remora").setLevel(logging.CRITICAL)

    run(simulate(f"{SEED} {number}"))
