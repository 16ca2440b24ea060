"""Which entities leave memory, and when: the idle ones, those that ask to, and the least wanted when there are too many.

Every activation has a place on a ring, oldest first, on which two hands go round. The *walk* passes a bounded
number in each round of housekeeping: it lets idle ones go and weighs the others. The *hunt* moves only while
there are more live entities, or more bytes of them, than the host may have. It is SIEVE (Zhang et al., NSDI
2024): one that was used since the hunt last passed is spared, the next that was not leaves, and newcomers
stand behind all others, so that a flood of entities that are used once does not drive out those in daily use
(docs/decisions/0011-sieve-decides-who-leaves-memory.md). "Used since" is a comparison with ``last_used_s``, which
cells write anyway: a command pays nothing for all this.

An entity leaves in one step, between two turns of the loop: a command finds it here, or activates it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from remora.errors import Corrupt
from remora.lifecycle import Phase

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

ROUND_S = 0.25
"""Seconds between rounds."""
LAP_ROUNDS = 240
"""Rounds in which the walk passes all cells, a minute: how late an idle one leaves, at most, when there are very many."""
WALK_MIN = 1024
"""Cells the walk passes in a round at least: below that many live ones, all of them."""
HUNT_MAX = 32
"""Places the hunt looks at for each activation: what one newcomer may cost."""
CORRUPT_S = 5.0
"""Seconds after which an entity that could not be read is tried again when it is asked for."""
LANES_S = 5.0
"""Seconds after which an idle entity forgets how far it has seen its callers' lanes. As after it left: a command that names one
before it as still open is refused, and its client sends the lane again in order."""
FULL_S = 60.0
"""Seconds between two complaints that everything live is at work and the bounds are not held."""

UNIT = 256
"""Bytes in which cells are weighed: coarse, so that the weights of most are integers that Python shares."""
CELL_BYTES = 1_400
"""What an activation costs beside its state and what it remembers (tests/bench: ``entities.live``)."""
DECISION_BYTES = 330
"""What a remembered command costs beside its reply."""
STATE_FACTOR = 4
"""Bytes of a state as Python objects for each byte of it as JSON."""


class Ring:
    """Cells in the order they came, and the places of two hands.

    Places that were given up are closed as the walk passes: it copies what stays down to where it has closed up to,
    so that neither leaving nor going round costs more than a step.
    """

    __slots__ = ("_closed", "_hunt", "_places", "_walk")

    def __init__(self) -> None:
        self._places: list[Cell | None] = []
        self._walk = 0
        """The place that the walk looks at next."""
        self._closed = 0
        """Up to here all places are taken; from here to the walk all are empty."""
        self._hunt = 0
        """The place that the hunt looks at next."""

    def __len__(self) -> int:
        return len(self._places)

    def add(self, cell: Cell) -> None:
        """Give the newest cell its place, behind all others."""
        self._places.append(cell)

    def walk(self, count: int, stays: Callable[[Cell], bool]) -> None:
        """Pass so many places, about all of them once at most; cells that do not stay lose theirs."""
        places = self._places
        for _ in range(min(count, len(places))):
            if self._walk == len(places):
                self._turn()
                if not places:
                    return
            place, closed = self._walk, self._closed
            cell = places[place]
            if place == self._hunt:
                self._hunt = closed
            self._walk = place + 1
            if place != closed:
                places[place] = None
            if cell is not None and stays(cell):
                places[closed] = cell
                self._closed = closed + 1
            else:
                places[closed] = None

    def _turn(self) -> None:
        """The walk begins again, and what is empty behind it is no place any more."""
        del self._places[self._closed :]
        self._hunt = min(self._hunt, self._closed)
        self._walk = self._closed = 0

    def hunt(self) -> Cell | None:
        """Move the hunting hand by one place and return who is there."""
        if self._closed <= self._hunt < self._walk:
            self._hunt = self._walk
        if self._hunt >= len(self._places):
            self._hunt = 0
            return None
        self._hunt += 1
        return self._places[self._hunt - 1]

    def catch(self) -> None:
        """Take out who was hunted last."""
        self._places[self._hunt - 1] = None


class Passivation:
    """Lets a host's entities leave memory.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ring = Ring()
        self._asked: list[Cell] = []
        """Cells whose entities asked to leave."""
        self._now_s = 0.0
        self._lap_s = 0.0
        """Longer than what the walk takes to get round."""
        self._complained_s = float("-inf")
        self._weight = 0
        """Of all cells on the ring, in units."""
        self.idle = 0
        """Entities that left because they were idle or asked to, so far."""
        self.evicted = 0
        """Entities that left because there were too many, so far."""

    @property
    def bytes(self) -> int:
        """Return how much memory the live entities take, estimated."""
        return self._weight * UNIT

    # -- what is told ----------------------------------------------------------------------------------

    def activated(self, cell: Cell) -> None:
        """Give a new activation its place, and make room for it if there are too many."""
        if not cell.spec.durable:  # others are settled when they are recovered
            self._host.loop.call_soon(self.settle, cell)
        cell.weight = -(-CELL_BYTES // UNIT)
        self._weight += cell.weight
        self._ring.add(cell)
        self._make_room(HUNT_MAX)

    def recovered(self, cell: Cell) -> None:
        """Weigh an activation that has its state now, and make room for it if there is too much."""
        self._weigh(cell)
        self._make_room(HUNT_MAX)

    @staticmethod
    def settle(cell: Cell) -> None:
        """Do not count as a use what an activation was made for: SIEVE's newcomers have to be used again."""
        cell.seen_s = cell.last_used_s

    def ask(self, cell: Cell) -> None:
        """Let an entity leave as soon as it can: it asked to."""
        cell.last_used_s = float("-inf")
        self._asked.append(cell)

    @staticmethod
    def asked(cell: Cell) -> bool:
        """Return whether an entity asked to leave and has not been used since."""
        return cell.last_used_s == float("-inf")

    # -- rounds ------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Let entities leave that asked to or are idle, a bounded number; hunt if there are still too many."""
        since_s, self._now_s = self._now_s, self._host.clock.monotonic_s()
        self._asked = [cell for cell in self._asked if not self._granted(cell)]
        places = len(self._ring)
        pace = 4 if places > 2 * len(self._host.cells) + WALK_MIN else 1  # many have left: close their places sooner
        count = max(WALK_MIN, pace * places // LAP_ROUNDS)
        self._lap_s = 2 * max(self._now_s - since_s, ROUND_S) * (1 + places / count)
        self._ring.walk(count, self._stays)
        self._make_room(count)
        if self._over and self._now_s - self._complained_s > FULL_S:
            self._complained_s = self._now_s
            self._host.log.warning(
                "%s has %d live entities of about %d bytes, and may have %d of %d: those that could leave have left. "
                "Give it less to do, or raise Settings.live_max and live_bytes_max.",
                self._host.name, len(self._host.cells), self.bytes, self._host.settings.live_max,
                self._host.settings.live_bytes_max,
            )  # fmt: skip

    def _granted(self, cell: Cell) -> bool:
        if cell.last_used_s != float("-inf") or cell.phase is Phase.GONE:
            return True  # used again, or gone already
        if not self._may_leave(cell):
            return False
        self._leave(cell)
        self.idle += 1
        return True

    def _stays(self, cell: Cell) -> bool:
        """Return whether a cell that the walk passes keeps its place."""
        phase, idle_s = cell.phase, self._now_s - cell.last_used_s
        if phase is Phase.GONE:
            self._weight -= cell.weight
            return False
        options = cell.spec.options
        if idle_s > options.passivate_after_s and not options.remember and self._may_leave(cell):
            self._leave(cell)
            self.idle += 1
            self._weight -= cell.weight
            return False
        if phase is Phase.STOPPED and idle_s > CORRUPT_S and isinstance(cell.reason, Corrupt):
            # What could not be read may have been mended: the next command looks again.
            if self._host.cells.get(cell.key) is cell:
                del self._host.cells[cell.key]
            self._weight -= cell.weight
            return False
        if cell.lanes is not None and idle_s > LANES_S and cell.idle:
            cell.lanes = None
        if idle_s < self._lap_s:  # the others weigh what they did when the walk last passed
            self._weigh(cell)
        return True

    @property
    def full(self) -> bool:
        """Return whether there is no room for one more."""
        settings = self._host.settings
        return len(self._host.cells) >= settings.live_max or self._weight * UNIT >= settings.live_bytes_max

    @property
    def _over(self) -> bool:
        settings = self._host.settings
        return len(self._host.cells) > settings.live_max or self._weight * UNIT > settings.live_bytes_max

    def _make_room(self, looks: int) -> None:
        """Look at so many places at most for somebody to leave, until the bounds are held."""
        for _ in range(looks):
            if not self._over:
                return
            cell = self._ring.hunt()
            if cell is None or cell.phase is Phase.GONE:
                continue
            if cell.seen_s != cell.last_used_s:
                cell.seen_s = cell.last_used_s
            elif not cell.spec.options.remember and self._may_leave(cell):
                self._ring.catch()
                self._leave(cell)
                self._weight -= cell.weight
                self.evicted += 1

    def _may_leave(self, cell: Cell) -> bool:
        """Return whether nothing would be lost or disturbed if a cell left now."""
        # Reminders that are being read may be older than what it did with them: it has to say so.
        return cell.idle and not (cell.reminders and self._host.reminders.reading)

    def _leave(self, cell: Cell) -> None:
        cell.phase = Phase.GONE
        del self._host.cells[cell.key]

    # -- how much memory ---------------------------------------------------------------------------------

    def _weigh(self, cell: Cell) -> None:
        weight = -(-estimate_bytes(cell) // UNIT)
        self._weight += weight - cell.weight
        cell.weight = weight


def estimate_bytes(cell: Cell) -> int:
    """Return about how much memory an activation takes.

    From what is known of it anyway: its state's size when it was last read or written, the events since then, and
    the commands it remembers, all taken to have replies as long as the newest. Nothing is written or measured for
    this, so that it costs half a microsecond, once when it was recovered and when the walk passes after it was used.
    """
    window = cell.window
    decisions = len(window)
    if decisions:
        decisions *= DECISION_BYTES + len(next(reversed(window.values()))[1])
    return CELL_BYTES + decisions + STATE_FACTOR * (cell.state_bytes + cell.tail_bytes)
