"""A model of a few entities, and random commands and failures until platform and model disagree.

The platform is a real one, in this process, on virtual time. Hypothesis draws what happens: commands
of every kind, one by one and pipelined, under new ids and under old ones; commits that fail before and
after they are written; hosts that crash, are fenced and lose a race against a second writer; moves,
passivation, restarts of everything on the same store. After each step the outcome is the model's, and
what disagrees is shrunk to the shortest story that tells it.

`REMORA_TEST_SEED`, printed at the top of the run, draws the same stories again.
"""

# ruff: noqa: SLF001 - a second writer needs an incarnation that nobody knows of; faults are looked at

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pydantic import BaseModel

from remora import (
    App,
    Backoff,
    Client,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    HandlerFailed,
    Rejected,
    RemoraError,
    Settings,
    Transient,
    command,
    on,
    query,
)
from remora.errors import HostGone
from remora.journal import Append, Span, Want
from remora.local import LocalPlatform
from remora.runtime import host as hosts
from remora.runtime.host import Host
from remora.sharding.table import HostRow
from remora.testing import FaultyStore
from tests.conftest import SEED
from tests.platforms import move
from tests.simulation.virtual import VirtualClock, VirtualLease, VirtualLoop

T = TypeVar("T")
WINDOW = 6
"""Entries in which a repeat must be recognised: short, so that stories reach its end."""
STEP_MAX_S = 60.0
"""Longest a step takes in virtual time, failovers and pauses included."""
RING_SLACK_S = 30.0
"""How late a reminder may ring: hosts that crashed again and again come back after a pause."""


class Tally(BaseModel):
    amounts: list[int] = []
    by_sign: dict[str, list[int]] = {}


class Added(Event):
    amount: int


class Boom(Exception):  # noqa: N818 - what happened
    pass


OPTIONS = EntityOptions(
    snapshot_every=3,
    dedup_window=WINDOW,
    deadline_s=300.0,
    passivate_after_s=30.0,
    supervision=(on(Exception).restart(Backoff(max_s=1.0)),),
)


class Ledger(EventSourced[Tally, Added]):
    """Nested state, so that only the journal can undo a command."""

    options = OPTIONS

    @command
    async def add(self, amounts: list[int]) -> int:
        for amount in amounts:
            self.emit(Added(amount=amount))
        return sum(self.state.amounts)

    @command
    async def add_and_reject(self, amounts: list[int]) -> int:
        await self.add(amounts)
        self.send(Box.put, "b0", amounts)
        msg = f"not {amounts}"
        raise Rejected(msg)

    @command
    async def add_and_fail(self, amounts: list[int]) -> int:
        await self.add(amounts)
        raise Boom

    @command
    async def add_and_tell(self, amounts: list[int], who: str) -> int:
        total = await self.add(amounts)
        for amount in amounts:
            self.send(Box.put, who, [amount])
        return total

    @command
    async def ring_later(self, amount: int, *, after: float, every: float | None) -> None:
        self.remind(str(amount), after=after, every=every)

    @command
    async def wipe(self) -> None:
        self.erase()

    @command
    async def leave(self) -> None:
        self.passivate()

    @query
    async def amounts(self) -> list[int]:
        return self.state.amounts

    async def on_reminder(self, name: str) -> None:
        self.emit(Added(amount=int(name)))

    def apply(self, event: Added) -> None:
        self.state.amounts.append(event.amount)
        self.state.by_sign.setdefault("+" if event.amount > 0 else "-", []).append(event.amount)


class Box(Durable[Tally]):
    """The state is what is written."""

    options = OPTIONS

    @command
    async def put(self, amounts: list[int]) -> int:
        self.state.amounts.extend(amounts)
        return sum(self.state.amounts)

    @command
    async def put_and_reject(self, amounts: list[int]) -> int:
        self.state.amounts.extend(amounts)
        msg = f"not {amounts}"
        raise Rejected(msg)

    @command
    async def put_and_fail(self, amounts: list[int]) -> int:
        self.state.amounts.extend(amounts)
        raise Boom

    @command
    async def wipe(self) -> None:
        self.erase()

    @query
    async def amounts(self) -> list[int]:
        return self.state.amounts


