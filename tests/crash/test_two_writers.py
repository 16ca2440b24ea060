"""Two real processes on one store: the first is stopped, the second takes over, the first goes on."""

import asyncio
import fcntl
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from remora import Client
from remora.clock import SystemClock
from remora.errors import RemoraError, decode_error
from remora.messages import CREDITS, ERROR, REPEATED_ERROR, decode_answers, decode_batch
from tests.crash.app import Ledger, app
from tests.crash.conftest import Lives
from tests.crash.link import Link
from tests.crash.lives import Life, until
from tests.crash.load import CLIENTS, LEDGERS, Load
from tests.crash.witness import check_answers, read_journal, read_rows

pytestmark = pytest.mark.timeout(120)
TTL_S = app.settings.lease_ttl_s
TAKEN_OVER_S = 20.0
"""Within which the second process is to serve, in seconds: the lease has to be seen to end, and the machine may be busy."""
LATER_S = 2 * TTL_S
"""How long the resumed process is asked: longer than any lease that it could believe to hold."""
SECOND = 1_000_000
"""First value of the load on the second process."""


class Spoken(NamedTuple):
    """One answer of the first process, as its bytes came."""

    query: bool
    late: bool
    """Whether it was asked after the takeover."""
    error: str
    """Name of the error's class; empty for a reply."""


class Listener(Link):
    """A link that notes every answer, also those after which a client asks again."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.late = False
        self.spoken: list[Spoken] = []
        self._asked: dict[tuple[str, int], tuple[bool, bool]] = {}

    async def exchange(self, host: str, data: bytes) -> bytes:
        batch = decode_batch(data)
        for ask in batch.asks:
            self._asked[batch.session, ask.n] = (not ask.command_id, self.late)
        answers = await super().exchange(host, data)
        for n, verdict, payload in decode_answers(answers):
            if verdict == CREDITS:  # answers nothing
                continue
            query, late = self._asked[batch.session, n]
            error = type(decode_error(payload)).__name__ if verdict in {ERROR, REPEATED_ERROR} else ""
            self.spoken.append(Spoken(query, late, error))
        return answers


def write_lock_is_held(store_url: str) -> bool:
    path = store_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        other.execute("ROLLBACK")
        return False


def turn_is_held(store_url: str) -> bool:
    if not store_url.startswith("sqlite:"):
        return False  # the server knows no turns
    turn = os.open(store_url.removeprefix("sqlite:///") + "-turn", os.O_RDWR)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(turn)
    return False


async def freeze(life: Life, link: Link, where: str, store_url: str, rng: random.Random) -> None:
    """Stop a process: anywhere, between two commits, or within a statement that writes."""
    if where == "writing":
        asking = asyncio.create_task(link.ask("freeze", where))  # it may stop before it answers
        await until(lambda: life.frozen, 10.0, "it is frozen")
        asking.cancel()
        assert write_lock_is_held(store_url)
        return
    while True:
        await asyncio.sleep(rng.uniform(0.0, 0.3))  # noqa: TID251 - the moment of the stop
        life.signal(signal.SIGSTOP)
        await until(lambda: life.frozen, 10.0, "it is frozen")
        if where == "anywhere" or not turn_is_held(store_url):
            return
        life.signal(signal.SIGCONT)


async def ask_late(link: Listener) -> list[object]:
    """Ask the first process, which may believe that nothing happened, from a client that knows nothing either."""
    link.late = True
    async with Client(link, link, SystemClock(), app.settings, "late") as client:
        refs = [client.ref(Ledger, str(n)).with_options(deadline_s=LATER_S) for n in range(LEDGERS)]
        # Queries first: the first command to fail shows the process what became of it.
        seen = await asyncio.gather(*(ref.seen() for ref in refs), return_exceptions=True)
        added = await asyncio.gather(*(ref.add(SECOND - n) for n, ref in enumerate(refs, 1)), return_exceptions=True)
        return [*seen, *added]


def first_values(store_url: str) -> dict[str, list[int]]:
    """Return what the first process's load has in the journal."""
    histories = read_journal(store_url).histories
    return {key: [value for value in values if value < SECOND] for key, values in histories.items()}


