"""Where shards go: strategies as small pure classes that an app can replace.

``App(..., allocation=Pinned({"17": {"zone": "a"}}))`` or any class of yours with the two methods of
``Allocation``. A strategy sees one host group at a time, as a ``View``, and answers with owners or
moves; limits, order and hand-off are the registry's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from remora.sharding.table import HostRow


class Move(NamedTuple):
    """One shard's way from its owner to another host: two incarnations."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class View:
    """What an allocation decides on: the hosts of one group and what they own."""

    hosts: Mapping[int, HostRow]
    """Incarnation → host, those that may be given shards: up and not draining."""
    owned: Mapping[int, Sequence[str]]
    """Incarnation → its shards, in a stable order; a key for every host."""
    load: Mapping[str, float] = field(default_factory=dict)
    """Shard → commands/s as last measured; shards that are idle or not measured are missing."""
    locations: Mapping[str, str] = field(default_factory=dict)
    """Shard → host slot or node that somebody outside asked for; see ``External``."""


class Allocation(Protocol):
    """Decides where shards go. Pure: the same view gives the same answer."""

    def place(self, shards: Sequence[str], view: View) -> dict[str, int]:
        """Return the owner of each shard that has none: shard → incarnation of ``view.hosts``; all if there is a host."""
        ...

    def moves(self, view: View, moves_max: int) -> dict[str, Move]:
        """Return the moves of the next rebalance round, each shard once, at most ``moves_max``."""
        ...


@dataclass(frozen=True, slots=True)
class LeastShards:
    """Each shard to the host that has least for its weight; moves even that out, the fewest possible.

    Where commands/s are measured, a shard counts for half by being there and for half by its share
    of the load, so that a hot shard moves away from other hot ones. Without load, by number alone.

    Args:
        load_share: How much of a shard's weight is its load, 0 to 1.
        tolerance: By load, a host may have this share more than the average before anything moves: measured
            rates fluctuate, and each move costs its callers some milliseconds.
    """

    load_share: float = 0.5
    tolerance: float = 0.2

    def place(self, shards: Sequence[str], view: View) -> dict[str, int]:
        """See Allocation."""
        placed: dict[str, int] = {}
        if not view.hosts:
            return placed
        weigh = self._weights(view)
        measure = {number: sum(map(weigh, view.owned[number])) for number in view.hosts}
        for shard in shards:
            extra = weigh(shard)
            target = min(
                measure, key=lambda number: ((measure[number] + extra) / view.hosts[number].weight, number)
            )  # fmt: skip
            measure[target] += extra
            placed[shard] = target
        return placed

    def moves(self, view: View, moves_max: int) -> dict[str, Move]:
        """See Allocation."""
        moves: dict[str, Move] = {}
        if len(view.hosts) < 2:  # noqa: PLR2004 - there is nowhere to go
            return moves
        weigh = self._weights(view)
        held = {number: list(view.owned[number]) for number in view.hosts}
        measure = {number: sum(map(weigh, held[number])) for number in held}
        weight = {number: view.hosts[number].weight for number in held}
        slack = 0.0 if weigh.flat else self.tolerance * sum(measure.values()) / sum(weight.values())
        while len(moves) < moves_max:
            most = max(held, key=lambda number: (measure[number] / weight[number], -number))
            least = min(held, key=lambda number: (measure[number] / weight[number], number))
            if measure[most] / weight[most] - measure[least] / weight[least] <= slack:
                break
            shard = self._best(held[most], weigh, measure, (most, least), weight)
            if shard is None or shard in moves:
                break
            held[most].remove(shard)
            held[least].append(shard)
            measure[most] -= weigh(shard)
            measure[least] += weigh(shard)
            moves[shard] = Move(most, least)
        return moves

    def _weights(self, view: View) -> _Weigh:
        return _Weigh(view, self.load_share)

    @staticmethod
    def _best(
        shards: list[str], weigh: _Weigh, measure: Mapping[int, float], pair: tuple[int, int],
        weight: Mapping[int, float],
    ) -> str | None:  # fmt: skip
        """Return the shard whose move leaves the two hosts most even, if any move makes them more even."""
        most, least = pair

        def after(shard: str) -> float:
            moved = weigh(shard)
            return max((measure[most] - moved) / weight[most], (measure[least] + moved) / weight[least])

        if not shards:
            return None
        # The last ones first: of equals the one that came last goes, as it has the least reason to stay.
        best = shards[-1] if weigh.flat else min(reversed(shards), key=after)
        improved = measure[most] / weight[most] - after(best)
        return best if improved > 1e-9 else None  # noqa: PLR2004 - beyond rounding


