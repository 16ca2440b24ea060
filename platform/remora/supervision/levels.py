"""The levels of supervision, from the entity up, and what holds where nothing is declared.

::

    entity ──escalate──▶ shard

One for one: what a level decides concerns its own subject and none beside it. The subject of the
entity's rules is the entity, that of the shard's rules all entities of the shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from remora.supervision.blame import Blame
from remora.supervision.rules import Backoff, Directive, Rules, on

DEFAULTS: Mapping[str, Rules] = MappingProxyType(
    {
        # What was acknowledged is in the journal: memory that a failure may have left its traces in is thrown away.
        "event_sourced": (on(BaseException).restart(),),
        "durable": (on(BaseException).restart(),),
        # Its state is nowhere else: the copy of before the command is as good as it gets.
        "transient": (on(BaseException).resume(),),
    }
)
"""Kind of entity → the rules behind those that are declared."""

SHARD_DEFAULTS: Rules = (
    # Its other entities have done nothing: three times a minute, then they are left in peace.
    on(BaseException).restart(Backoff(min_s=0), at_most=3, within_s=60, then=Directive.RESUME),
)
"""The rules behind those that are declared for shards."""


class Supervision(BaseModel):
    """Rules of an app: ``App("shop", entities=[…], supervision=Supervision(shard=(…)))``, or the same in YAML.

    The same data in both: ``Supervision.model_validate(yaml)`` takes what ``model_dump(mode="json")`` gives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    entities: dict[str, Rules] = {}
    """Entity type (snake_case) → rules in the place of those on its class."""
    shard: Rules = ()
    """What becomes of a shard when one of its entities escalates. ``resume``: only the entity concerned starts again, by
    the defaults of its kind. ``restart``: all its entities do. ``stop``: all answer ``Stopped`` until another host has
    the shard. ``escalate`` as ``resume``: there is no level above."""

    crashes: Blame = Blame()
    """What becomes of an entity that takes its host's process down with it."""

    @property
    def shard_rules(self) -> Rules:
        """All rules of a shard, the defaults last."""
        return (*self.shard, *SHARD_DEFAULTS)
