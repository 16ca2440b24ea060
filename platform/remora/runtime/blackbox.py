"""What a host's process is running at this moment, in a file that outlives it: who took it down is read there.

A file of a few pages in shared memory, which the kernel keeps when the process is gone: one place for
the event loop and one for each thread that runs handlers. Entering and leaving a handler is a write to
memory (measured: 0.8 µs together). How the process ended is there too, as far as it was by its own hand: a fatal
signal (by Python's ``faulthandler``, with the thread it struck), a call of ``os._exit``, or the watchdog's
verdict. A process that is killed from outside leaves no cause: whoever ran in it is not to blame.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import re
import stat
import struct
import tempfile
import threading
import time
import types
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from remora.process import started_s

PLACE_BYTES = 4096
"""One place: more than the longest ``type/id`` and the name of a command take."""
_THREAD_NUMBER = struct.Struct("<Q")
"""What a place begins with: whose it is. Behind it entity and command, each with a zero byte at its end; nothing runs
where the first byte of that is zero."""
_TEXT_BYTES = PLACE_BYTES - _THREAD_NUMBER.size
_CAUSE_BYTES = 4096
_HEAD = struct.Struct("<QH")
"""What the file begins with: the thread that ended the process, and the length of cause, entity and command behind it."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of this user alone in it
TIDY_S = 3600.0
"""Seconds after which what a process left is taken away."""
_FAULT = re.compile(r"Fatal Python error: (?P<what>[^\n]+)")
_THREAD = re.compile(r"Current thread (?P<number>0x[0-9a-f]+)")


def _folder() -> Path:
    """Return this user's folder, and no other's: what is read there decides about quarantine.

    Raises:
        OSError: There is none to be had.
    """
    beside = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    folder = beside / f"remora-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        msg = f"{folder} is not this user's alone: remove it"
        raise PermissionError(msg)
    return folder


def _file(pid: int, started: float) -> Path:
    return _folder() / f"{pid}-{started:.2f}.box"


def _created(path: Path) -> int:
    """Create a file that was not there, and return its descriptor."""
    path.unlink(missing_ok=True)  # of a process of that number and start, which was this one
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)


class Taken(NamedTuple):
    """What a thread runs at this moment."""

    thread: int
    run: int
    """Counts what this thread has run: tells one that lasts from many behind each other."""
    what: str


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a process that has ended left behind."""

    cause: str
    """How it ended by its own hand, as a sentence's end; empty where it was ended from outside."""
    culprit: tuple[str, str] | None
    """(entity, command) that the thread ran which ended it; None where it ran none."""


class Place:
    """Where one thread says what it runs."""

    __slots__ = ("_at", "_box", "thread")

    def __init__(self, box: BlackBox, number: int) -> None:
        self._box = box
        self._at = _CAUSE_BYTES + number * PLACE_BYTES + _THREAD_NUMBER.size
        self.thread = threading.get_ident()
        _THREAD_NUMBER.pack_into(box.pages, self._at - _THREAD_NUMBER.size, self.thread)

    def enter(self, entity: str, command: str) -> None:
        """Say what runs now."""
        text = f"{entity}\0{command}\0".encode()[:_TEXT_BYTES]
        at = self._at
        self._box.pages[at : at + len(text)] = text

    def leave(self) -> None:
        """Say that nothing runs."""
        self._box.pages[self._at] = 0


