"""``remora.connect``: a client of a running app. Ray is imported only when it is called."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from remora.app import App
from remora.client import Client


def connect(app: str | App, *, address: str | None = None) -> AbstractAsyncContextManager[Client]:
    """Connect to a running app: ``async with remora.connect("bank") as client: …``.

    The cluster is found by ``address``, then the environment variable ``REMORA_ADDRESS``, then
    what ``remora up`` recorded on this machine; never by guessing at whatever Ray cluster runs.

    Args:
        app: The app's name, or the app itself if its settings differ from the defaults.
        address: Ray's GCS address, ``host:port``.

    Raises:
        ClusterUnreachable: No such cluster, or the app does not run in it.
    """
    from remora.cluster import bootstrap  # noqa: PLC0415 - `import remora` must not load Ray

    return bootstrap.connect(app, address)
