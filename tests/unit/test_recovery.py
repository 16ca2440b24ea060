"""Recovery: snapshots by count and size, several kept, those that cannot be read, pages, what may be deleted; erasing."""

# ruff: noqa: SLF001 - rows are spoilt by hand, cells looked into

from typing import Any

import pytest
from pydantic import BaseModel

import remora
from remora import App, Durable, EntityOptions, Event, EventSourced, Settings, command, query
from remora.local import LocalPlatform
from remora.runtime import recovery
from remora.storage.memory import MemoryStore
from remora.testing import ManualClock
from tests import platforms, things
from tests.clock import until
from tests.platforms import host_of


class Log(BaseModel):
    lines: list[str] = []


class Wrote(Event):
    line: str


class Book(EventSourced[Log, Wrote]):
    """Snapshots every ten entries or 1,000 bytes; keeps two of them and a window of four."""

    options = EntityOptions(snapshot_every=10, snapshot_bytes=1_000, snapshots_kept=2, dedup_window=4)

    @command
    async def write(self, *, line: str) -> int:
        self.emit(Wrote(line=line))
        return len(self.state.lines)

    @command
    async def write_all(self, *, lines: list[str]) -> int:
        for line in lines:
            self.emit(Wrote(line=line))
        return len(self.state.lines)

    @command
    async def burn(self) -> None:
        self.emit(Wrote(line="the end"))
        self.erase()

    @command
    async def burn_and_raise(self) -> None:
        self.erase()
        raise things.Boom

    @command
    async def ring(self, *, name: str, after: float) -> None:
        self.remind(name, after=after)

    async def on_reminder(self, name: str) -> None:
        self.emit(Wrote(line=name))

    @query
    async def read(self) -> list[str]:
        return self.state.lines

    def apply(self, event: Wrote) -> None:
        self.state.lines.append(event.line)


class Forgetful(Book):
    """The same, and its old events are deleted."""

    options = EntityOptions(snapshot_every=10, snapshots_kept=2, dedup_window=4, delete_events=True)


class Slate(Durable[Log]):
    """Keeps a state."""

    options = EntityOptions(snapshot_every=5, dedup_window=4)

    @command
    async def write(self, *, line: str) -> int:
        self.state.lines.append(line)
        return len(self.state.lines)

    @command
    async def wipe(self) -> None:
        self.erase()

    @query
    async def read(self) -> list[str]:
        return self.state.lines


app = App("books", entities=[Book, Forgetful, Slate], settings=Settings(shards=8))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remora.storage.memory.PAGE_ENTRIES", 7)
    monkeypatch.setattr(recovery, "PAGE_ENTRIES", 7)


async def fill(entity: Any, count: int) -> list[str]:  # noqa: ANN401 - of either kind
    for n in range(count):
        await entity.write(line=f"line {n}")
    return [f"line {n}" for n in range(count)]


async def crash(platform: LocalPlatform, key: str) -> None:
    await platform.crash(host_of(platform, key).name)


