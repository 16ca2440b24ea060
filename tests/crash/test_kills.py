"""A real process, really killed, again and again on one store; what it acknowledged is witnessed outside of it."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from remora import local
from tests.conftest import SEED
from tests.crash.app import app
from tests.crash.conftest import Lives
from tests.crash.link import Link
from tests.crash.lives import until
from tests.crash.load import CLIENTS, Load, ask_again
from tests.crash.witness import check, read_journal

FEW, MANY = 10, 200


async def kill_again_and_again(lives: Lives, load: Load, rng: random.Random, kills: int) -> int:
    """Return how many of the kills came before a life had answered anything."""
    early = 0
    life = lives.begun("life")
    for number in range(kills):
        following = lives.ready("life")
        before = load.witness.answers
        if number == 0 or rng.random() < 0.3:  # while it opens the store, joins, reads back
            await asyncio.sleep(rng.uniform(0.0, 0.15))  # noqa: TID251 - the moment of the kill
        else:
            await until(lambda before=before: load.witness.answers > before, 20.0, "a life that answers")  # type: ignore[misc]
            await asyncio.sleep(rng.uniform(0.005, 0.4))  # noqa: TID251 - the moment of the kill
        assert life.status is None, life.log.read_text()[-4000:]
        life.kill()
        early += load.witness.answers == before
        life = following
        life.begin()
    return early


async def survive(lives: Lives, folder: Path, rng: random.Random, kills: int) -> None:
    began_s = time.perf_counter()
    async with Load([Link(folder / "life.socket") for _ in range(CLIENTS)], folder / "witness", rng) as load:
        early = await kill_again_and_again(lives, load, rng, kills)
        before = load.witness.answers
        await until(lambda: load.witness.answers > before + 500, 20.0, "the last life answers")
        await load.finish()
        await until(lambda: read_journal(lives.store_url).outbox == 0, 20.0, "all sends are delivered")
        retries = sum(client.retries for client in load.clients)
        lives.end()  # the last life ends as all the others did

        journal = read_journal(lives.store_url)
        check(load.witness, journal)
        async with local(app, store=lives.store_url) as client:
            repeated = await ask_again(client, load.witness, journal)
        assert read_journal(lives.store_url) == journal, "asking again changed something"
    print(  # noqa: T201 - shown with -s, and when it fails
        f"seed {SEED}: {kills} kills ({early} before the first answer), {load.witness.answers} answers "
        f"{dict(load.witness.counts)}, {retries} asked again, {journal.entries} entries, {repeated} repeated at "
        f"the end, {time.perf_counter() - began_s:.0f} s"
    )


async def test_a_process_killed_at_random_points_loses_and_doubles_nothing(
    lives: Lives, tmp_path: Path, rng: random.Random
) -> None:
    await survive(lives, tmp_path, rng, FEW)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_process_killed_at_random_points_many_times_loses_and_doubles_nothing(
    lives: Lives, tmp_path: Path, rng: random.Random
) -> None:
    await survive(lives, tmp_path, rng, MANY)
