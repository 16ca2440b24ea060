"""The twin of an airport, by IATA code: what leaves it, what reaches it, what never left.

It is fed by aircraft, through durable sends, and tells the board about its departures when a new
day of its schedule begins.
"""

from datetime import date

from pydantic import BaseModel

from entities.flights.board import BOARD_ID, Board, DayTally
from remora import EntityOptions, Event, EventSourced, command, query


class Departed(Event):
    """A flight left for somewhere."""

    day: date
    delay: int
    """Minutes behind the schedule; below zero when it left early."""


class Arrived(Event):
    """A flight came in."""

    delay: int
    """Minutes behind the schedule; below zero when it came early."""


class Cancelled(Event):
    """A flight that should have left did not."""

    day: date


class Reported(Event):
    """The board has been told all that was counted so far."""


class Traffic(BaseModel):
    """What an airport has seen. Delays are whole minutes, early flights count below zero."""

    departures: int = 0
    cancellations: int = 0
    """Departures that did not happen."""
    departure_delay: int = 0
    arrivals: int = 0
    """Flights with an arrival delay on record; see `docs/flights.md` for those without."""
    arrival_delay: int = 0
    newest: date | None = None
    """Newest scheduled day of a departure heard of."""
    unreported: dict[date, DayTally] = {}
    """Departures by scheduled day that the board has not been told."""


class Airport(EventSourced[Traffic, Departed | Arrived | Cancelled | Reported]):
    """An airport: departures, arrivals, cancellations and delay minutes."""

    options = EntityOptions(
        # The busiest airport hears of 120,835 scheduled departures, so snapshots are rare; replaying
        # 2,000 of its events takes some tens of milliseconds.
        snapshot_every=2000,
        # Three airports take part in every flight: while one recovers, all that the hosts' outboxes
        # have under way (1,024 each) may wait for it, and is not to be refused and sent again.
        mailbox_max=4096,
    )

    @command
    async def departed(self, day: date, delay: int) -> None:
        """Note that a flight of that scheduled day left, `delay` minutes late."""
        self._begin(day)
        self.emit(Departed(day=day, delay=delay))

    @command
    async def cancelled(self, day: date) -> None:
        """Note that a flight of that scheduled day did not leave."""
        self._begin(day)
        self.emit(Cancelled(day=day))

    @command
    async def arrived(self, delay: int) -> None:
        """Note that a flight came in, `delay` minutes late."""
        self.emit(Arrived(delay=delay))

    @command
    async def report(self) -> None:
        """Tell the board now what it has not been told: after the last day no new one begins."""
        self._report()

    @query
    async def figures(self) -> Traffic:
        """Return what the airport has seen."""
        return self.state

    def apply(self, event: Departed | Arrived | Cancelled | Reported) -> None:
        """Count what happened."""
        state = self.state
        match event:
            case Departed():
                state.departures += 1
                state.departure_delay += event.delay
                tally = self._tally(event.day)
                tally.departures += 1
                tally.delay += event.delay
            case Arrived():
                state.arrivals += 1
                state.arrival_delay += event.delay
            case Cancelled():
                state.cancellations += 1
                self._tally(event.day).cancellations += 1
            case Reported():
                state.unreported = {}

    def _begin(self, day: date) -> None:
        """Report once when a day later than all before begins.

        Flights of one airport come from thousands of aircraft, so those of neighbouring days mix.
        One that comes after its day was reported goes into the next report.
        """
        newest = self.state.newest
        if newest is not None and day > newest:
            self._report()

    def _report(self) -> None:
        days = list(self.state.unreported.values())
        if days:
            self.send(Board.add, BOARD_ID, days)
            self.emit(Reported())

    def _tally(self, day: date) -> DayTally:
        state = self.state
        tally = state.unreported.get(day)
        if tally is None:
            tally = state.unreported[day] = DayTally(day=day)
            if state.newest is None or day > state.newest:
                state.newest = day
        return tally
