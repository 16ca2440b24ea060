"""What ``remora up`` leaves behind so that other commands and ``connect`` find the platform."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from remora.errors import ClusterUnreachable


class ClusterRecord(msgspec.Struct, frozen=True):
    """One running app, as recorded."""

    app: str
    app_path: str
    """``module:attribute`` of the app."""
    address: str
    """Address of Ray's GCS, ``host:port``."""
    dashboard_url: str
    gateway_url: str
    store: str
    """Store URL without a password (``env:NAME`` stays as it is)."""
    hosts: int
    ray_pid: int = 0
    """Process of the Ray cluster that ``up`` started itself; 0 when it joined one."""
    temp_dir: str = ""
    """Folder of that Ray cluster's sockets and logs."""
    ordered: bool = False
    """Whether the app says in which order its parts start and stop."""


def folder() -> Path:
    """Return where records are kept: ``$REMORA_HOME``, or ``~/.remora``."""
    return Path(os.environ.get("REMORA_HOME") or Path.home() / ".remora") / "apps"


def save(record: ClusterRecord) -> None:
    """Write a record, replacing one of the same app."""
    where = folder()
    where.mkdir(parents=True, exist_ok=True)
    scratch = where / f".{record.app}.{os.getpid()}"
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    scratch.replace(where / f"{record.app}.json")


def find(app: str) -> ClusterRecord | None:
    """Return an app's record, or None."""
    file = folder() / f"{app}.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=ClusterRecord)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        msg = f"The record {file} cannot be read ({error}): delete it and run `remora up` again."
        raise ClusterUnreachable(msg) from error


def load(app: str | None = None) -> ClusterRecord:
    """Return an app's record; without a name, the only one there is.

    Raises:
        ClusterUnreachable: None, or several and no name given; the message says what to do.
    """
    names = sorted(file.stem for file in folder().glob("*.json")) if folder().is_dir() else []
    if app is None and len(names) > 1:
        msg = f"Several apps run here ({', '.join(names)}): say which one."
        raise ClusterUnreachable(msg)
    name = app if app is not None else names[0] if names else ""
    record = find(name) if name else None
    if record is None:
        what = f"app {app!r}" if app else "app"
        msg = (
            f"No running {what} is recorded in {folder()}: start one with `remora up MODULE:APP`, or give its address."
        )
        raise ClusterUnreachable(msg)
    return record


def delete(app: str) -> None:
    """Remove an app's record, if there is one."""
    (folder() / f"{app}.json").unlink(missing_ok=True)
