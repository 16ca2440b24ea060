"""Writes the history of the release at hand: what it left in a store, and what must be read out of that.

    python -m tests.histories.write 0.2.0

makes ``0.2.0.sql``, the journal as text, and ``0.2.0.json``, what its entities answered. Neither is
ever written again: they stand for the stores of everybody who ran that release.
"""

import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import remora
from entities.account import Account
from entities.counter import Counter
from remora import Rejected
from tests.histories.app import Inbox, app

HERE = Path(__file__).parent
FAR_S = 10.0**8
"""Three years: a reminder that does not come due while the history is written."""


async def live(client: remora.Client) -> dict[str, Any]:
    """Run some of everything and return what must still be true of it later."""
    alice, zoe = client.ref(Account, "alice"), client.ref(Account, "Zoë ü-x")
    replies = {f"pay-{n}": await alice.with_options(command_id=f"pay-{n}").deposit(n + 1) for n in range(250)}
    with contextlib.suppress(Rejected):
        await alice.with_options(command_id="too-much").withdraw(10**9)
    await zoe.deposit(7)
    visits = client.ref(Counter, "visits")
    counts = {f"visit-{n}": await visits.with_options(command_id=f"visit-{n}").increment(2) for n in range(5)}
    one, two = client.ref(Inbox, "one"), client.ref(Inbox, "two")
    for word in ("first", "second", "third"):
        await one.tell("two", word)
    await one.wake("later", FAR_S)
    async with asyncio.timeout(10):
        while len((await two.snapshot())["heard"]) < 3:  # noqa: ASYNC110 - what it waits for is in another entity
            await asyncio.sleep(0.01)  # noqa: TID251 - between looks
    refs: dict[str, Any] = {
        "account/alice": alice,
        "account/Zoë ü-x": zoe,
        "counter/visits": visits,
        "inbox/one": one,
        "inbox/two": two,
    }
    return {
        "replies": {"account/alice": replies, "counter/visits": counts},
        "rejected": {"account/alice": "too-much"},
        "states": {key: await ref.snapshot() for key, ref in refs.items()},
        "events": {"account/alice": await alice.history(limit=1000), "inbox/two": await two.history()},
        "reminders": [["inbox/one", "later"]],
    }


async def write(release: str) -> None:
    """Write the two files of one release."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        async with remora.local(app, store=f"sqlite:///{path}") as client:
            truth = await live(client)
        with closing(sqlite3.connect(path)) as connection:
            # Nothing of the machine it was written on.
            connection.execute("DELETE FROM meta WHERE key = 'machine'")
            connection.execute("UPDATE hosts SET machine = '', pid = 0, started = 0")
            connection.commit()
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            script = [*connection.iterdump(), f"PRAGMA user_version={version};"]
    (HERE / f"{release}.sql").write_text("\n".join(script) + "\n", encoding="utf-8")
    (HERE / f"{release}.json").write_text(json.dumps(truth, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1]))
