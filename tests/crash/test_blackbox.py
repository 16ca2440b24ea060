"""Who took a process down is read from what it left, and none of the many that ran beside it is ever named."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from remora.process import started_s
from remora.runtime import blackbox
from remora.runtime.blackbox import BlackBox, LastWords, last_words, remove

pytestmark = pytest.mark.timeout(120)
ENDED_S = 60.0
BOUND_US = 20.0
"""What entering and leaving may take at most, in µs, on a machine that is busy with other tests; measured: 0.8."""


async def died(way: str, where: str) -> LastWords | None:
    """Have a process go down; return its last words."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.brittle", way, where,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(ENDED_S):
            assert process.stdout is not None
            started = float(await process.stdout.readline())
            assert await process.wait() != 0
        return await asyncio.to_thread(last_words, process.pid, started)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        remove(process.pid, started)


@pytest.mark.parametrize("where", ["loop", "task", "thread"])
@pytest.mark.parametrize(
    ("way", "cause"),
    [("segfault", "Segmentation fault"), ("abort", "Aborted"), ("leave", "os._exit(7)")],
)
async def test_the_thread_that_took_its_process_down_is_named_with_what_it_ran(
    way: str, cause: str, where: str
) -> None:
    assert await died(way, where) == LastWords(cause, ("bad/one", "crash"))


@pytest.mark.parametrize("where", ["loop", "task"])
async def test_a_handler_that_keeps_its_loop_past_the_limit_is_ended_and_named(where: str) -> None:
    words = await died("spin", where)

    assert words is not None
    assert words.culprit == ("bad/one", "crash")
    assert "kept its host from everything else" in words.cause


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_handler_that_takes_all_memory_is_ended_and_named(where: str) -> None:
    words = await died("hoard", where)

    assert words is not None
    assert words.culprit == ("bad/one", "crash")
    assert "of memory" in words.cause or (where == "loop" and "kept its host" in words.cause)


@pytest.mark.parametrize("where", ["loop", "thread"])
@pytest.mark.parametrize("way", ["killed", "killed_after_a_child_crashed"])
async def test_a_process_that_is_killed_from_outside_blames_nobody_whatever_it_ran(way: str, where: str) -> None:
    assert await died(way, where) == LastWords("", None)


def test_a_process_that_ends_as_it_should_leaves_nothing() -> None:
    box = BlackBox(1)
    box.listen()
    box.loop.enter("good/one", "wait")
    box.close()

    assert last_words(os.getpid(), started_s(os.getpid())) is None


def test_what_is_left_of_processes_long_ended_is_tidied_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackbox, "SHARED_MEMORY", tmp_path)
    box = BlackBox(1)
    folder = tmp_path / f"remora-{os.getuid()}"
    old, young = (folder / f"{pid}-1.00.box" for pid in (999_999_991, 999_999_992))
    for path in (old, young):
        path.write_bytes(b"")
    long_ago = young.stat().st_mtime - 2 * blackbox.TIDY_S
    os.utime(old, (long_ago, long_ago))

    blackbox.tidy()

    assert not old.exists()
    assert young.exists()
    assert last_words(os.getpid(), started_s(os.getpid())) == LastWords("", None)
    box.close()


def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackbox, "SHARED_MEMORY", tmp_path)
    (tmp_path / f"remora-{os.getuid()}").mkdir()
    (tmp_path / f"remora-{os.getuid()}").chmod(0o777)

    with pytest.raises(PermissionError, match="this user's alone"):
        BlackBox(1)
    assert last_words(os.getpid(), started_s(os.getpid())) is None


def test_saying_what_runs_costs_next_to_nothing() -> None:
    box = BlackBox(1)
    began = time.perf_counter()
    for _ in range(10_000):
        box.loop.enter("account/alice", "deposit")
        box.loop.leave()
    took_us = (time.perf_counter() - began) * 100
    box.close()

    assert took_us < BOUND_US