class BlackBox:
    """This process's file.

    Args:
        threads: How many threads beside the event loop run handlers at once.

    Raises:
        OSError: There is no place for it.
    """

    def __init__(self, threads: int) -> None:
        self._path = _file(os.getpid(), started_s(os.getpid()))
        descriptor = _created(self._path)
        try:
            size = _CAUSE_BYTES + (threads + 1) * PLACE_BYTES
            os.posix_fallocate(descriptor, 0, size)  # a page that cannot be had is an error here, and no signal later
            self.pages = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._fault = os.fdopen(_created(self._path.with_suffix(".fault")), "w", encoding="utf-8")
        self.loop = Place(self, 0)
        self._free = list(range(1, threads + 1))
        self._taken: dict[int, Taken] = {}
        self._runs = 0
        self._exit: Callable[[int], None] | None = None

    @contextlib.contextmanager
    def within(self, entity: str, command: str) -> Iterator[None]:
        """Say what the calling thread runs while it does."""
        number = self._free.pop()
        place = Place(self, number)
        place.enter(entity, command)
        self._runs = run = self._runs + 1  # of two threads at once one may be lost: they are told apart by thread
        self._taken[number] = Taken(place.thread, run, f"{entity}.{command}")
        try:
            yield
        finally:
            del self._taken[number]
            place.leave()
            self._free.append(number)

    def taken(self) -> list[Taken]:
        """Return what threads run beside the event loop; from any of them."""
        return list(self._taken.values())

    def say(self, cause: str, thread: int = 0, what: tuple[str, str] = ("", "")) -> None:
        """Say how this process is about to end.

        Args:
            cause: How.
            thread: By which thread; what it runs at the end is the culprit.
            what: The culprit, (entity, command), where that is known already.
        """
        text = "\0".join((cause, *what)).encode()[: _CAUSE_BYTES - _HEAD.size]
        self.pages[_HEAD.size : _HEAD.size + len(text)] = text
        _HEAD.pack_into(self.pages, 0, thread, len(text))

    def touch(self) -> None:
        """Show that this process lives: writing to memory does not change a file's time."""
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def _forked(self) -> None:
        """In a child of this process: what becomes of it is not this process's end."""
        self.pages = mmap.mmap(-1, len(self.pages))
        self._unhook()

    def _unhook(self) -> None:
        if self._exit is not None:
            os._exit = self._exit  # type: ignore[assignment]  # the original
            self._exit = None
            faulthandler.disable()

    def listen(self) -> None:
        """Have fatal signals and calls of ``os._exit`` noted from now on."""
        faulthandler.enable(self._fault)  # of all threads: without that it does not say which one it was
        self._exit = leave = os._exit

        def noted(status: int) -> None:
            self.say(f"os._exit({status})", threading.get_ident())
            leave(status)

        os._exit = noted  # type: ignore[assignment]  # it does not return either
        os.register_at_fork(after_in_child=self._forked)

    def close(self) -> None:
        """This process ends as it should: take the file away. The memory stays: threads may write to it still."""
        self._unhook()
        self._fault.close()
        remove(os.getpid(), started_s(os.getpid()))


@types.coroutine
def stepped(coroutine: Any, place: Place, entity: str, command: str) -> Generator[Any, Any, Any]:  # noqa: ANN401 - a handler, and what it awaits
    """Run a handler that awaits, saying at each of its steps that it runs; between them others do."""
    given: object = None
    thrown: BaseException | None = None
    while True:
        place.enter(entity, command)
        try:
            waits_for = coroutine.send(given) if thrown is None else coroutine.throw(thrown)
        except StopIteration as stop:
            return stop.value
        finally:
            place.leave()
        given, thrown = None, None
        try:
            given = yield waits_for
        except BaseException as error:  # noqa: BLE001 - it is the handler's to catch
            thrown = error


def remove(pid: int, started: float) -> None:
    """Take away what a process left."""
    for path in (_file(pid, started), _file(pid, started).with_suffix(".fault")):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def last_words(pid: int, started: float) -> LastWords | None:
    """Return what a process of this machine that has ended left; None if it left nothing.

    Args:
        pid: Its number.
        started: When it started, as ``process.started_s`` has it.
    """
    try:
        data = _file(pid, started).read_bytes()
        fault = _file(pid, started).with_suffix(".fault").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if len(data) < _CAUSE_BYTES:
        return None
    thread, length = _HEAD.unpack_from(data, 0)
    cause, *what = data[_HEAD.size : _HEAD.size + length].decode(errors="replace").split("\0")
    known = (what[0], what[1]) if len(what) > 1 and what[0] else None
    if (found := _FAULT.search(fault)) is not None:
        cause = found["what"].strip()
        struck = _THREAD.search(fault)
        thread = 0 if struck is None else int(struck["number"], 16)
    return LastWords(cause, (known or _ran(data, thread)) if cause else None)


def _ran(data: bytes, thread: int) -> tuple[str, str] | None:
    for at in range(_CAUSE_BYTES, len(data), PLACE_BYTES):
        (number,) = _THREAD_NUMBER.unpack_from(data, at)
        if number == thread and data[at + _THREAD_NUMBER.size]:
            entity, command, *_ = data[at + _THREAD_NUMBER.size : at + PLACE_BYTES].split(b"\0")
            return entity.decode(errors="replace"), command.decode(errors="replace")
    return None


def tidy() -> None:
    """Take away what processes left that ended and that nobody asked about."""
    for path in _folder().iterdir():
        pid, _, started = path.stem.partition("-")
        with contextlib.suppress(ValueError, OSError):
            if f"{started_s(int(pid)):.2f}" != started and _old(path):
                path.unlink()


def _old(path: Path) -> bool:
    """Return whether a process has ended longer ago than anybody takes to ask about it."""
    return time.time() - path.stat().st_mtime > TIDY_S  # noqa: TID251 - of files, not of the platform's clock
