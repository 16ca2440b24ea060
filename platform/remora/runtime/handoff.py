"""Hand-off: what a shard's entities know travels to their next host, so that it replays nothing.

The host that lets a shard go packs the *image* of each of its activations (state, number, what it
remembers of commands) with the commands that it has not begun, and sends all of them to the next
host **before** it releases the shard in the store. There they wait for the news that the shard is
this host's, and count only if it owns the shard under the very next epoch: then nobody can have
written in between. In every other case, and for every entity that is not among them, the journal
is read, as after a crash. An image is opened when its entity is asked for.

Commands that travel are not answered where they were: their client sends them again when the
table tells it of the move, and meets what became of them (G2). They stand before whatever it
sends, in their old order (G4).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from remora.contract import EntitySpec
from remora.errors import DeadlineExceeded, HostGone, NotOwner
from remora.lifecycle import Phase, step
from remora.messages import ERROR, SEND, Ask
from remora.runtime.session import Session
from remora.runtime.window import Decided, Unread
from remora.schema.describe import model_schema, to_text
from remora.schema.reading import read_state
from remora.supervision.decisions import aged, dated

if TYPE_CHECKING:
    from remora.runtime.cell import Cell, Item
    from remora.runtime.host import Host
    from remora.runtime.shard import Shard

HandOver = Callable[[str, bytes], Awaitable[None]]
"""Gives a host, by name, an encoded load; raises HostGone when it cannot be reached."""
FORMAT = 3
"""Version of what travels."""
SLICE_MAX = 128
"""Entities packed in one go before the loop gets its turn."""
LOOK_S = 0.05
"""Seconds between looks whether handlers that run still get on."""
CALLS_S = 0.5
"""Seconds a handler of a leaving entity has to get the answer of another one."""
TIDY_S = 5.0
"""Seconds between looks for images that nobody asked for."""
_LONG_S = 1e9
"""Stands for an idle time without end."""


class Image(msgspec.Struct, array_like=True, gc=False):
    """What an activation knows as of its last entry, which is committed."""

    state: bytes
    """As the type writes it."""
    n: int
    seq: int
    snapshot_n: int
    tail_bytes: int
    kept: tuple[int, ...]
    marks: dict[str, int] | None
    lanes: dict[str, int] | None
    window: dict[str, Decided]
    """Oldest first."""
    unread_n: int
    """Last entry of what of the window is in the store alone; 0 if all is here."""
    forgot_ms: int
    reminders: dict[str, int | None] | None
    history: list[tuple[int, tuple[float, ...], int, float]]
    """What its supervision rules were used for; see ``supervision.decisions.aged``."""


class Waiting(msgspec.Struct, array_like=True, gc=False):
    """A command that was taken and not begun."""

    ask: Ask
    session: str
    """The client session that waits for its answer."""
    left_s: float
    """Seconds until its deadline."""


class Passenger(msgspec.Struct, array_like=True, gc=False):
    """One entity on its way."""

    key: str
    idle_s: float
    """Seconds since it was used."""
    image: bytes
    """Encoded, so that it is opened only if the entity is asked for; empty: the journal knows more than this host did."""
    waiting: list[Waiting]


class Parcel(msgspec.Struct, array_like=True):
    """Entities of one shard; a shard may need several."""

    format: int
    shard: str
    epoch: int
    """Under which the sender owned the shard."""
    sender: str
    shapes: dict[str, int]
    """Fingerprint of how each type writes its state."""
    passengers: list[Passenger]


encode = msgspec.msgpack.Encoder().encode
_decode_load = msgspec.msgpack.Decoder(list[Parcel]).decode
_decode_image = msgspec.msgpack.Decoder(Image).decode


class Arrival:
    """What has come for one shard, before this host was told that the shard is its own."""

    __slots__ = ("at_s", "epoch", "passengers", "sender", "shapes", "size")

    def __init__(self, parcel: Parcel, at_s: float) -> None:
        self.epoch = parcel.epoch
        self.sender = parcel.sender
        self.at_s = at_s
        self.shapes: dict[str, int] = {}
        self.passengers: dict[str, Passenger] = {}
        self.size = 0
        """Bytes of its images."""

    def add(self, parcel: Parcel) -> None:
        """Take in another parcel of the same shard and sender; one that came before changes nothing."""
        self.shapes.update(parcel.shapes)
        for passenger in parcel.passengers:
            if passenger.key not in self.passengers:
                self.passengers[passenger.key] = passenger
                self.size += len(passenger.image)


class HandOff:
    """A host's part in moves: it sends what it lets go, and keeps what it is sent.

    Args:
        host: The host.
        hand_over: Reaches other hosts; None: nothing travels, and the journal is read.
    """

    def __init__(self, host: Host, hand_over: HandOver | None) -> None:
        self._host = host
        self._hand_over = hand_over
        self._arrived: dict[str, Arrival] = {}
        self._shapes: dict[str, int] = {}
        self._tidied_s = 0.0
        self.sent = 0
        """Images that left this host."""
        self.opened = 0
        """Entities activated from an image."""

    # -- letting go ----------------------------------------------------------------------------------

    def stop(self, cells: Iterable[Cell]) -> None:
        """Have activations begin nothing any more; what runs goes on, but for what their next host reads as well."""
        for cell in cells:
            self._host.windows.abandon(cell)
            if cell.phase is Phase.READY:
                cell.phase = step(cell.phase, Phase.LEAVING)

    async def running_end(self, cells: Sequence[Cell], leaving: AbstractSet[Shard]) -> None:
        """Wait for handlers that run, no longer than ``Settings.hand_off_s``.

        One that waits for another entity may wait for one that moves too, here or elsewhere, and
        both for ever: it is given ``CALLS_S``, and none if that entity leaves with it. It is run again
        at its next host, where the calls that were answered get the same answers.
        """
        host, loop = self._host, self._host.loop
        began_s = loop.time()
        until_s = began_s + host.settings.hand_off_s

        def gets_on(cell: Cell) -> bool:
            waits = cell.turn[2].waits.values() if cell.turn is not None else ()
            if waits and loop.time() - began_s >= CALLS_S:
                return False
            return not any(host.shards.get(host.shard_name(key)) in leaving for key, _ in waits)

        while tasks := [cell.task for cell in cells if cell.task is not None and gets_on(cell)]:
            left_s = until_s - loop.time()
            if left_s <= 0:
                return
            await asyncio.wait(tasks, timeout=min(left_s, LOOK_S), return_when=asyncio.FIRST_COMPLETED)

    async def send(self, leaving: Mapping[Shard, list[Cell]], targets: Mapping[str, str]) -> None:
        """Send activations to the hosts that get their shards; those that were sent are gone here.

        What cannot travel stays as it is, for its caller to refuse.

        Args:
            leaving: Shards and their activations, which begin nothing any more and are committed.
            targets: Shard → name of the host that gets it; empty if none is chosen.
        """
        by_target: dict[str, dict[Shard, list[Cell]]] = {}
        for shard, cells in leaving.items():
            target = targets.get(shard.key, "")
            if (cells or shard.images) and target not in {"", self._host.name}:
                by_target.setdefault(target, {})[shard] = cells
        if self._hand_over is not None and by_target:
            await asyncio.gather(*(self._send_to(target, shards) for target, shards in by_target.items()))

    async def _send_to(self, target: str, shards: dict[Shard, list[Cell]]) -> None:
        host, load = self._host, _Load(self._host.settings.hand_off_bytes_max)
        try:
            async with asyncio.timeout(host.settings.hand_off_s):
                for shard, cells in shards.items():
                    for count, cell in enumerate(cells):
                        if count % SLICE_MAX == SLICE_MAX - 1:
                            await asyncio.sleep(0)  # noqa: TID251 - the loop's turn, not a time
                        now_s = host.clock.monotonic_s()
                        passenger = self._pack(cell, now_s)
                        if passenger is None or load.too_large(passenger):
                            continue
                        if load.full(passenger):
                            await self._deliver(target, load)
                        load.add(shard, host.name, passenger, self._shape(cell.spec), self._take_out(cell, now_s))
                    for passenger in self._unopened(shard):
                        if load.full(passenger):
                            await self._deliver(target, load)
                        spec = host.app.spec(passenger.key.partition("/")[0])
                        load.add(shard, host.name, passenger, self._shape(spec), ())
                await self._deliver(target, load)
        except Exception as error:  # noqa: BLE001 - whatever the way there raises: a move must not end half way
            host.log.warning("what moves to %s is read from the journal there: %r", target, error)
            load.lost(HostGone(f"{host.name} does not know whether {target} has got what was waiting here."))

    async def _deliver(self, target: str, load: _Load) -> None:
        if load.parcels and self._hand_over is not None:
            await self._hand_over(target, encode(list(load.parcels.values())))
            self.sent += load.images
            load.arrived()

    def _unopened(self, shard: Shard) -> list[Passenger]:
        """Return what came with the shard itself and was not asked for since."""
        now_s = self._host.clock.monotonic_s()
        return [Passenger(key, now_s - used_s, image, []) for key, (used_s, image) in shard.images.items()]

    def _pack(self, cell: Cell, now_s: float) -> Passenger | None:
        """Return what an activation takes along, or None if that is nothing."""
        if cell.task is not None or cell.phase in {Phase.GONE, Phase.STOPPED}:
            return None
        idle_s = now_s - cell.last_used_s
        # One that is to leave memory anyway, or whose state vanished with a failure, is read back by its next host.
        warm = cell.phase is Phase.LEAVING and (cell.commit is None or cell.commit.done) and _stays(cell.spec, idle_s)
        image = self._image(cell, now_s) if warm else b""
        waiting = [
            Waiting(ask, sink.name, deadline_s - now_s)
            for ask, sink, deadline_s in cell.mailbox
            if isinstance(sink, Session) and _travels(ask) and deadline_s > now_s
        ]
        return Passenger(cell.key, min(idle_s, _LONG_S), image, waiting) if image or waiting else None

    def _image(self, cell: Cell, now_s: float) -> bytes:
        try:
            state = self._host.write_state(cell)
            # The journal has what this leaves out; memory alone has all of a transient state.
            if not cell.spec.durable and read_state(cell.spec, state, cell.spec.state_version) != cell.entity.state:
                self._host.log.warning("%s begins anew: its state is not what its JSON says", cell.key)
                return b""
        except Exception as failure:  # noqa: BLE001 - whatever a state raises, only this entity does not travel
            self._host.log_failure(cell, "hand-off", failure)
            return b""
        return encode(
            Image(
                state,
                cell.n,
                cell.seq,
                cell.snapshot_n,
                cell.tail_bytes,
                cell.kept,
                cell.marks,
                cell.lanes,
                cell.window,
                cell.unread.upto if cell.unread else 0,
                cell.forgot_ms,
                cell.reminders,
                aged(cell.history or {}, now_s),
            )
        )  # fmt: skip

    def _take_out(self, cell: Cell, now_s: float) -> deque[Item]:
        """Take an activation out of this host; return the commands that travel with it, the others are refused."""
        travelling: deque[Item] = deque()
        for item in cell.mailbox:
            ask, sink, deadline_s = item
            if deadline_s <= now_s:
                msg = f"{cell.key}.{ask.method} was not begun before its deadline; it was not applied."
                late = DeadlineExceeded(msg, entity=cell.key, command_id=ask.command_id)
                sink.answer(ask.n, ERROR, late.encode())
            elif isinstance(sink, Session) and _travels(ask):
                travelling.append(item)
            else:
                sink.answer(ask.n, ERROR, NotOwner("The shard moves to another host.", entity=cell.key).encode())
        cell.mailbox.clear()
        cell.phase = Phase.GONE
        self._host.ownership.forget(cell)
        return travelling

    def _shape(self, spec: EntitySpec) -> tuple[str, int]:
        """Return a type's name and the fingerprint of how it writes its state."""
        shape = self._shapes.get(spec.type)
        if shape is None:
            written = {"kind": spec.kind, "version": spec.state_version, "schema": model_schema(spec.state_type)}
            digest = blake2b(to_text(written).encode(), digest_size=8).digest()
            shape = self._shapes[spec.type] = int.from_bytes(digest, "big", signed=True)
        return spec.type, shape

    # -- taking in -----------------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Keep what another host sends, until this one is told of the shards, for a bounded time.

        Nothing is refused with an error: what cannot be kept is read from the journal.
        """
        host, settings = self._host, self._host.settings
        now_s = host.clock.monotonic_s()
        self._forget(now_s)
        try:
            parcels = _decode_load(data)
        except msgspec.DecodeError as error:
            host.log.warning("a hand-over cannot be read, and the journal is instead: %s", error)
            return
        kept = sum(arrival.size for arrival in self._arrived.values())
        for parcel in parcels:
            size = sum(len(passenger.image) for passenger in parcel.passengers)
            held = host.shards.get(parcel.shard)
            if parcel.format != FORMAT or kept + size > settings.hand_off_kept_bytes_max:
                host.log.warning("what %s knows of shard %s is not kept", parcel.sender, parcel.shard)
                continue
            if held is not None and held.epoch > parcel.epoch:
                continue  # too late: the shard is served here already, by what the journal says
            arrival = self._arrived.get(parcel.shard)
            if arrival is None or arrival.epoch < parcel.epoch:
                arrival = self._arrived[parcel.shard] = Arrival(parcel, now_s)
            if (arrival.epoch, arrival.sender) == (parcel.epoch, parcel.sender):
                arrival.add(parcel)
                kept += size

    def settle(self, shard: Shard, epoch: int) -> list[Passenger]:
        """Use what has come for a shard that this host owns from now on; return those with commands that wait.

        Args:
            shard: The shard, just taken.
            epoch: The epoch under which the store gave it to this host. Unless it is the next one after
                the sender's, somebody else may have written meanwhile.
        """
        arrival = self._arrived.pop(shard.key, None)
        if arrival is None or arrival.epoch + 1 != epoch:
            return []
        specs = self._host.app.specs
        late_s = self._host.clock.monotonic_s() - arrival.at_s
        alike = {
            kind for kind, shape in arrival.shapes.items() if kind in specs and self._shape(specs[kind])[1] == shape
        }
        for key, passenger in arrival.passengers.items():
            for one in passenger.waiting:
                one.left_s -= late_s
            if passenger.image and key.partition("/")[0] in alike:
                shard.images[key] = (arrival.at_s - passenger.idle_s, passenger.image)
        return [passenger for passenger in arrival.passengers.values() if passenger.waiting]

    def resume(self, shard: Shard, passengers: Iterable[Passenger]) -> None:
        """Begin the commands that travelled, each entity's in the order they had."""
        host = self._host
        now_s = host.clock.monotonic_s()
        for passenger in passengers:
            # The name is looked at again: a sender of another release may count shards in another way.
            ours = host.shard_name(passenger.key) == shard.key
            cell = host.activation(shard, passenger.key) if ours else None
            if cell is None:
                continue
            for one in passenger.waiting:
                session = host.session(one.session, now_s)
                session.taken += 1
                cell.carried_on((one.ask, session, now_s + one.left_s))
            if not cell.pumping:
                cell.pump()

    def open(self, cell: Cell) -> bool:
        """Set a new activation to its image, if there is one that can be used."""
        found = cell.shard.images.pop(cell.key, None)
        if found is None:
            return False
        spec = cell.spec
        try:
            image = _decode_image(found[1])
            state = read_state(spec, image.state, spec.state_version)
        except Exception as failure:  # noqa: BLE001 - whatever it raises: the journal knows it too
            self._host.log_failure(cell, "hand-off", failure)
            return False
        cell.entity = spec.cls()
        cell.entity.id, cell.entity.state = cell.id, state
        cell.n, cell.seq, cell.snapshot_n = image.n, image.seq, image.snapshot_n
        cell.tail_bytes, cell.kept, cell.marks, cell.lanes = image.tail_bytes, image.kept, image.marks, image.lanes
        cell.window, cell.forgot_ms, cell.reminders = image.window, image.forgot_ms, image.reminders
        cell.unread = Unread(image.unread_n) if image.unread_n else None
        now_s = self._host.clock.monotonic_s()
        cell.history = dated(image.history, now_s) or None
        cell.state_bytes = len(image.state)
        cell.unremembered = spec.options.remember  # the store may know: it is told once more
        cell.phase = step(cell.phase, Phase.READY)
        self._host.passivation.settle(cell)
        self._host.passivation.recovered(cell)
        self.opened += 1
        return True

    # -- what nobody asked for -------------------------------------------------------------------------

    def tidy(self, now_s: float) -> None:
        """Let images go whose entities would have left memory by now, and what came for shards that did not."""
        if now_s - self._tidied_s < TIDY_S:
            return
        self._tidied_s = now_s
        self._forget(now_s)
        specs = self._host.app.specs
        for shard in self._host.shards.values():
            over = [
                key
                for key, (used_s, _) in shard.images.items()
                if not _stays(specs[key.partition("/")[0]], now_s - used_s)
            ]
            for key in over:
                del shard.images[key]

    def _forget(self, now_s: float) -> None:
        keep_s = self._host.settings.hand_off_keep_s
        for name in [name for name, arrival in self._arrived.items() if now_s - arrival.at_s > keep_s]:
            del self._arrived[name]


