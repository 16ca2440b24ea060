"""The levels of supervision, from the entity up, and what holds where nothing is declared.

::

    entity ──escalate──▶ shard

One for one: what a level decides concerns its own subject and none beside it. The subject of the
entity's rules is the entity, that of the shard's rules all entities of the shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

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

HOST_DIED = "remora.HostDied"
"""What rules for hosts know a host by that has ended, whatever ended it."""
HOST_DEFAULTS: Rules = (
    # One that ends as soon as it is started has to be tried less often; entities live on elsewhere meanwhile.
    on(HOST_DIED, Exception).restart(Backoff(first_s=0, min_s=0.2, max_s=5.0, reset_s=60.0)),
)
"""The rules behind those that are declared for hosts."""

REGISTRY_DIED = "remora.RegistryDied"
REGISTRY_RULES: Rules = (on(REGISTRY_DIED).restart(Backoff(min_s=0)),)
"""The rules for both registries: at once and without end, since nobody else finds hosts that are gone. Not to be declared."""
SUPERVISOR_DIED = "remora.SupervisorDied"
"""What rules for supervisors know one by whose process has ended."""
SUPERVISOR_DEFAULTS: Rules = (
    # Meanwhile the declared rules decide, and it is told later: nothing is lost by a pause.
    on(SUPERVISOR_DIED, Exception).restart(Backoff(first_s=0, min_s=0.5, max_s=30.0, reset_s=60.0)),
)
"""The rules behind those that are declared for supervisors."""

SHARD_DEFAULTS: Rules = (
    # Its other entities have done nothing: three times a minute, then they are left in peace.
    on(BaseException).restart(Backoff(min_s=0), at_most=3, within_s=60, then=Directive.RESUME),
)
"""The rules behind those that are declared for shards."""


def _for_processes(rules: Rules) -> Rules:
    for rule in rules:
        if not {rule.directive, rule.then} <= {Directive.RESTART, Directive.STOP}:
            msg = "a process is restarted or stopped: it has no state to resume with, and nothing above it decides"
            raise ValueError(msg)
    return rules


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

    host: Annotated[Rules, AfterValidator(_for_processes)] = ()
    """When a host's process is started again that has ended (``remora.HostDied``) or could not be started (by its error:
    ``StartError``, ``HostGone``). Its shards are given to others at once, whatever is said here. ``restart`` and ``stop``
    only; one that is stopped is not started again before another registry leads or the app is started anew."""
    supervisor: Annotated[Rules, AfterValidator(_for_processes)] = ()
    """When the process of one of the app's supervisors is started again that has ended (``remora.SupervisorDied``) or could
    not be started (by its error). ``restart`` and ``stop`` only. What these rules do without a pause, Ray does (its
    ``max_restarts``); the registry does the rest, and tries another node from the second failure in a row on."""
    crashes: Blame = Blame()
    """What becomes of an entity that takes its host's process down with it."""

    @property
    def host_rules(self) -> Rules:
        """All rules of a host, the defaults last."""
        return (*self.host, *HOST_DEFAULTS)

    @property
    def supervisor_rules(self) -> Rules:
        """All rules of a supervisor's process, the defaults last."""
        return (*self.supervisor, *SUPERVISOR_DEFAULTS)

    @property
    def shard_rules(self) -> Rules:
        """All rules of a shard, the defaults last."""
        return (*self.shard, *SHARD_DEFAULTS)
