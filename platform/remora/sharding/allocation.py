"""Where shards go: allocation and rebalance as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def allocate(shards: Iterable[str], load: Mapping[int, int]) -> dict[str, int]:
    """Give each shard to the host that has fewest (ties: the older incarnation).

    Args:
        shards: Shards without an owner, in a stable order.
        load: Shards per host incarnation before this.

    Returns:
        Shard → incarnation; empty if there is no host.
    """
    counts = dict(load)
    placed: dict[str, int] = {}
    if not counts:
        return placed
    for shard in shards:
        target = min(counts, key=lambda host: (counts[host], host))
        counts[target] += 1
        placed[shard] = target
    return placed


def rebalance(owned: Mapping[int, list[str]], moves_max: int) -> dict[str, tuple[int, int]]:
    """Return the moves that even the hosts out, fewest possible, each shard once.

    Args:
        owned: Shards per host incarnation.
        moves_max: How many at most in this round.

    Returns:
        Shard → (from, to).
    """
    if not owned:
        return {}
    held = {host: list(shards) for host, shards in owned.items()}
    moves: dict[str, tuple[int, int]] = {}
    while len(moves) < moves_max:
        most = max(held, key=lambda host: (len(held[host]), -host))
        least = min(held, key=lambda host: (len(held[host]), host))
        if len(held[most]) - len(held[least]) < 2:  # noqa: PLR2004 - a difference of one cannot be improved
            break
        shard = held[most].pop()
        moves[shard] = (most, least)
        held[least].append(shard)
    return moves
