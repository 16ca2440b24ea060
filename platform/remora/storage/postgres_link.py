"""Connections to PostgreSQL that come back by themselves, and what its errors mean to Remora.

Every wait has a bound: for a turn on a connection, for a connection, for an answer. What does not
answer in time is dropped with its connection: nothing is asked of it any more, and what it was
asked may have been done.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from remora.errors import Corrupt, Fenced, RemoraError, StoreMismatch, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")

CONNECT_S = 1.5
"""Longest wait for a connection to be made, in seconds; then it is begun anew."""
WAIT_S = 3.0
"""Longest wait for a turn and for a connection while there is none, in seconds. Waiting here and not in many short
tries lets the first caller go on within a moment of the server's return."""
PAUSE_MIN_S = 0.05
PAUSE_MAX_S = 0.3
"""Shortest and longest pause between tries to connect, in seconds: all hosts of an app come back to one server."""
LEASE_S = 1.0
"""Longest wait for a lease to be renewed, in seconds: half of what a lease lasts."""
RETRY_AFTER_S = 0.2

SETTINGS = {
    "application_name": "remora",
    # What the fence rests on: a check that waited for a fence reads its outcome.
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "on",
    "jit": "off",  # statements are short: compiling them costs more than it saves
    # All below a lease less its margin (1.75 s by default): whatever becomes of its host, a statement is over and its
    # locks are free before anybody may take the host's shards.
    "statement_timeout": "1500",
    "lock_timeout": "1000",
    "idle_in_transaction_session_timeout": "1000",
    # A host whose network is gone is noticed by the server too.
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "3000",
}
"""Of every session, in ms and s; what the URL says of them goes before."""
TRANSACTION_TIMEOUT_MS = 1700
"""Servers from 17 on: also ends a statement whose client froze before it had sent the last bytes of it."""
_TRANSACTION_TIMEOUT_SINCE = 17

_REFUSED = {"28000", "28P01", "3D000", "42501", "3F000"}
"""Who may do what, and names that do not exist: nothing that passes by itself."""
_DAMAGED = {"XX001", "XX002"}
_UNIQUE = "23505"
_OWN: dict[str, tuple[type[RemoraError], str]] = {
    "RM001": (Fenced, "Incarnation {} has ended: its shards belong to others now."),
    "RM002": (Fenced, "This leader term has ended: a registry of term {} leads."),
    "RM003": (StoreUnavailable, "Shard {} has got another owner meanwhile: read the table again."),
    "RM004": (
        StoreUnavailable,
        "Incarnation {} has ended meanwhile and can own nothing: read the table again.",
    ),
}
"""What the functions of the schema raise; the message of the server is the name or number in the sentence."""


