"""The twin of an aircraft, by tail number. Every row of the table is one command to it.

The aircraft decides what a row means and tells airports and route in the same commit:

- no departure time: **cancelled**. Neither distance nor delay counts; the origin and the route
  hear of it, the destination does not.
- a departure time and an arrival delay: **flown**. Origin, route and destination hear of it.
- a departure time, no arrival delay: flown, with **no arrival** on record (diverted, as a rule).
  Its distance counts as scheduled, it adds no delay, and the destination does not hear of it.

Flights without a tail number go to one aircraft, `UNTRACKED`, so that they are counted and seen.
"""

from datetime import date

from pydantic import BaseModel, NonNegativeInt

from entities.flights.airport import Airport
from entities.flights.route import Route, route_id
from remora import EntityOptions, Event, EventSourced, Rejected, command, query

UNTRACKED = "untracked"
"""Id of the aircraft that stands for flights without a tail number; no tail number is lower case."""

_TEN_YEARS_S = 3650 * 86_400.0


class Flown(Event):
    """The aircraft left on a flight."""

    day: date
    """Scheduled day of the departure, local time of the airport."""
    route: str
    distance: int
    """Miles."""
    delay: int | None
    """Minutes it arrived behind the schedule, below zero when early; None: no arrival on record."""


class Cancelled(Event):
    """A flight the aircraft was meant for did not leave."""

    day: date
    route: str


class Log(BaseModel):
    """What an aircraft has done."""

    flights: int = 0
    """Flights that left."""
    cancellations: int = 0
    no_arrival: int = 0
    """Flights that left and have no arrival delay on record."""
    distance: int = 0
    """Miles of all flights that left."""
    delay: int = 0
    """Minutes of arrival delay where it is on record; early arrivals count below zero."""


class Aircraft(EventSourced[Log, Flown | Cancelled]):
    """An aircraft: flights, cancellations, distance and arrival delay."""

    options = EntityOptions(
        snapshot_every=500,
        # A second replay sends the ids of the first. The window must hold all commands of one
        # aircraft: 575 for the busiest tail number, 2,512 for the flights without one. 4,096 is
        # the next power of two; an aircraft pays only for the ids it has.
        dedup_window=4096,
        # The ids are row numbers and carry no time, so one that was forgotten by age would be
        # applied again, not refused: a replay must be recognised however late it comes.
        dedup_age_s=_TEN_YEARS_S,
    )

    @command
    async def fly(
        self,
        day: date,
        origin: str,
        dest: str,
        distance: NonNegativeInt,
        dep_delay: int | None = None,
        arr_delay: int | None = None,
    ) -> bool:
        """Take one row of the schedule and return whether the flight left.

        Args:
            day: Scheduled day of the departure.
            origin: IATA code.
            dest: IATA code.
            distance: Miles between the two.
            dep_delay: Minutes it left late; None: it never left, the flight was cancelled.
            arr_delay: Minutes it arrived late; None: no arrival on record.

        Raises:
            Rejected: It arrived without having left.
        """
        route = route_id(origin, dest)
        if dep_delay is None:
            if arr_delay is not None:
                msg = f"A flight {route} arrived but never left: give dep_delay, or leave arr_delay out."
                raise Rejected(msg)
            self.emit(Cancelled(day=day, route=route))
            self.send(Airport.cancelled, origin, day)
            self.send(Route.cancelled, route)
            return False
        self.emit(Flown(day=day, route=route, distance=distance, delay=arr_delay))
        self.send(Airport.departed, origin, day, dep_delay)
        self.send(Route.flown, route, distance, arr_delay)
        if arr_delay is not None:
            self.send(Airport.arrived, dest, arr_delay)
        return True

    @query
    async def figures(self) -> Log:
        """Return what the aircraft has done."""
        return self.state

    def apply(self, event: Flown | Cancelled) -> None:
        """Count what happened."""
        state = self.state
        match event:
            case Flown():
                state.flights += 1
                state.distance += event.distance
                if event.delay is None:
                    state.no_arrival += 1
                else:
                    state.delay += event.delay
            case Cancelled():
                state.cancellations += 1
