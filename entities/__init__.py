"""The entities that ship with Remora, each worth reading.

- `account`: the README's first entity, a bank account kept as events.
- `counter`: the smallest `Durable` entity, and a `Transient` one beside it.
- `flights`: a year of real departures flown by event-sourced twins; the demo runs it.
"""
