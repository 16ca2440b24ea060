"""An app whose parts wait for each other, and for files that a test makes when it wants to."""

import asyncio
import os
from pathlib import Path

from remora import App, Durable, EntityOptions, HostGroup, Readiness, Settings, command
from tests.integration.apps import BY_NUMBER, Count


def folder() -> Path:
    """Return where the files are: below a folder that every process of the tests' cluster was started with."""
    return Path(os.environ["REMORA_HOME"]) / "ordered"


def note(line: str) -> None:
    """Write down what happens, in the order in which it does, whichever process it happens in."""
    with (folder() / "log").open("a") as log:
        log.write(f"{line}\n")


def there(name: str) -> Readiness:
    """Return a check that passes once a file is there."""

    def check() -> bool:
        passed = (folder() / name).exists()
        note(f"{name} {'is' if passed else 'is not'} there")
        return passed

    return Readiness(check, name, every_s=0.1)


class Held(Durable[Count]):
    """Counts, and can be kept busy."""

    @command
    async def add(self) -> int:
        self.state.value += 1
        note(f"{type(self).__name__} served")
        return self.state.value

    @command
    async def hold(self) -> None:
        note(f"{type(self).__name__} holds")
        name = f"let {type(self).__name__}"
        while not (folder() / name).exists():  # noqa: ASYNC110 - a file of another process is no event
            await asyncio.sleep(0.01)  # noqa: TID251 - of the entity, which runs on real time
        self.state.value += 100
        note(f"{type(self).__name__} ended")


class Model(Held):
    """Is made from a file."""

    options = EntityOptions(ready_when=(there("weights"),), deadline_s=60.0)


class Shop(Held):
    """Sells what the model recommends."""

    options = EntityOptions(depends_on=(Model,), deadline_s=60.0)


class Plain(Held):
    """Waits for nothing."""

    options = EntityOptions(deadline_s=60.0)


class Far(Held):
    """Lives on hosts that start last."""

    options = EntityOptions(host_group="far", deadline_s=60.0)


SETTINGS = Settings(shards=4, hand_off_s=20.0, stop_s=60.0)
in_order = App(
    "in-order",
    entities=[Far, Shop, Model, Plain],
    host_groups={"far": HostGroup(depends_on=("shared",), ready_when=(there("licence"),))},
    settings=SETTINGS,
    allocation=BY_NUMBER,
)
READY_S = 12.0
"""Long enough for a host to start and say what it waits for, also where processes start slowly, in seconds."""
never_ready = App("never-ready", entities=[Model], settings=Settings(shards=4, ready_within_s=READY_S))