class _Weigh:
    """What a shard counts."""

    def __init__(self, view: View, load_share: float) -> None:
        count = sum(map(len, view.owned.values()))
        total = sum(view.load.values())
        self.flat = total <= 0 or count == 0 or load_share <= 0
        self._load = view.load
        self._base = 1.0 if self.flat else 1.0 - load_share
        self._per_command = 0.0 if self.flat else load_share * count / total

    def __call__(self, shard: str) -> float:
        return self._base + self._per_command * self._load.get(shard, 0.0)


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Return whether labels satisfy a selector, in the form of Ray's ``label_selector``.

    Args:
        labels: Of a node.
        selector: Label → ``value``, ``!value``, ``in(a,b)`` or ``!in(a,b)``; all must hold.
    """
    return all(_matches(labels.get(name), wanted) for name, wanted in selector.items())


def _matches(value: str | None, wanted: str) -> bool:
    negated = wanted.startswith("!")
    text = wanted.removeprefix("!")
    allowed = (
        [one.strip() for one in text[3:-1].split(",")] if text.startswith("in(") and text.endswith(")") else [text]
    )
    return (value in allowed) is not negated


@dataclass(frozen=True, slots=True)
class Pinned:
    """Some shards to hosts of nodes with given labels, the others as another strategy has it.

    Where no host has the labels, a pinned shard goes wherever the other strategy puts it: it is
    served from the wrong place rather than not at all, and moves when a right one comes.

    Args:
        places: Shard → label selector (as Ray's ``label_selector``).
        otherwise: For all other shards, and among several hosts that match.
    """

    places: Mapping[str, Mapping[str, str]]
    otherwise: Allocation = field(default_factory=LeastShards)

    def place(self, shards: Sequence[str], view: View) -> dict[str, int]:
        """See Allocation."""
        placed: dict[str, int] = {}
        for shard in shards:
            fitting = self._fitting(shard, view)
            if fitting is not None:
                placed |= self.otherwise.place([shard], _with(view, placed, fitting))
        return placed | self.otherwise.place([one for one in shards if one not in placed], _with(view, placed))

    def moves(self, view: View, moves_max: int) -> dict[str, Move]:
        """See Allocation."""
        moves: dict[str, Move] = {}
        for number, owned in view.owned.items():
            for shard in owned:
                fitting = self._fitting(shard, view)
                if fitting is not None and number not in fitting and len(moves) < moves_max:
                    target = self.otherwise.place([shard], _with(view, {}, fitting))[shard]
                    moves[shard] = Move(number, target)
        if moves:
            return moves  # first where they belong, then even
        free = {number: [one for one in owned if one not in self.places] for number, owned in view.owned.items()}
        return self.otherwise.moves(View(view.hosts, free, view.load, view.locations), moves_max)

    def _fitting(self, shard: str, view: View) -> set[int] | None:
        selector = self.places.get(shard)
        if selector is None:
            return None
        return {number for number, host in view.hosts.items() if matches(host.labels, selector)} or None


@dataclass(frozen=True, slots=True)
class External:
    """Shards where somebody outside wants them: ``Registry.locate`` and ``remora rebalance --place SHARD=HOST``.

    A location is a host's slot or a node; a shard without one, or whose place has no host at the
    moment, goes as the other strategy has it.

    Args:
        otherwise: For all other shards, and among several hosts of one node.
    """

    otherwise: Allocation = field(default_factory=LeastShards)

    def place(self, shards: Sequence[str], view: View) -> dict[str, int]:
        """See Allocation."""
        return self._pinned(view).place(shards, _located(view))

    def moves(self, view: View, moves_max: int) -> dict[str, Move]:
        """See Allocation."""
        return self._pinned(view).moves(_located(view), moves_max)

    def _pinned(self, view: View) -> Pinned:
        places = {shard: {_SLOT: place} for shard, place in view.locations.items()}
        nodes = {host.node for host in view.hosts.values()}
        places = {shard: {_NODE: one[_SLOT]} if one[_SLOT] in nodes else one for shard, one in places.items()}
        return Pinned(places, self.otherwise)


_SLOT = "remora/slot"
_NODE = "remora/node"


def _located(view: View) -> View:
    """Return the view with each host's slot and node among its labels."""
    hosts = {
        number: HostRow(
            host.incarnation, host.name, host.node, weight=host.weight, labels={_SLOT: host.slot, _NODE: host.node}
        )
        for number, host in view.hosts.items()
    }
    return View(hosts, view.owned, view.load, view.locations)


def _with(view: View, placed: Mapping[str, int], only: Iterable[int] | None = None) -> View:
    """Return the view as it is after some shards were placed, of some hosts alone if told."""
    chosen = set(view.hosts) if only is None else set(only)
    owned = {number: list(view.owned[number]) for number in chosen}
    for shard, number in placed.items():
        if number in owned:
            owned[number].append(shard)
    return View(
        {number: view.hosts[number] for number in view.hosts if number in chosen}, owned, view.load, view.locations
    )


def moves_allowed(shards: int, absolute_max: int, relative_max: float) -> int:
    """Return how many shards one rebalance round may move: both limits hold, and one shard always may.

    Args:
        shards: How many there are.
        absolute_max: At most so many.
        relative_max: At most this share of them.
    """
    return max(1, min(absolute_max, int(shards * relative_max)))
