"""Group commit: what leaves leaves after its commit, and a failed commit fails all behind it."""

import asyncio
from typing import Any

import pytest

from remora.errors import Fenced, RemoraError, StoreUnavailable, decode_error
from remora.journal import Append
from remora.runtime.committer import Commit, Committer
from tests.clock import turns


class Sink:
    """Collects answers."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, int, bytes]] = []

    def answer(self, n: int, verdict: int, payload: bytes) -> None:
        self.answers.append((n, verdict, payload))


class Bench:
    """A committer whose writes wait for the test."""

    def __init__(self, rows_max: int = 100, timeout_s: float = 10.0) -> None:
        self.sink = Sink()
        self.writes: list[tuple[Append, asyncio.Future[None]]] = []
        self.failed: list[tuple[list[Commit], RemoraError]] = []
        self.committer = Committer(self._write, rows_max, timeout_s, self._failed)
        self.n = 0

    async def _write(self, append: Append) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writes.append((append, done))
        await done

    async def _failed(self, commits: list[Commit], error: RemoraError) -> None:
        self.failed.append((commits, error))

    def add(self, count: int = 1) -> Commit:
        for _ in range(count):
            self.n += 1
            commit = self.committer.open()
            commit.append.entries.append((f"a/{self.n}", 1, 0, None, "c", 0, b"", 0, 0))
            commit.answers.append((self.sink, self.n, 0, b"1"))
        return commit

    async def confirm(self, error: Exception | None = None) -> None:
        await turns(3)
        _, done = self.writes[-1]
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
        await turns(3)

    def rows(self) -> list[int]:
        return [len(append.entries) for append, _ in self.writes]

    def answered(self) -> list[int]:
        return [n for n, _, _ in self.sink.answers]


async def test_answers_leave_after_their_commit_and_in_order() -> None:
    bench = Bench()
    bench.add(3)
    await turns()
    assert bench.answered() == []

    await bench.confirm()

    assert bench.sink.answers == [(1, 0, b"1"), (2, 0, b"1"), (3, 0, b"1")]


async def test_one_commit_is_written_while_the_next_one_fills() -> None:
    bench = Bench()
    bench.add()
    await turns()
    for _ in range(5):
        bench.add()
        await turns()
    assert bench.rows() == [1], "one at a time"

    await bench.confirm()
    assert (bench.rows(), bench.answered()) == ([1, 5], [1])
    await bench.confirm()
    assert bench.answered() == [1, 2, 3, 4, 5, 6]
    assert (bench.committer.commits, bench.committer.rows) == (2, 6)


async def test_a_commit_holds_no_more_rows_than_allowed() -> None:
    bench = Bench(rows_max=4)
    bench.add(10)
    for _ in range(3):
        await bench.confirm()

    assert bench.rows() == [4, 4, 2]


@pytest.mark.parametrize("raised", [StoreUnavailable("away"), Fenced("ended"), OSError("disk"), TimeoutError()])
async def test_a_failed_commit_fails_all_behind_it_and_none_of_them_is_written(raised: Exception) -> None:
    bench = Bench(rows_max=2)
    told: list[RemoraError | None] = []
    commit = bench.add(5)
    commit.waiters.append(told.append)

    await bench.confirm(raised)

    assert bench.rows() == [2], "nothing after it was written"
    assert bench.answered() == [1, 2, 3, 4, 5]
    errors = [decode_error(payload) for _, verdict, payload in bench.sink.answers if verdict == 1]
    assert len(errors) == 5
    assert {type(error) for error in errors} == {Fenced if isinstance(raised, Fenced) else StoreUnavailable}
    assert [len(commits) for commits, _ in bench.failed] == [3]
    assert len(told) == 1
    assert isinstance(told[0], RemoraError)


async def test_after_a_failed_commit_the_next_one_is_written() -> None:
    bench = Bench()
    bench.add()
    await bench.confirm(StoreUnavailable("away"))
    bench.add()
    await bench.confirm()

    assert [verdict for _, verdict, _ in bench.sink.answers] == [1, 0]


async def test_a_store_that_does_not_answer_in_time_has_not_confirmed() -> None:
    bench = Bench(timeout_s=0.01)
    bench.add()
    await asyncio.wait_for(bench.committer.flush(), 5)

    (_, verdict, payload) = bench.sink.answers[0]
    assert verdict == 1
    assert "outcome is unknown" in decode_error(payload).message


async def test_flush_waits_for_what_is_open_and_not_for_what_comes_after() -> None:
    bench = Bench()
    bench.add()
    await turns()
    bench.add()
    flushed = asyncio.create_task(bench.committer.flush())
    await turns()
    await bench.confirm()
    bench.add()
    assert not flushed.done()

    await bench.confirm()

    assert flushed.done()
    assert bench.rows() == [1, 1, 1], "the third is still being written"
    await bench.confirm()


async def test_flush_returns_at_once_when_there_is_nothing_and_when_the_commit_fails() -> None:
    bench = Bench()
    await bench.committer.flush()
    bench.add()
    flushed = asyncio.create_task(bench.committer.flush())
    await bench.confirm(StoreUnavailable("away"))

    assert flushed.done()


async def test_an_abandoned_committer_writes_nothing_more_and_lets_go_of_who_waits() -> None:
    bench = Bench(rows_max=1)
    bench.add(3)
    flushed = asyncio.create_task(bench.committer.flush())
    await turns()

    bench.committer.abandon()
    await turns()

    assert flushed.done()
    assert (bench.rows(), bench.answered()) == ([1], [])


async def test_what_waits_for_a_commit_without_rows_is_released_too() -> None:
    bench = Bench()
    told: list[Any] = []
    bench.committer.open().waiters.append(told.append)
    await turns()

    assert (told, bench.writes) == ([None], [])