class Lamp(Transient[Tally]):
    """Memory only: what disturbs its host may put it back to the beginning."""

    options = EntityOptions(deadline_s=300.0, passivate_after_s=30.0)

    @command
    async def add(self, amount: int) -> int:
        self.state.amounts.append(amount)
        return sum(self.state.amounts)


APP = App("ledgers", entities=[Ledger, Box, Lamp], settings=Settings(shards=4, commit_timeout_s=1.0))
LEDGERS, BOXES = ("l0", "l1"), ("b0", "b1")
PLAIN = {"l": (Ledger, "add", "add_and_reject", "add_and_fail"), "b": (Box, "put", "put_and_reject", "put_and_fail")}

keys = st.sampled_from(LEDGERS + BOXES)
ledgers, boxes = st.sampled_from(LEDGERS), st.sampled_from(BOXES)
amounts = st.integers(-9, 9).filter(bool)
several = st.lists(amounts, max_size=3)


@dataclass
class Asked:
    """A command that was decided, to be asked again."""

    entry: int
    command_id: str
    method: str
    args: tuple[Any, ...]
    answer: object


@dataclass
class Expected:
    """What one entity must be."""

    amounts: list[int] = field(default_factory=list)
    history: list[int] = field(default_factory=list)
    entries: int = 0
    decided: list[Asked] = field(default_factory=list)
    rings: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """Name → (due, period), in virtual seconds."""

    def add(self, amounts: list[int]) -> None:
        self.amounts += amounts
        self.history += amounts

    def wipe(self) -> None:
        self.amounts, self.history, self.rings = [], [], {}

    def window(self) -> list[Asked]:
        """Return the commands that must be recognised."""
        return [asked for asked in self.decided if asked.entry > self.entries - WINDOW]


class Handing(LocalPlatform):
    """A platform whose next hand-over may go wrong."""

    fault = ""

    async def hand_over(self, host: str, data: bytes) -> None:
        fault, self.fault = self.fault, ""
        if fault in {"late", "twice"}:
            asyncio.get_running_loop().call_later(0.3, self._arrive, host, data)
        if fault in {"lost", "late"}:
            msg = f"The hand-over is {fault}."
            raise HostGone(msg)
        await super().hand_over(host, data)

    def _arrive(self, host: str, data: bytes) -> None:
        if host in self.hosts:
            self.hosts[host].take(data)


