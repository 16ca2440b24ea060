"""What an operator may say of an app beside its code: a YAML file, or ``config`` in the ``args`` of a Serve config.

::

    supervision:
      entities:
        account:
          - exceptions: [OSError, "shop.errors.SoldOut"]
            directive: restart
            backoff: {min_s: 0.5, max_s: 30}
            at_most: 5
            within_s: 60
            then: stop
"""

from __future__ import annotations

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from remora.errors import StartError
from remora.supervision.levels import Supervision


class AppConfig(BaseModel):
    """What stands in the place of what the code says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    supervision: Supervision | None = None
    """Rules in the place of all of ``App(supervision=…)``; None: those of the code hold."""


AS_CODED = AppConfig()
"""Nothing: the app is what its code says."""


def read_config(text: str, where: str) -> AppConfig:
    """Return the config that a YAML document holds.

    Args:
        text: The document.
        where: What it is called in errors.

    Raises:
        StartError: It is no YAML or says something unknown or wrong; the message lists each finding with its place.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"{where} is no YAML: {error}"
        raise StartError(msg) from None
    try:
        return AppConfig.model_validate({} if found is None else found)
    except ValidationError as error:
        msg = f"{where}: {findings(error)}."
        raise StartError(msg) from None


def findings(error: ValidationError) -> str:
    """Return what pydantic found in one line: each place, and what is wrong there."""
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors())
