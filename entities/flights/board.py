"""The board: rolling statistics of the whole network, in an actor of its own.

There is one, under the id `BOARD_ID`. Airports feed it, once per day of their schedule and not
once per flight, so it stays idle most of the time; it is `dedicated` to show such an entity, not
because it needs the room.
"""

from datetime import date, timedelta

from pydantic import BaseModel, Field

from remora import Durable, EntityOptions, command, query

BOARD_ID = "network"
"""The id of the one board."""
WINDOW_DAYS = 30
"""Days that the rolling statistics cover: the newest day and the 29 before it."""


class Tally(BaseModel):
    """Departures counted together."""

    departures: int = 0
    cancellations: int = 0
    delay: int = 0
    """Minutes of departure delay; early departures count below zero."""

    def add(self, other: "Tally") -> None:
        """Count another tally in."""
        self.departures += other.departures
        self.cancellations += other.cancellations
        self.delay += other.delay


class DayTally(Tally):
    """What one airport counted for one scheduled day since it last told the board."""

    day: date


class Ledger(BaseModel):
    """What the board keeps: each day of the window, and everything since the beginning."""

    days: dict[date, Tally] = {}
    total: Tally = Field(default_factory=Tally)


class Summary(BaseModel):
    """What the board shows. Times are minutes of departure delay."""

    since: date | None
    """First day of the window with a scheduled departure; None before the first report."""
    until: date | None
    """Newest day reported."""
    departures: int
    cancellations: int
    delay: int
    mean_delay: float
    """Minutes per departure in the window; 0 without any."""
    cancelled_share: float
    """Cancelled part of the window's scheduled flights, 0 to 1."""
    total_departures: int
    total_cancellations: int
    total_delay: int


class Board(Durable[Ledger]):
    """Departures of all airports over the last 30 days and since the beginning."""

    options = EntityOptions(placement="dedicated")

    @command
    async def add(self, days: list[DayTally]) -> None:
        """Count in what an airport reports.

        Reports only ever add, so neither their order nor a day told in two parts matters. A day
        that has left the window counts in the totals alone.
        """
        ledger = self.state
        for report in days:
            ledger.days.setdefault(report.day, Tally()).add(report)
            ledger.total.add(report)
        if ledger.days:
            first = max(ledger.days) - timedelta(days=WINDOW_DAYS - 1)
            for day in [day for day in ledger.days if day < first]:
                del ledger.days[day]

    @query
    async def summary(self) -> Summary:
        """Return the rolling statistics and the totals."""
        days, total = self.state.days, self.state.total
        window = Tally()
        for tally in days.values():
            window.add(tally)
        scheduled = window.departures + window.cancellations
        return Summary(
            since=min(days, default=None),
            until=max(days, default=None),
            departures=window.departures,
            cancellations=window.cancellations,
            delay=window.delay,
            mean_delay=window.delay / window.departures if window.departures else 0.0,
            cancelled_share=window.cancellations / scheduled if scheduled else 0.0,
            total_departures=total.departures,
            total_cancellations=total.cancellations,
            total_delay=total.delay,
        )