class _Load:
    """What goes to one host in one call, bounded."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._waiting: list[Item] = []
        self.parcels: dict[str, Parcel] = {}
        self.images = 0

    @staticmethod
    def _size(passenger: Passenger) -> int:
        return len(passenger.image) + sum(len(one.ask.args) for one in passenger.waiting)

    def too_large(self, passenger: Passenger) -> bool:
        """Whether it fits in no call."""
        return self._size(passenger) > self._bytes_max

    def full(self, passenger: Passenger) -> bool:
        """Whether it does not fit in any more."""
        return self._bytes + self._size(passenger) > self._bytes_max

    def add(
        self, shard: Shard, sender: str, passenger: Passenger, shape: tuple[str, int], waiting: Iterable[Item]
    ) -> None:
        parcel = self.parcels.get(shard.key)
        if parcel is None:
            parcel = self.parcels[shard.key] = Parcel(FORMAT, shard.key, shard.epoch, sender, {}, [])
        parcel.passengers.append(passenger)
        parcel.shapes[shape[0]] = shape[1]
        self._waiting.extend(waiting)
        self._bytes += self._size(passenger)
        self.images += bool(passenger.image)

    def clear(self) -> None:
        """Begin the next one."""
        self.parcels.clear()
        self._waiting.clear()
        self._bytes = self.images = 0

    def arrived(self) -> None:
        """Its commands are answered there: they wait here no more."""
        for _, sink, _ in self._waiting:
            if isinstance(sink, Session):
                sink.taken -= 1
        self.clear()

    def lost(self, error: HostGone) -> None:
        """Tell those who wait for the commands in it to ask again: what became of them is not known."""
        payload = error.encode()
        for ask, sink, _ in self._waiting:
            sink.answer(ask.n, ERROR, payload)
        self.clear()


def _stays(spec: EntitySpec, idle_s: float) -> bool:
    """Whether an entity that was idle for so long is one that stays in memory: it may also have asked to leave."""
    return idle_s <= spec.options.passivate_after_s or (spec.options.remember and idle_s < float("inf"))


def _travels(ask: Ask) -> bool:
    """Whether an ask that was not begun travels: a command of a client. Everything else is sent again anyway."""
    return bool(ask.command_id) and not ask.flags & SEND
