"""The levels of supervision, from the entity up, and what holds where nothing is declared.

::

    entity ──escalate──▶ shard ──escalate──▶ host ──escalate──▶ group ──escalate──▶ app
      │                    │                  │                   │                  │
      the entity           its entities       its process         its hosts          its groups; stop and
                                              ▲                                      escalate stop the app
                             a process that ended, or did not start

What a level decides concerns its own subject and none beside it: one for one. A group and the app may be declared to
concern all of their hosts or groups at once (all for one), or those that start after the one that failed too (rest for one).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
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

GROUP_DEFAULTS: Rules = (
    # What its hosts' rules have given up is either over by then, or nothing that starting again mends.
    on(HOST_DIED, BaseException).restart(
        Backoff(first_s=0, min_s=0.5, max_s=5.0), at_most=3, within_s=60, then=Directive.ESCALATE
    ),
)
"""The rules behind those that are declared for a group."""
APP_DEFAULTS: Rules = (on(HOST_DIED, BaseException).stop(),)
"""The rules behind those that are declared for the app. Only what is declared to escalate comes so far."""

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


def _for_hosts(rules: Rules) -> Rules:
    if any(Directive.RESUME in {rule.directive, rule.then} for rule in rules):
        msg = "a host, a group or an app is restarted or stopped, or the level above decides: it has no state to resume with"
        raise ValueError(msg)
    return rules


HostRules = Annotated[Rules, AfterValidator(_for_hosts)]


class Strategy(Enum):
    """Who is concerned by what a group or the app decides, as Erlang's supervisors have it."""

    ONE_FOR_ONE = "one_for_one"
    """The one that failed."""
    ALL_FOR_ONE = "all_for_one"
    """All beside it as well."""
    REST_FOR_ONE = "rest_for_one"
    """Those that start after it as well."""


class Level(BaseModel):
    """Rules of a group or of the app."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: HostRules = ()
    """``restart``, ``stop`` or ``escalate``; what it is for: exceptions that were escalated, ``remora.HostDied``, and by their
    error hosts that could not be started."""
    strategy: Strategy = Strategy.ONE_FOR_ONE
    """Which hosts of the group, or which groups of the app, are concerned; hosts start in the order of their slots."""


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
    the shard. ``escalate``: the rules of its host decide about the host, a moment later, and the entity starts again by the
    defaults of its kind."""

    host: HostRules = ()
    """When a host's process is started again that has ended (``remora.HostDied``) or could not be started (by its error:
    ``StartError``, ``HostGone``), and what becomes of a host one of whose shards escalated (by the failure's exceptions):
    ``restart`` ends it and starts it anew, ``stop`` ends it, ``escalate`` leaves it to its group. Its shards are given to
    others at once, whatever is said here. One that is stopped is not started again before the app is started anew."""
    groups: dict[str, Level] = {}
    """Host group → what becomes of its hosts when the rules of one of them escalate; ``shared`` are the hosts that every app
    has, ``dedicated`` those of dedicated entities. Where nothing is declared: that host restarts, three times a minute, then
    the app decides."""
    app: Level = Level()
    """What becomes of the app when a group escalates. ``restart``: all hosts of the groups concerned, in the order they start in.
    ``stop`` and ``escalate``: the app stops, everything written, until somebody starts it anew; so it does where nothing
    is declared."""
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

    def group(self, name: str) -> Level:
        """Return what is declared for a group, the defaults last."""
        level = self.groups.get(name, Level())
        return Level(rules=(*level.rules, *GROUP_DEFAULTS), strategy=level.strategy)

    @property
    def app_rules(self) -> Rules:
        """All rules of the app, the defaults last."""
        return (*self.app.rules, *APP_DEFAULTS)

    @property
    def supervisor_rules(self) -> Rules:
        """All rules of a supervisor's process, the defaults last."""
        return (*self.supervisor, *SUPERVISOR_DEFAULTS)

    @property
    def shard_rules(self) -> Rules:
        """All rules of a shard, the defaults last."""
        return (*self.shard, *SHARD_DEFAULTS)