class Target:
    """Where a store is: a PostgreSQL URL, its secrets kept to itself.

    Args:
        url: ``postgresql://user:password@host:port/database?setting=value``; settings of the server may be given.

    Raises:
        StoreMismatch: It cannot be read, or the driver is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self.driver: Any = importlib.import_module("asyncpg")
        except ImportError as error:
            msg = "PostgreSQL needs the driver asyncpg, which is not installed: pip install 'remora[postgres]'."
            raise StoreMismatch(msg) from error
        # Whatever is wrong with it: no part of the URL may stand in a message, it may be a part of the password.
        unreadable = StoreMismatch(
            "The PostgreSQL URL cannot be read: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
            "special characters of the password percent-encoded."
        )
        try:
            parts = urlsplit(url)
            query = dict(parse_qsl(parts.query))
        except ValueError:
            raise unreadable from None
        user, at, hosts = parts.netloc.rpartition("@")
        ports = [host.rpartition("]")[2].partition(":")[2] or "0" for host in hosts.split(",")]
        if not all(port.isdecimal() for port in ports) or "@" in parts.path + parts.query or parts.fragment:
            raise unreadable
        name, _, password = user.partition(":")
        self._secrets = {password, unquote(password), query.get("password", "")} - {""}
        self._url = url
        self._own = query.keys()
        self.visible = f"postgresql://{name}{at}{hosts or query.get('host', '')}{parts.path}"

    def __repr__(self) -> str:
        return self.visible

    async def connect(self, settings: dict[str, str]) -> Any:  # noqa: ANN401 - the driver has no types
        """Make a connection; errors are the driver's."""
        merged = {name: value for name, value in settings.items() if name not in self._own}
        connection = await self.driver.connect(self._url, timeout=CONNECT_S, server_settings=merged)
        try:
            version = connection.get_server_version()
            if version.major >= _TRANSACTION_TIMEOUT_SINCE and "transaction_timeout" not in self._own:
                limit = max(TRANSACTION_TIMEOUT_MS, int(settings["statement_timeout"]) + 200)
                async with asyncio.timeout(CONNECT_S):
                    await connection.execute(f"SET transaction_timeout = {limit}")
        except BaseException:
            connection.terminate()
            raise
        return connection

    def scrub(self, text: str) -> str:
        """Return text without the password."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def translate(self, error: BaseException) -> RemoraError:
        """Return what an error of the driver, the system or a decoder means. The one place that says so."""
        if isinstance(error, RemoraError):
            return error
        text = self.scrub(f"{error}" or type(error).__name__)
        state = getattr(error, "sqlstate", None)
        if state in _OWN:
            kind, sentence = _OWN[state]
            return kind(sentence.format(text))
        if state == _UNIQUE:
            detail = self.scrub(getattr(error, "detail", None) or text)
            return Fenced(f"Another writer was first in {self.visible}: {detail}")
        if isinstance(error, msgspec.MsgspecError) or state in _DAMAGED:
            return Corrupt(f"The store {self.visible} holds what cannot be read: {text}")
        # Everything else passes, or somebody has to mend it: lost connections, restarts, full disks, limits, time-outs,
        # read-only servers, and values that the driver cannot write.
        return StoreUnavailable(
            f"The store {self.visible} did not take or give data: {text}", retry_after_s=RETRY_AFTER_S
        )

    def refusal(self, error: BaseException) -> RemoraError:
        """Return what an error means that kept the store from being opened."""
        if isinstance(error, RemoraError):
            return error
        state = getattr(error, "sqlstate", None)
        text = self.scrub(f"{error}" or type(error).__name__)
        if state in _REFUSED:
            msg = (
                f"{self.visible} refuses: {text}. Check user, password and database name, and that the user may create "
                "a schema in the database (GRANT CREATE ON DATABASE)."
            )
            return StoreMismatch(msg)
        if state is None:
            msg = f"Cannot reach {self.visible}: {text}. Check host and port, and that PostgreSQL runs and lets this machine in."
            return StoreMismatch(msg)
        return self.translate(error)


class Link:
    """One connection, made when it is first needed and again when it is lost; callers take turns on it.

    Args:
        target: Where to.
        settings: Of its session, beside those of every session.
        answer_s: Longest wait for an answer, in seconds.
        wait_s: Longest wait for a turn and a connection, in seconds.
    """

    def __init__(self, target: Target, settings: dict[str, str], *, answer_s: float, wait_s: float = WAIT_S) -> None:
        self._target = target
        self._settings = {**SETTINGS, **settings}
        self._answer_s = answer_s
        self._wait_s = wait_s
        self._turn = asyncio.Lock()
        self._connection: Any = None
        self._closed = False
        self.waiting = 0
        """Callers that have or wait for a turn."""

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do something with the connection.

        Raises:
            RemoraError: Whatever goes wrong.
        """
        self.waiting += 1
        try:
            async with self._my_turn():
                return await self._answered(self._connection, work)
        finally:
            self.waiting -= 1

    @asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        """Wait for the turn and for a connection, both together bounded."""
        taken = False
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turn.acquire()
                taken = True
                if self._closed:
                    msg = f"The store {self._target.visible} is closed."
                    raise StoreUnavailable(msg)
                await self._connected()
            yield
        except TimeoutError as error:
            msg = f"The store {self._target.visible} cannot be reached, or has more to do than it can."
            raise StoreUnavailable(msg, retry_after_s=RETRY_AFTER_S) from error
        finally:
            if taken:
                self._turn.release()

    async def _connected(self) -> None:
        pause = PAUSE_MIN_S
        deadline = asyncio.get_running_loop().time() + self._wait_s
        while self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._target.connect(self._settings)
            except Exception as error:  # the driver's, the system's: what is not there may come
                if getattr(error, "sqlstate", None) in _REFUSED or (
                    asyncio.get_running_loop().time() + pause >= deadline
                ):
                    raise self._target.translate(error) from error
                await asyncio.sleep(pause)  # noqa: TID251 - growing, bounded pause while the server is away
                pause = min(pause * 2, PAUSE_MAX_S)

    async def _answered(self, connection: Any, work: Callable[[Any], Awaitable[T]]) -> T:  # noqa: ANN401 - untyped
        late = False

        def drop() -> None:
            nonlocal late
            late = True
            connection.terminate()

        timer = asyncio.get_running_loop().call_later(self._answer_s, drop)
        usable = False
        try:
            answer = await work(connection)
            usable = True
        except Exception as error:
            usable = getattr(error, "sqlstate", None) is not None and not connection.is_closed()
            if late:
                msg = f"The store {self._target.visible} did not answer within {self._answer_s:g} s."
                raise StoreUnavailable(msg, retry_after_s=RETRY_AFTER_S) from error
            raise self._target.translate(error) from error
        finally:
            timer.cancel()
            if not usable:  # also when the caller gave up: its answer may still be on the way
                connection.terminate()
        return answer

    async def close(self) -> None:
        """Close the connection after what is under way."""
        self._closed = True
        taken = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._answer_s):
                taken = await self._turn.acquire()
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with suppress(Exception):  # it is let go of either way
                await connection.close(timeout=1.0)
            connection.terminate()
        if taken:
            self._turn.release()


class LeaseLink:
    """A link with a thread and an event loop of its own: a lease must not wait for a busy host.

    Args:
        target: Where to.
        settings: Of its session, beside those of every session.
    """

    def __init__(self, target: Target, settings: dict[str, str]) -> None:
        self._target = target
        self._link = Link(target, settings, answer_s=LEASE_S, wait_s=LEASE_S)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do something with the connection, blocking."""
        with self._lock:
            if self._closed:
                msg = f"The store {self._target.visible} is closed."
                raise StoreUnavailable(msg)
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, name="remora-lease-link", daemon=True)
                self._thread.start()
            loop = self._loop
        return self._wait(self._bounded(work), loop)

    async def _bounded(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(LEASE_S):
                return await self._link.run(work)
        except TimeoutError as error:
            raise self._target.translate(TimeoutError(f"no answer within {LEASE_S:g} s")) from error

    def _wait(self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result(LEASE_S * 2)
        except TimeoutError as error:  # the thread got no time at all
            future.cancel()
            raise self._target.translate(error) from error

    def _serve(self) -> None:
        loop = self._loop
        if loop is not None:
            asyncio.set_event_loop(loop)
            loop.run_forever()
            loop.close()

    def close(self) -> None:
        """Close the connection and end the thread; blocking."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        with suppress(RemoraError):
            self._wait(self._link.close(), loop)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(LEASE_S)