class Platforms(RuleBasedStateMachine):
    """One story."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.store = FaultyStore()
        self.clock = VirtualClock()
        self.platform: Handing
        self.client: Client
        self.model = {key: Expected() for key in LEDGERS + BOXES}
        self.lamp = 0
        self.lamp_sure = True
        """Whether nothing happened that may have put the lamp back to its beginning."""
        self.lamp_used_s = 0.0
        self.ids = itertools.count(1)
        self.agreed = True

    # -- carrying out -----------------------------------------------------------------------------------

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Take one step, and let everything it set off come to an end."""
        self.agreed = False  # until the step has ended as expected
        result = self.runner.run(self._step(work))
        self.agreed = True
        return result

    async def _step(self, work: Coroutine[Any, Any, T]) -> T:
        fenced = len(self.store._fenced)
        await self._let_ring()
        began_s = self._now_s()
        # So that no id is made within the clocks' stated skew of a command that is forgotten: those may be refused.
        await pause(Host.clock_skew_ms / 1000 + 0.01)
        await self._check_journal()
        result = await work
        while await self.store.inner.outbox_counts() != (0, 0):
            await pause(0.05)
            assert self._now_s() < began_s + 500, "durable sends arrive in the end"
        if len(self.store._fenced) > fenced:
            self.lamp_sure = False
        return result

    async def _let_ring(self) -> None:
        """Let time pass over every reminder that could ring in this step: which command it meets must be certain."""
        while True:
            due = [(ring[0], key, name) for key in LEDGERS for name, ring in self.model[key].rings.items()]
            due_s, key, name = min(due, default=(float("inf"), "", ""))
            if due_s > self._now_s() + STEP_MAX_S + RING_SLACK_S:
                return
            await pause(max(due_s + RING_SLACK_S - self._now_s(), 0.0))
            expected = self.model[key]
            _, every_s = expected.rings.pop(name)
            expected.add([int(name)])
            expected.entries += 1
            if every_s is not None:
                expected.rings[name] = (due_s + every_s, every_s)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _ref(self, key: str, command_id: str = "") -> Any:  # noqa: ANN401 - of either class
        ref: Any = self.client.ref(PLAIN[key[0]][0], key)
        return ref.with_options(command_id=command_id) if command_id else ref

    async def _ask(self, key: str, method: str, *args: Any, command_id: str = "") -> object:  # noqa: ANN401 - any arguments
        """Ask, and return the reply or the message of the refusal."""
        try:
            return await getattr(self._ref(key, command_id), method)(*args)
        except Rejected as no:
            return f"rejected: {no.message}"

    async def _command(self, key: str, method: str, *args: Any) -> object:  # noqa: ANN401 - any arguments
        command_id = f"own-{next(self.ids)}"
        answer = await self._ask(key, method, *args, command_id=command_id)
        self._decided(key, command_id, method, args, answer)
        return answer

    def _decided(self, key: str, command_id: str, method: str, args: tuple[Any, ...], answer: object) -> None:
        expected = self.model[key]
        expected.entries += 1
        expected.decided.append(Asked(expected.entries, command_id, method, args, answer))

    async def _start(self) -> None:
        self.platform = Handing(APP, self.store, self.clock)
        await self.platform.start(2)
        self.client = await self.platform.client().start()

    @initialize()
    def begin(self) -> None:
        self.do(self._start())

    def teardown(self) -> None:
        try:
            if self.agreed:
                self.store.mend()
                self.do(self._all_agrees())
                self.do(self._restart())
                self.do(self._all_agrees())
        finally:
            self.store.mend()
            self.runner.run(self.platform.close())
            self.runner.close()

    async def _all_agrees(self) -> None:
        for key, expected in self.model.items():
            assert await self._ref(key).amounts() == expected.amounts, key
            if key in LEDGERS:
                events = await self._ref(key).history(limit=1000)
                assert [event["data"]["amount"] for event in events] == expected.history, key

    async def _check_journal(self) -> None:
        """Hold what is in the store against the model: one entry per thing that happened."""
        entities = {key: f"{'ledger' if key in LEDGERS else 'box'}/{key}" for key in self.model}
        for key, entity in entities.items():
            (found,) = await self.store.inner.load([Want(entity, WINDOW, events=False)])
            (known,) = await self.store.inner.known([Span(entity, 0, found.last)])
            ids = [one.command_id for one in known]
            assert found.last == self.model[key].entries, (
                f"{key}: {found.last}, {self.model[key].entries} expected, {ids}"
            )
            assert len(set(ids)) == len(ids), f"{key}: an id twice"

    # -- commands -----------------------------------------------------------------------------------------

    @rule(key=keys, commands=st.lists(several, min_size=1, max_size=WINDOW + 1))
    def commands_are_applied_once_and_answer_what_came_of_them(self, key: str, commands: list[list[int]]) -> None:
        for amounts in commands:
            answer = self.do(self._command(key, PLAIN[key[0]][1], amounts))
            self.model[key].add(amounts)
            assert answer == sum(self.model[key].amounts)

    @rule(key=keys, pipelined=st.lists(several, min_size=2, max_size=5))
    def pipelined_commands_are_applied_in_the_order_sent(self, key: str, pipelined: list[list[int]]) -> None:
        async def burst() -> list[object]:
            return list(await asyncio.gather(*(self._ask(key, PLAIN[key[0]][1], one) for one in pipelined)))

        answers = self.do(burst())
        for amounts, answer in zip(pipelined, answers, strict=True):
            self.model[key].add(amounts)
            self.model[key].entries += 1
            assert answer == sum(self.model[key].amounts)

    @rule(key=keys, amounts=several)
    def a_rejected_command_leaves_nothing_but_its_answer(self, key: str, amounts: list[int]) -> None:
        assert self.do(self._command(key, PLAIN[key[0]][2], amounts)) == f"rejected: not {amounts}"

    @rule(key=keys, amounts=several)
    def a_command_that_fails_leaves_nothing(self, key: str, amounts: list[int]) -> None:
        async def fail() -> None:
            with pytest.raises(HandlerFailed):
                await self._ask(key, PLAIN[key[0]][3], amounts)

        self.do(fail())

    @rule(key=ledgers, who=boxes, amounts=several)
    def durable_sends_arrive_once_and_in_order(self, key: str, who: str, amounts: list[int]) -> None:
        answer = self.do(self._command(key, "add_and_tell", amounts, who))
        self.model[key].add(amounts)
        self.model[who].add(amounts)
        self.model[who].entries += len(amounts)
        assert answer == sum(self.model[key].amounts)

    @rule(key=keys, place=st.integers(0, WINDOW))
    def a_repeat_within_the_window_gets_the_recorded_answer(self, key: str, place: int) -> None:
        async def repeat() -> None:
            # Chosen within the step: what rang at its beginning has taken places in the window.
            window = self.model[key].window()
            if window:
                asked = window[place % len(window)]
                assert await self._ask(key, asked.method, *asked.args, command_id=asked.command_id) == asked.answer

        self.do(repeat())

    @rule(key=keys)
    def the_oldest_command_of_the_window_is_known_after_a_crash_too(self, key: str) -> None:
        async def crash_and_repeat() -> None:
            for place in range(2):
                await self._crash(place)
            for asked in self.model[key].window()[:1]:
                assert await self._ask(key, asked.method, *asked.args, command_id=asked.command_id) == asked.answer

        self.do(crash_and_repeat())

    @rule(key=keys, place=st.integers(0, WINDOW))
    def an_id_that_stands_for_another_command_is_refused(self, key: str, place: int) -> None:
        async def reuse() -> None:
            window = self.model[key].window()
            if window:
                command_id = window[place % len(window)].command_id
                with pytest.raises(RemoraError, match="was used for another command"):
                    await self._ask(key, PLAIN[key[0]][1], [1, 2, 3, 4], command_id=command_id)

        self.do(reuse())

    @rule(key=keys)
    def a_query_sees_everything_acknowledged(self, key: str) -> None:
        assert self.do(self._ask(key, "amounts")) == self.model[key].amounts

    @rule(key=keys)
    def an_erased_entity_starts_over(self, key: str) -> None:
        self.do(self._command(key, "wipe"))
        self.model[key].wipe()

    @rule(key=ledgers, amount=st.sampled_from([7, -7]), after=st.integers(100, 900), every=st.sampled_from([None, 1e3]))
    def a_reminder_rings_when_it_is_due(self, key: str, amount: int, after: int, every: float | None) -> None:
        async def set_one() -> float:
            await self._command(key, "ring_later", amount, float(after), every)
            # The instant it was set at is the platform's affair, within this step.
            rows = await self.store.inner.due(map(str, range(APP.settings.shards)), 2**62, 1_000)
            (due_ms,) = (row.due for row in rows if (row.entity, row.name) == (f"ledger/{key}", str(amount)))
            due_s: float = self._now_s() + (due_ms - self.clock.now_ms()) / 1000
            assert due_s <= self._now_s() + after
            return due_s

        self.model[key].rings[str(amount)] = (self.do(set_one()), every)

    @rule(amount=amounts)
    def a_transient_entity_goes_on_or_begins_anew(self, amount: int) -> None:
        async def add() -> tuple[int, float]:
            return await self.client.ref(Lamp, "lamp").add(amount), self._now_s()

        before_s = self.lamp_used_s
        total, now_s = self.do(add())
        sure = self.lamp_sure and now_s - before_s < 25 and not self.store._fence_next
        assert total == self.lamp + amount or (not sure and total == amount)
        self.lamp, self.lamp_sure, self.lamp_used_s = total, True, now_s

    # -- failures -----------------------------------------------------------------------------------------

    @rule(times=st.integers(1, 3), after=st.booleans())
    def commits_will_fail(self, times: int, after: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
        self.store.fail_next(times=times, after=after)

    @rule(times=st.integers(1, 3), method=st.sampled_from(["load", "reincarnate", "outbox", "read_table", "due"]))
    def the_store_will_not_answer(self, times: int, method: str) -> None:
        self.store.fail_next(method, times=times)

    @rule()
    def a_host_will_be_fenced(self) -> None:
        self.store.fence_next()

    @rule(place=st.integers(0, 3))
    def a_host_crashes(self, place: int) -> None:
        self.do(self._crash(place))

    async def _crash(self, place: int) -> None:
        names = sorted(self.platform.hosts)
        if names:
            await self.platform.crash(names[place % len(names)])
            self.lamp_sure = False

    @rule(key=keys, amounts=several, written=st.booleans())
    def a_host_crashes_in_the_middle_of_a_commit(self, key: str, amounts: list[int], written: bool) -> None:  # noqa: FBT001 - drawn
        async def crash() -> object:
            self.store.mend()
            if not written:
                self.store.hold()
            asking = asyncio.create_task(self._command(key, PLAIN[key[0]][1], amounts))
            appends = len(self.store.appends)
            for _ in range(1_000):
                if self.store.waiting or len(self.store.appends) > appends or asking.done():
                    break
                await pause(0)
            for place in range(2):
                await self._crash(place)
            self.store.let_go()
            return await asking

        answer = self.do(crash())
        self.model[key].add(amounts)
        assert answer == sum(self.model[key].amounts)

    @rule(key=ledgers, theirs=amounts, mine=several)
    def a_second_writer_is_noticed_before_anything_is_acknowledged(
        self, key: str, theirs: int, mine: list[int]
    ) -> None:
        self.do(self._ask(key, "amounts"))
        self.do(self._write_beside(key, theirs))
        self.model[key].add([theirs])
        self.model[key].entries += 1
        self.lamp_sure = False

        answer = self.do(self._command(key, "add", mine))

        self.model[key].add(mine)
        assert answer == sum(self.model[key].amounts)

    async def _write_beside(self, key: str, amount: int) -> None:
        store: Any = self.store.inner
        entity = f"ledger/{key}"
        (found,) = await store.load([Want(entity, 1, events=False)])
        events = f'[["Added",{{"amount":{amount}}}]]'.encode()
        incarnation = await store.join(HostRow(0, "second"))
        row = (
            entity,
            found.last + 1,
            found.last_seq + 1,
            events,
            f"second-{next(self.ids)}",
            0,
            b"0",
            self.clock.now_ms(),
            0,
        )
        await store.append(incarnation, Append(entries=[row]))
        store._standing.discard(incarnation)  # nobody is to give it shards

    @rule(key=keys, fault=st.sampled_from(["", "", "lost", "late", "twice"]))
    def a_shard_moves(self, key: str, fault: str) -> None:
        async def moved() -> None:
            entity = f"{'ledger' if key in LEDGERS else 'box'}/{key}"
            if len(self.platform.hosts) > 1 and any(
                host.shard_name(entity) in host.shards for host in self.platform.hosts.values()
            ):
                self.store.mend()
                self.platform.fault = fault
                await move(self.platform, entity)
                self.platform.fault = ""
                if fault in {"lost", "late"}:
                    self.lamp_sure = False  # unless its shard is another one; without a fault it moves as it is

        self.do(moved())

    @rule(seconds=st.sampled_from([0.3, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(pause(seconds))

    @rule(key=ledgers)
    def an_entity_leaves_memory(self, key: str) -> None:
        async def leave() -> None:
            await self._command(key, "leave")
            await pause(0.6)

        self.do(leave())

    @rule()
    def everything_is_started_again_on_the_same_store(self) -> None:
        self.do(self._restart())

    async def _restart(self) -> None:
        self.store.mend()
        await self.platform.close()
        await self._start()
        self.lamp_sure = False


async def pause(seconds: float) -> None:
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, done.cancel)
    await asyncio.wait([done])


def run(monkeypatch: pytest.MonkeyPatch, *, stories: int, steps: int, part: int = 0) -> None:
    monkeypatch.setattr(hosts, "Lease", VirtualLease)
    logging.getLogger("remora").setLevel(logging.CRITICAL)
    run_state_machine_as_test(
        seed(SEED + part)(Platforms),
        settings=settings(
            max_examples=stories,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,  # one story is enough, and is shrunk sooner
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(300)  # of which it needs few, unless it fails: the story is shrunk then
def test_whatever_happens_the_platform_is_what_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, stories=100, steps=30)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", [0, 1])  # each of another process
def test_whatever_happens_for_long_the_platform_is_what_the_model_says(
    monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    run(monkeypatch, stories=150, steps=80, part=part)
