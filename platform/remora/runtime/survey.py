"""Reading everything in a store, to see whether an app can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from remora.app import App
from remora.errors import RemoraError
from remora.journal import ScanRow, StateRow, Store
from remora.schema.compare import Finding
from remora.schema.reading import UnreadableEvent, UnreadableState, read_events, read_state, split_name

PAGE = 1_000
"""Rows read at a time."""
SENDS_MAX = 20_000
"""Outbox rows looked at: as many as a host lets pile up."""

Report = Callable[[str], None]

_decode_written = msgspec.json.Decoder(list[tuple[str, msgspec.Raw]]).decode
_decode_sends = msgspec.json.Decoder(list[tuple[str, str, str, msgspec.Raw]]).decode


@dataclass(slots=True)
class Survey:
    """What reading a store brought up."""

    events: int = 0
    """Events read."""
    states: int = 0
    """States of ``Durable`` entities read."""
    sends: int = 0
    """Undelivered durable sends read."""
    problems: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    """(entity type, part, problem) → where it was met"""

    def met(self, entity: str, part: str, problem: str, place: str) -> None:
        """Note a problem."""
        self.problems.setdefault((entity, part, problem), []).append(place)

    def findings(self) -> list[Finding]:
        """Return what could not be read, one finding per kind of problem."""
        return [
            Finding(
                "incompatible",
                entity,
                part,
                "",
                f"{problem[:1].upper()}{problem[1:]}. Met {_times(len(places))}, first in {places[0]}.",
                "Mend the code so that it reads this too.",
            )
            for (entity, part, problem), places in sorted(self.problems.items())
        ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


async def survey(app: App, store: Store, report: Report = lambda _: None) -> Survey:
    """Read all events, all states of ``Durable`` entities and the undelivered sends with the app's classes.

    Args:
        app: The app.
        store: Its store, open; it is only read.
        report: Told now and then how far it is.
    """
    found = Survey()
    position, told = 0, PAGE
    while rows := await store.scan(position, PAGE):
        for row in rows:
            _look_at_events(app, row, found)
        position = rows[-1].position
        if found.events >= told:
            report(f"{found.events} events read")
            told = 2 * found.events
    report(f"{found.events} events read, reading states")
    key, told = "", PAGE
    while states := await store.scan_states(key, PAGE):
        for state in states:
            _look_at_state(app, state, found)
        key = states[-1].entity
        if found.states >= told:
            report(f"{found.states} states read")
            told = 2 * found.states
    await _look_at_sends(app, store, found)
    return found


def _look_at_events(app: App, row: ScanRow, found: Survey) -> None:
    name, place = row.entity.partition("/")[0], f"{row.entity}, entry {row.n}"
    try:
        written = _decode_written(row.events)
    except msgspec.MsgspecError as error:
        found.met(name, "", f"the journal holds what is no list of events ({error})", place)
        return
    found.events += len(written)
    spec = app.specs.get(name)
    if spec is None:
        found.met(name, "", "the app has no such entity type, and the journal holds events of it", place)
        return
    try:
        read_events(spec, row.events)
    except UnreadableEvent:
        # Again one by one: the others of the entry are to be looked at too.
        for event, data in written:
            try:
                read_events(spec, msgspec.json.encode([(event, data)]).decode())
            except UnreadableEvent as error:
                found.met(name, f"event {split_name(event)[0]}", str(error), place)


def _look_at_state(app: App, row: StateRow, found: Survey) -> None:
    name = row.entity.partition("/")[0]
    spec = app.specs.get(name)
    if spec is not None and spec.kind == "event_sourced":
        return  # a snapshot, which release 0.1.0 kept among the states: the events are the truth
    found.states += 1
    if spec is None:
        found.met(name, "", "the app has no such entity type, and the store holds states of it", row.entity)
        return
    if spec.kind != "durable":
        found.met(name, "", f"the store holds states of it, and {spec.cls.__name__} is {spec.kind}", row.entity)
        return
    try:
        read_state(spec, row.state, row.version)
    except UnreadableState as error:
        found.met(name, "state", str(error), row.entity)


async def _look_at_sends(app: App, store: Store, found: Survey) -> None:
    table = await store.read_table()
    for row in await store.outbox(list(table.shards), SENDS_MAX):
        for name, _, method, arguments in _decode_sends(row.sends):
            found.sends += 1
            place = f"the outbox of {row.entity}, entry {row.n}"
            try:
                app.spec(name).handler(method).parse(bytes(arguments))
            except RemoraError as error:
                problem = f"an undelivered durable send would be parked: {error.message.rstrip('.')}"
                found.met(name, f"command {method}", problem, place)
