"""The twin of a route: an origin and a destination, with the id `EWR-IAH`."""

from pydantic import BaseModel, NonNegativeInt

from remora import EntityOptions, Event, EventSourced, command, query


class Flown(Event):
    """A flight left for the destination."""

    distance: int
    """Miles."""
    delay: int | None
    """Minutes it arrived behind the schedule, below zero when early; None: no arrival on record."""


class Cancelled(Event):
    """A flight did not leave."""


class Service(BaseModel):
    """What a route has seen."""

    flights: int = 0
    """Flights that left."""
    cancellations: int = 0
    no_arrival: int = 0
    """Flights that left and have no arrival delay on record."""
    distance: int = 0
    """Miles of all flights that left."""
    delay: int = 0
    """Minutes of arrival delay where it is on record; early arrivals count below zero."""


class Route(EventSourced[Service, Flown | Cancelled]):
    """A route: flights, cancellations, distance and arrival delay."""

    # The busiest of the 224 routes has 11,262 flights; a snapshot per thousand is enough.
    options = EntityOptions(snapshot_every=1000)

    @command
    async def flown(self, distance: NonNegativeInt, delay: int | None) -> None:
        """Note a flight that left: `distance` in miles, arrival `delay` in minutes or None."""
        self.emit(Flown(distance=distance, delay=delay))

    @command
    async def cancelled(self) -> None:
        """Note a flight that did not leave."""
        self.emit(Cancelled())

    @query
    async def figures(self) -> Service:
        """Return what the route has seen."""
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


def route_id(origin: str, dest: str) -> str:
    """Return the id of the route between two airports: `EWR-IAH`."""
    return f"{origin}-{dest}"