async def test_a_snapshot_is_taken_every_so_many_entries_and_so_many_are_kept(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (_, client):
        await fill(client.ref(Book, "b"), 35)

        assert sorted(store._snapshots["book/b"]) == [20, 30]


async def test_a_snapshot_is_taken_when_the_events_since_the_last_one_are_large(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (_, client):
        book = client.ref(Book, "b")
        for _ in range(4):
            await book.write(line="x" * 400)

        assert sorted(store._snapshots["book/b"]) == [3]


async def test_a_count_crossed_in_the_middle_of_a_command_snapshots_after_it(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        book = client.ref(Book, "b")
        await fill(book, 9)
        await book.write_all(lines=["a", "b", "c"])
        await crash(platform, "book/b")

        assert store._snapshots["book/b"][10][2] == 12, "It stands behind all three events."
        assert (await book.read())[-3:] == ["a", "b", "c"]


async def test_what_a_command_does_later_does_not_reach_into_a_snapshot(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (_, client):
        lines = await fill(client.ref(Book, "b"), 10)
        await client.ref(Book, "b").write(line="later")

        assert Log.model_validate_json(store._snapshots["book/b"][10][3]).lines == lines


@pytest.mark.parametrize("spoilt", [b"not JSON", b'{"lines":7}', b"{}garbage"])
@pytest.mark.parametrize("which", [[30], [20, 30]])
async def test_a_snapshot_that_cannot_be_read_is_no_loss(store: MemoryStore, spoilt: bytes, which: list[int]) -> None:
    async with platforms.running(app, store) as (platform, client):
        book = client.ref(Book, "b")
        lines = await fill(book, 35)
        for n in which:
            row = store._snapshots["book/b"][n]
            store._snapshots["book/b"][n] = (*row[:3], spoilt, *row[4:])
        await crash(platform, "book/b")

        assert await book.read() == lines
        assert await book.write(line="more") == 36
        assert await book.with_options(command_id="x").write(line="more") == 37


async def test_a_snapshot_that_is_missing_is_no_loss(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        book = client.ref(Book, "b")
        lines = await fill(book, 35)
        store._snapshots.clear()
        await crash(platform, "book/b")

        assert await book.read() == lines


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("count", [6, 7, 8, 13, 14, 15, 60])
async def test_a_long_journal_is_read_back_page_by_page(store: MemoryStore, count: int) -> None:
    async with platforms.running(app, store) as (platform, client):
        book = client.ref(Book, "b")
        lines = await fill(book, count)
        last = await book.with_options(command_id="last").write(line="last")
        store._snapshots.clear()
        store._marks.clear()
        await crash(platform, "book/b")

        assert await book.read() == [*lines, "last"]
        assert await book.with_options(command_id="last").write(line="last") == last == count + 1


@pytest.mark.usefixtures("small_pages")
async def test_an_entity_that_leaves_while_it_is_read_back_does_not_come_back_twice(store: MemoryStore) -> None:
    async with platforms.running(app, store, hosts=2) as (platform, client):
        book = client.ref(Book, "b")
        lines = await fill(book, 60)
        store._snapshots.clear()
        await crash(platform, "book/b")
        reading = client.ref(Book, "b").read()
        for _ in range(3):
            await platforms.move(platform, "book/b")

        assert await reading == lines
        assert await book.read() == lines


async def test_events_are_kept_unless_their_type_lets_them_go(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (_, client):
        await fill(client.ref(Book, "b"), 50)
        await fill(client.ref(Forgetful, "f"), 50)

        assert list(store._entries["book/b"]) == list(range(1, 51))
        assert list(store._entries["forgetful/f"]) == list(range(41, 51)), "behind the older of two snapshots"


async def test_after_events_were_deleted_everything_is_there_after_a_crash(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        entity = client.ref(Forgetful, "f")
        lines = await fill(entity, 57)
        for n in (50,):
            row = store._snapshots["forgetful/f"][n]
            store._snapshots["forgetful/f"][n] = (*row[:3], b"spoilt", *row[4:])
        await crash(platform, "forgetful/f")

        assert await entity.read() == lines
        assert [event["seq"] for event in await entity.history(limit=100)] == list(range(41, 58))


async def test_deleted_events_with_no_snapshot_left_to_read_are_corrupt_and_never_half_a_state(
    store: MemoryStore,
) -> None:
    async with platforms.running(app, store) as (platform, client):
        entity = client.ref(Forgetful, "f")
        await fill(entity, 57)
        store._snapshots.clear()
        await crash(platform, "forgetful/f")

        with pytest.raises(remora.Corrupt, match="entries 1 to 40 are missing, and no snapshot after them can be read"):
            await entity.read()


async def test_what_could_not_be_read_is_tried_again_after_a_while(store: MemoryStore) -> None:
    clock = ManualClock()
    async with platforms.running(app, store, clock=clock) as (platform, client):
        entity = client.ref(Slate, "s")
        await entity.write(line="a")
        row = store._states["slate/s"]
        store._states["slate/s"] = (*row[:3], b"spoilt", *row[4:])
        await crash(platform, "slate/s")
        with pytest.raises(remora.Corrupt, match="the state of version 1 cannot be read by Slate"):
            await entity.read()

        store._states["slate/s"] = row
        clock.advance(6)
        host_of(platform, "slate/s").passivation.round()

        assert await entity.read() == ["a"]


async def test_a_durable_entity_keeps_no_more_entries_than_it_remembers(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        entity = client.ref(Slate, "s")
        lines = await fill(entity, 50)
        last = await entity.with_options(command_id="last").write(line="last")
        await crash(platform, "slate/s")

        assert min(store._entries["slate/s"]) > 40
        assert await entity.with_options(command_id="last").write(line="last") == last
        assert await entity.read() == [*lines, "last"]


# -- erasing -----------------------------------------------------------------------------------------


async def test_an_erased_entity_starts_over_and_its_numbers_go_on(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        book = client.ref(Book, "b")
        await fill(book, 25)
        await book.burn()
        assert await book.read() == []
        await crash(platform, "book/b")
        assert await book.read() == []

        await book.write(line="anew")
        await crash(platform, "book/b")

        assert await book.read() == ["anew"]
        events = await book.history(limit=100)
        assert [(event["seq"], event["data"]["line"]) for event in events] == [(26, "the end"), (27, "anew")]


async def test_commands_of_before_are_still_recognised_after_erasing(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        book = client.ref(Book, "b")
        await fill(book, 12)
        await book.with_options(command_id="before").write(line="before")
        await book.with_options(command_id="burn").burn()
        await crash(platform, "book/b")

        assert await book.with_options(command_id="before").write(line="before") == 13
        await book.with_options(command_id="burn").burn()
        assert await book.write(line="one") == 1


async def test_erasing_takes_the_reminders_along(store: MemoryStore) -> None:
    clock = ManualClock()
    async with platforms.running(app, store, clock=clock) as (platform, client):
        book = client.ref(Book, "b")
        await book.ring(name="old", after=5)
        await book.burn()
        await book.ring(name="new", after=5)
        clock.advance(10)
        reminders = host_of(platform, "book/b").reminders
        await reminders.fire_due()
        await until(lambda: not reminders._firing)

        assert await book.read() == ["new"]


async def test_a_command_that_erases_and_raises_erases_nothing(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        book = client.ref(Book, "b")
        lines = await fill(book, 12)
        with pytest.raises(remora.HandlerFailed):
            await book.burn_and_raise()
        assert await book.read() == lines
        await crash(platform, "book/b")

        assert await book.read() == lines


async def test_a_durable_entity_can_be_erased_too(store: MemoryStore) -> None:
    async with platforms.running(app, store) as (platform, client):
        slate = client.ref(Slate, "s")
        await fill(slate, 7)
        await slate.wipe()
        assert await slate.write(line="anew") == 1
        await crash(platform, "slate/s")

        assert await slate.read() == ["anew"]
