"""Names of Ray actors: stable, documented, found with ``ray.get_actor(name, namespace="remora")``."""

from __future__ import annotations

NAMESPACE = "remora"
"""Ray namespace of all of Remora's actors."""
AUTH_MODE = "disabled"
"""What ``RAY_AUTH_MODE`` is set to where nobody set it: clusters on a machine of one user. Ray would
otherwise decide by whether a token file happens to lie in the home folder. Ray also listens on the
machine's other interfaces: where strangers reach those, set ``RAY_AUTH_MODE=token``."""


def app_prefix(app: str) -> str:
    """Return what the names of all of an app's actors begin with."""
    return f"remora/{app}/"


def registry_name(app: str) -> str:
    """Return the name of an app's registry, the one that leads as long as nothing fails."""
    return f"{app_prefix(app)}registry"


def standby_name(app: str) -> str:
    """Return the name of an app's other registry, which leads when the first one cannot."""
    return f"{app_prefix(app)}registry-standby"


def registry_names(app: str) -> tuple[str, str]:
    """Return the names of both registries; either may lead."""
    return registry_name(app), standby_name(app)


def host_name(app: str, slot: str, life: str) -> str:
    """Return the name of a shared host: its slot, and which life of the slot it is."""
    return f"{host_prefix(app)}{slot}/{life}"


def host_prefix(app: str) -> str:
    """Return what the names of an app's shared hosts begin with, and of nothing else."""
    return f"{app_prefix(app)}host/"


def supervisor_name(app: str, name: str) -> str:
    """Return the name of the actor of an app's supervisor; ``name`` is its class in snake_case."""
    return f"{supervisor_prefix(app)}{name}"


def supervisor_prefix(app: str) -> str:
    """Return what the names of an app's supervisors begin with, and of nothing else."""
    return f"{app_prefix(app)}supervisor/"


def entity_name(app: str, key: str) -> str:
    """Return the name of a dedicated entity's actor; ``key`` is ``type/id``."""
    return f"{app_prefix(app)}entity/{key}"


def slot_of(name: str) -> str:
    """Return the slot of a shared host's name."""
    return name.rsplit("/", 2)[1]
