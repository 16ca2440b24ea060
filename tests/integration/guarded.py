"""Entities that fail, and a supervisor that writes down what it hears, where a test can read it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from remora import (
    App,
    Backoff,
    Directive,
    Durable,
    Entity,
    EntityOptions,
    Failure,
    Settings,
    Supervisor,
    Terminated,
    command,
    on,
)
from tests.integration.apps import Count


class BoomError(Exception):
    """What they fail with."""


class Guarded(Durable[Count]):
    options = EntityOptions(supervision=(on(BoomError).restart(Backoff(min_s=0)),))

    @command
    async def add(self) -> int:
        self.state.value += 1
        return self.state.value

    @command
    async def fail(self, into: str) -> None:
        raise BoomError(into)


class Watchman(Supervisor):
    """Stops those whose name begins so; the file it writes to is told by whoever fails."""

    entities: ClassVar[Sequence[type[Entity[Any]] | str]] = (Guarded,)
    file = ""

    async def on_failure(self, failure: Failure) -> Directive | None:
        self.file = json.loads(failure.arguments)["into"]
        line = {"entity": failure.entity, "times": failure.times, "decided": failure.directive, "pid": os.getpid()}
        self._write(line)
        if not failure.entity.startswith("guarded/doomed"):
            return None
        self.watch(Guarded, failure.entity.partition("/")[2])
        return Directive.STOP

    async def on_terminated(self, terminated: Terminated) -> None:
        self._write({"entity": terminated.entity, "over": terminated.reason})

    def _write(self, line: dict[str, object]) -> None:
        with Path(self.file).open("a") as file:
            file.write(json.dumps(line) + "\n")


app = App("guarded", entities=[Guarded], supervisors=[Watchman], settings=Settings(shards=8))
patient = App(
    "patient", entities=[Guarded], supervisors=[Watchman], settings=Settings(shards=8, supervisor_ask_s=20.0)
)  # fmt: skip
"""Its supervisor decides, however busy the machine is with starting the app."""