# On SQLite a writer that is stopped within a commit holds the file's lock and has to be killed; on PostgreSQL the server
# ends what it left open, so that it may be stopped anywhere.
@pytest.mark.parametrize(
    ("store_url", "where", "killed"),
    [
        ("sqlite", "anywhere", True),
        ("sqlite", "writing", True),
        ("sqlite", "ready", True),
        ("sqlite", "ready", False),
        ("sqlite", "between", False),
        ("sqlite", "quiet", False),
        ("postgres", "anywhere", True),
        ("postgres", "anywhere", False),
        ("postgres", "quiet", False),
    ],
    indirect=["store_url"],
    ids=lambda value: value if isinstance(value, str) else "killed" if value else "fenced only",
)
async def test_a_writer_suspended_past_its_lease_commits_nothing_acknowledges_nothing_and_answers_no_query_after_the_takeover(
    lives: Lives, tmp_path: Path, rng: random.Random, where: str, *, killed: bool
) -> None:
    first, second = lives.begun("first"), lives.ready("second", *(["--cluster"] if killed else []))
    listeners = [Listener(first.socket) for _ in range(CLIENTS)]
    links = [Link(second.socket) for _ in range(CLIENTS)]
    async with (
        Load(listeners, tmp_path / "witness-1", rng) as before,
        Load(links, tmp_path / "witness-2", rng, first=SECOND) as after,
    ):
        await until(lambda: before.witness.answers > 1_000, 20.0, "the first process answers")
        if where in {"quiet", "ready"}:  # it has nothing to commit, and so no commit that fails
            await before.finish()
            await until(lambda: read_journal(lives.store_url).outbox == 0, 20.0, "all sends are delivered")
        if where == "ready":
            # One commit, of an entity that nobody else writes: nothing but the fence keeps it out.
            own = before.clients[0].ref(Ledger, "first").with_options(deadline_s=2 * LATER_S)
            await listeners[0].ask("freeze", where)  # it has nothing to commit yet, and so answers
            commanded = asyncio.create_task(own.add(SECOND - 100))
            await until(lambda: first.frozen, 10.0, "it is frozen")
            commanded.cancel()
            assert not write_lock_is_held(lives.store_url)
        else:
            await freeze(first, listeners[0], where, lives.store_url, rng)
        began_s = time.perf_counter()
        second.begin()
        await until(lambda: after.witness.answers > 500, TAKEN_OVER_S, "the second process has taken over")
        taken_s = time.perf_counter() - began_s
        at_takeover = first_values(lives.store_url)

        for listener in listeners:
            listener.late = True
        spoken = sum(len(listener.spoken) for listener in listeners)
        first.signal(signal.SIGCONT)
        outcomes = [] if killed else await ask_late(listeners[0])
        more = after.witness.answers + 500
        await until(lambda: after.witness.answers > more, 20.0, "the second process goes on")
        await after.finish()

        assert first.status == (-signal.SIGKILL if killed else None)
        said = [one for listener in listeners for one in listener.spoken if one.late]
        assert {type(one) for one in outcomes if not isinstance(one, RemoraError)} == set()
        assert {one for one in said if not one.error} == set(), "the first process answered after the takeover"
        assert killed or {one.query for one in said} == {True, False}, "it was asked, and refused"
        assert first_values(lives.store_url) == at_takeover, "the first process committed after the takeover"
        histories = read_journal(lives.store_url).histories
        answers = [one for load in (before, after) for one in load.witness.read()[1]]
        check_answers(answers, histories)
        assert {one.value for one in answers if one.what == "reply"} <= {v for vs in histories.values() for v in vs}
        assert after.witness.read()[2] == []
        fenced = read_rows(lives.store_url, "SELECT name, fenced FROM hosts WHERE name LIKE 'first-%'")
        assert {flag for _, flag in fenced} == {1}
    names = sorted({one.error for one in said})
    print(f"{where}: taken over after {taken_s:.1f} s; then {len(said)} of {spoken + len(said)} answers, all {names}")  # noqa: T201 - shown with -s
