"""What one host waits for before it serves: its checks as they are run, and the types it does not serve yet.

A type that declares ``depends_on`` or ``ready_when`` is closed on a host until the registry (``runtime.startup``) has it
opened. What is open in the app is a note in the store: a host that joins later passes the checks of those types before it
joins, and serves them from its first shard on.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from remora.errors import Unavailable
from remora.lifecycle import Phase
from remora.supervision.order import type_part
from remora.supervision.readiness import Check, Readiness

if TYPE_CHECKING:
    from remora.runtime.cell import Cell
    from remora.runtime.host import Host

OPENED = "opened"
"""Note of the registry in the store: the parts of the app that have become ready since it started."""
TRY_MIN_S = 0.05
"""First pause between tries of a check, in seconds; each is twice as long as the one before, up to its ``every_s``."""
TOLD_S = 1.0
"""Longest that a host which has not joined keeps a question for what it waits for, in seconds."""
COME_BACK_S = 0.1
"""What commands to a closed type are told to wait, in seconds."""
STOPPING = "the app is being stopped"
_decode_opened = msgspec.json.Decoder(list[str]).decode


class Progress(NamedTuple):
    """What the registry tells hosts."""

    opened: tuple[str, ...]
    """Types that are open in the app."""
    due: tuple[str, ...]
    """Types that may become ready now: their checks are to be run."""
    waits: dict[str, str]
    """Closed type → what it waits for, of those that are not due."""


class Trial:
    """The checks of one part in this process, each tried until it passes.

    Args:
        checks: The checks, in order.
    """

    def __init__(self, checks: Sequence[Readiness]) -> None:
        self._checks = checks
        self.passed = not checks
        self.waits_for = "" if self.passed else f"check {checks[0].name}"
        self.changed = asyncio.Event()
        """Set with each change of these two; for who waits to clear."""

    async def run(self) -> None:
        """Return once all have passed."""
        for check in self._checks:
            await self._until_it_passes(check)
        self.passed = True
        self._tell("")

    async def _until_it_passes(self, check: Readiness) -> None:
        self._tell(f"check {check.name}")
        tries, pause_s = _Tries(check), min(TRY_MIN_S, check.every_s)
        try:
            while why_not := await tries.once():
                self._tell(f"check {check.name}: {why_not}")
                await asyncio.sleep(pause_s)  # noqa: TID251 - growing, bounded pause between tries
                pause_s = min(pause_s * 2, check.every_s)
        finally:
            tries.end()

    def _tell(self, waits_for: str) -> None:
        self.waits_for = waits_for
        self.changed.set()


class _Tries:
    """Tries of one check, one at a time."""

    def __init__(self, check: Readiness) -> None:
        self._check = check
        self._running: asyncio.Future[str] | None = None

    async def once(self) -> str:
        """Try, or go on waiting for a try that has not ended; return why it is not ready, empty once it is."""
        if self._running is None or self._running.cancelled():
            self._running = _begun(self._check.check)
        await asyncio.wait([self._running], timeout=self._check.timeout_s)
        if not self._running.done():
            self.end()
            return f"no answer within {self._check.timeout_s:g} s"
        ended, self._running = self._running, None
        return "it was cancelled" if ended.cancelled() else ended.result()

    def end(self) -> None:
        """Cancel the try that runs, if it can be: a thread goes on."""
        if isinstance(self._running, asyncio.Task):
            self._running.cancel()


def _begun(check: Check) -> asyncio.Future[str]:
    if inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(getattr(check, "__call__", None)):  # noqa: B004 - an object with an async __call__ is one too
        return asyncio.ensure_future(_asked(check))
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def run() -> None:
        said = _called(check)
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits any more
            loop.call_soon_threadsafe(lambda: None if answer.done() else answer.set_result(said))

    # Of its own and not of a pool: one that never returns must not keep its process from ending.
    threading.Thread(target=run, name="remora-readiness", daemon=True).start()
    return answer


async def _asked(check: Check) -> str:
    try:
        return _verdict(await check())  # type: ignore[misc]  # known to be awaitable
    except Exception as error:  # noqa: BLE001 - whatever the app's own check raises, it is not ready
        return _said(error)


def _called(check: Check) -> str:
    try:
        return _verdict(check())
    except BaseException as error:  # noqa: BLE001 - as above; in a thread SystemExit concerns nobody else either
        return _said(error)


def _verdict(answer: object) -> str:
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        return "it returned what has to be awaited: make it an async function"
    return "" if answer is None or answer else "not yet"


def _said(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Gate:
    """What one host does not serve, or not yet.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._order = host.app.order
        self._dedicated = host.row.dedicated.partition("/")[0]
        self._types = self._order.gated_on(host.row.group, self._dedicated)
        self.closed: dict[str, float] = dict.fromkeys(self._types, host.clock.monotonic_s())
        """Type that is not served → since when."""
        self._waits: dict[str, str] = {}
        self._trials: dict[str, Trial] = {}
        self._now: Trial | None = None
        """What has to pass before this host joins."""
        self._joining: asyncio.Task[None] | None = None
        self._stopping = False

    # -- before it joins ---------------------------------------------------------------------------

    async def prepare(self, known: str = "") -> str:
        """Run what has to pass before this host joins; return what is waited for, empty once it may join.

        Args:
            known: What the caller has heard already: it is told once that has changed, or after a second.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + TOLD_S
        joining = self._begin()
        while not joining.done() and (left_s := until_s - loop.time()) > 0:
            if self._now is None:
                await asyncio.wait([joining], timeout=min(left_s, TRY_MIN_S))
                continue
            if self._now.waits_for not in {known, ""}:
                return self._now.waits_for
            self._now.changed.clear()
            changed = asyncio.ensure_future(self._now.changed.wait())
            await asyncio.wait([joining, changed], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        if joining.done():
            joining.result()
            return ""
        return (self._now.waits_for if self._now is not None else "") or known or "the store"

    async def may_join(self) -> None:
        """Return once this host may join."""
        if self._order.declared:
            await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[None]:
        if self._joining is None:
            self._joining = self._host.spawn(self._before_joining())
        return self._joining

    async def _before_joining(self) -> None:
        host = self._host
        self._now = Trial(self._order.before_joining(host.row.group, self._dedicated))
        await self._now.run()
        while True:  # what is opened elsewhere while checks are run here, too
            text = await host.patiently(lambda: host.store.note(OPENED))
            opened = [] if text is None else _decode_opened(text)
            left = [name for name in self._types if name in self.closed and type_part(name).key in opened]
            if not left:
                return
            for name in left:
                self._now = self._trials[name] = Trial(self._order.checks[type_part(name)])
                await self._now.run()
                self._open(name)

    # -- while it serves ---------------------------------------------------------------------------

    def follow(self, progress: Progress) -> dict[str, str]:
        """Open what may be served, and run the checks of what comes next.

        Returns:
            What this host waits for, by type, of those that are open in the app or may become so.
        """
        self._waits = progress.waits
        left: dict[str, str] = {}
        for name in list(self.closed):
            if self._stopping or not (name in progress.opened or name in progress.due):
                continue
            trial = self._trials.get(name)
            if trial is None:
                trial = self._trials[name] = Trial(self._order.checks[type_part(name)])
                if not trial.passed:
                    self._host.spawn(trial.run())
            if not trial.passed:
                left[name] = trial.waits_for
            elif name in progress.opened:
                self._open(name)
        return left

    def _open(self, name: str) -> None:
        del self.closed[name]
        self._host.log.info("%s serves %s", self._host.name, name)
        if self._host.app.specs[name].options.remember:
            self._host.remembered.take_over(list(self._host.shards))

    def waits_for(self, name: str) -> str:
        """Return what a closed type waits for."""
        if self._stopping:
            return STOPPING
        trial = self._trials.get(name)
        if trial is not None and not trial.passed:
            return trial.waits_for
        return self._waits.get(name) or "its turn in the order in which the app starts"

    def refusal(self, name: str, key: str, command_id: str = "") -> Unavailable:
        """Return what commands to a closed type are told."""
        verb = "is served no more" if self._stopping else "is not served yet"
        msg = f"{name} {verb} by {self._host.name}, which waits for: {self.waits_for(name)}."
        if self._stopping:
            msg = f"{name} {verb}: {STOPPING}."
        return Unavailable(msg, entity=key, command_id=command_id, retry_after_s=COME_BACK_S)

    # -- when the app stops --------------------------------------------------------------------------

    async def close(self, names: Iterable[str]) -> None:
        """Serve types no more: handlers that run end (bounded), what they did is written, what waits is refused."""
        host, closing = self._host, set(names)
        self._stopping = True
        self.closed.update((name, host.clock.monotonic_s()) for name in closing - self.closed.keys())
        await self._let_go(closing)
        await host.handoff.running_end(self._cells(closing), frozenset())
        await self._let_go(closing, running=True)

    async def _let_go(self, names: set[str], *, running: bool = False) -> None:
        """Take activations out of memory, once what they did is written; those whose handlers run only if told to."""
        host, cells = self._host, self._cells(names)
        host.handoff.stop(cells)
        await host.committer.flush()
        for cell in cells:
            if cell.phase is not Phase.GONE and (running or cell.task is None):
                cell.leave(self.refusal(cell.spec.type, cell.key))
                host.ownership.forget(cell)
        await host.committer.flush()  # what was begun meanwhile

    def _cells(self, names: set[str]) -> list[Cell]:
        return [cell for cell in self._host.cells.values() if cell.spec.type in names]
