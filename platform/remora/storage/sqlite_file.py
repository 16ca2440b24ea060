"""The file of a store on SQLite: opening it, who may write now, and what becomes of its errors.

Two files beside each other: the journal (WAL, synchronous=FULL) and the leases, because a lease
renewal must not queue behind commits. All writers of the machine take turns on a third, empty
file's ``flock``, which the kernel hands out in order of arrival; SQLite's own busy handler polls
and starves.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from remora.errors import Corrupt, Fenced, RemoraError, StoreMismatch, StoreUnavailable
from remora.process import machine_identity
from remora.storage.sql import check_identity, migrations, newer_release, newest

T = TypeVar("T")

_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre"})


def _file_system_of(path: Path) -> str:
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, fs_type, *_ = line.split()
        if str(path).startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, fs_type
    return kind


class SqliteFile:
    """One SQLite database, and the files that stand beside it.

    Args:
        path: The database file; ``-leases`` and ``-turn`` files stand beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.url = f"sqlite:///{self.path}"
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="remora-commit")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="remora-read")
        self._write: sqlite3.Connection
        self._read: sqlite3.Connection
        self._lease: sqlite3.Connection
        self._fences: sqlite3.Connection
        """The journal, as the lease threads read it."""
        self._turn = -1
        self._closed = False

    # -- opening -----------------------------------------------------------------------------

    async def open(self, app: str, shards: int) -> None:
        """Create or check the database."""
        await self._on(self._writer, self._open, app, shards)

    def _open(self, app: str, shards: int) -> None:
        if not self.path.parent.is_dir():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                msg = f"Cannot make the folder of the store {self.url}: {error.strerror}. Choose a folder that can be written."
                raise StoreMismatch(msg) from error
        kind = _file_system_of(self.path)
        if kind in _REMOTE:
            msg = f"{self.path} is on a network file system ({kind}), where SQLite's locks do not hold: use a local disk or PostgreSQL."
            raise StoreMismatch(msg)
        try:
            self._turn = os.open(f"{self.path}-turn", os.O_CREAT | os.O_RDWR, 0o600)
            if self._stands(app, shards):
                # Not waiting for a turn: a frozen host may hold it, and who is to end that host must get in.
                self._connect()
                return
            with self._turn_taken():
                self._connect()
                self._migrate(app, shards)
        except (OSError, sqlite3.Error) as error:
            msg = (
                f"Cannot open the store {self.url}: {error}. Give a path that can be written and is a Remora database."
            )
            raise StoreMismatch(msg) from error

    def _stands(self, app: str, shards: int) -> bool:
        """Return whether the database is as this release, app and machine want it: opening it writes nothing."""
        if not self.path.exists() or not Path(f"{self.path}-leases").exists():
            return False
        with closing(sqlite3.connect(self.path, timeout=5.0, isolation_level=None)) as probe:
            if probe.execute("PRAGMA user_version").fetchone()[0] != newest("sqlite"):
                return False
            meta = dict(probe.execute("SELECT key, value FROM meta").fetchall())
        if not {"app", "shards", "store", "term", "version"} <= meta.keys():
            return False
        check_identity(self.url, meta, app, shards)
        return meta.get("machine") == self._hostname()

    def _connect(self) -> None:
        self._write = self._connection(self.path, "FULL")
        self._read = self._connection(self.path, "FULL")
        self._fences = self._connection(self.path, "FULL")
        self._lease = self._connection(Path(f"{self.path}-leases"), "OFF")
        self._lease.execute(
            "CREATE TABLE IF NOT EXISTS leases (incarnation INTEGER PRIMARY KEY, renewed REAL NOT NULL)"
        )

    def _connection(self, path: Path, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA cache_size=-65536")
        # 16 MB of log between checkpoints: fewer, longer ones, since neighbouring pages are written once.
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        return connection

    def _migrate(self, app: str, shards: int) -> None:
        version = self._write.execute("PRAGMA user_version").fetchone()[0]
        if version > newest("sqlite"):
            raise newer_release(self.url, version, newest("sqlite"))
        for file in migrations("sqlite")[version:]:
            script = file.read_text()
            self._write.executescript(f"BEGIN IMMEDIATE;{script};PRAGMA user_version={int(file.name[:4])};COMMIT;")
        with self._transaction():
            for key, value in (
                ("app", app),
                ("shards", str(shards)),
                ("store", secrets.token_hex(16)),
                ("term", "0"),
                ("version", "0"),
            ):
                self._write.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
            meta = dict(self._write.execute("SELECT key, value FROM meta").fetchall())
            check_identity(self.url, meta, app, shards)
            foreign = self._write.execute(
                "SELECT name FROM hosts WHERE fenced = 0 AND machine <> ?", (machine_identity(),)
            ).fetchone()
            if foreign is not None and meta.get("machine") not in {None, self._hostname()}:
                msg = f"{self.url} is in use by hosts of another machine ({foreign[0]}): SQLite serves one machine; use PostgreSQL, or stop them."
                raise StoreMismatch(msg)
            self._write.execute("INSERT OR REPLACE INTO meta VALUES ('machine', ?)", (self._hostname(),))

    @staticmethod
    def _hostname() -> str:
        return os.uname().nodename

    async def close(self) -> None:
        """Close connections after what is queued has run."""
        self._closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.shutdown)
        await loop.run_in_executor(None, self._reader.shutdown)
        for name in ("_write", "_read", "_lease", "_fences"):
            connection = getattr(self, name, None)
            if connection is not None:
                connection.close()
        if self._turn >= 0:
            os.close(self._turn)
            self._turn = -1

    # -- the one place for threads, turns and errors -------------------------------------------

    async def _on(self, pool: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - passed on
        if self._closed:
            msg = f"The store {self.url} is closed."
            raise StoreUnavailable(msg)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *args)
        except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> RemoraError:
        # ValueError and OverflowError: text or a number that SQLite cannot bind; msgspec's decoding errors are ValueErrors too.
        if isinstance(error, msgspec.MsgspecError):
            return Corrupt(f"The store {self.url} holds what cannot be read: {error}")
        if isinstance(error, sqlite3.OperationalError | OSError | ValueError | OverflowError):
            return StoreUnavailable(f"The store {self.url} did not take or give data: {error}", retry_after_s=0.2)
        if isinstance(error, sqlite3.IntegrityError):
            return Fenced(f"Another writer was first in {self.url}: {error}")
        return Corrupt(f"The store {self.url} holds what cannot be read: {error}")

    @contextmanager
    def _turn_taken(self) -> Iterator[None]:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._write.execute("BEGIN IMMEDIATE")
        try:
            yield self._write
            self._write.execute("COMMIT")
        except BaseException:
            if self._write.in_transaction:
                self._write.execute("ROLLBACK")
            raise

    def _check_incarnation(self, incarnation: int, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT fenced FROM hosts WHERE incarnation = ?", (incarnation,)).fetchone()
        if row is None or row[0]:
            raise self._ended(incarnation)

    @staticmethod
    def _ended(incarnation: int) -> Fenced:
        return Fenced(f"Incarnation {incarnation} has ended: its shards belong to others now.")
