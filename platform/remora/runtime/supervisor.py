"""Runs one supervisor of an app: hosts ask it, the store says what it missed, and it watches entities.

::

    host ── asks about a failure ──▶ supervisor        its directive, or the declared rules, is carried out there
      │                                  ▲
      └─ notes what it was not asked ──▶ store ── tells what it missed, until it is told

What is told from the store is marked as told afterwards: after a crash in between it is told again.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from remora.app import App
from remora.client import Client
from remora.contract import EntitySpec
from remora.errors import Overloaded, RemoraError, StartError, Unavailable, Verdict
from remora.ids import check_entity_id
from remora.journal import FailureRow, Store
from remora.runtime.background import Background
from remora.sharding.hashing import entity_key
from remora.supervision.failure import Failure, described
from remora.supervision.rules import Directive
from remora.supervisor import Supervisor, Terminated

TELL_S = 1.0
"""Seconds between looks for failures that the supervisor has still to be told of."""
TELL_ROWS = 100
"""Rows read at a time."""
JUDGE_S = 30.0
"""Longest that a supervisor may be at one failure that it is told of, in seconds: all others wait for that."""
WATCH_S = 1.0
"""Seconds between looks at an entity that is watched."""
WATCHES_MAX = 1_000
"""Entities that a supervisor watches at a time: each is asked about every ``WATCH_S``."""
_decode = msgspec.json.Decoder(Failure).decode
_decode_stopped = msgspec.json.Decoder(tuple[str, bool] | None).decode


class SupervisorProcess:
    """Runs one supervisor.

    Args:
        app: The app.
        cls: One of its supervisors.
        store: The app's store, opened.
        client: A client of the app, started.
    """

    def __init__(self, app: App, cls: type[Supervisor], store: Store, client: Client) -> None:
        self.client = client
        self.told = 0
        """Failures that it was told of afterwards."""
        self.asked = 0
        """Failures that it was asked about."""
        self._name = cls.name
        self._ask_s = app.settings.supervisor_ask_s
        """Its hosts wait no longer for an answer."""
        self._types = [kind for kind, supervisor in app.supervisors.items() if supervisor is cls]
        self._store = store
        self._supervisor = cls()
        self._supervisor._process = self  # noqa: SLF001 - the runtime's half of Supervisor
        self._watches: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._log = logging.getLogger("remora.supervisor")
        self._background = Background(self._log, f"supervisor {cls.name}")

    async def start(self) -> None:
        """Let the supervisor do what it does first, then tell it what it missed, again and again.

        Raises:
            StartError: Its own ``started`` raised.
        """
        try:
            await self._supervisor.started()
        except Exception as error:
            msg = f"Supervisor {self._name} did not start: {described(error)}"
            raise StartError(msg) from error
        self._background.spawn(self._tell())

    async def close(self) -> None:
        """Stop."""
        await self._background.close()

    # -- failures ------------------------------------------------------------------------------------

    async def answer(self, data: bytes) -> str:
        """Return the name of the directive for a ``Failure`` as JSON; empty: the declared rules decide.

        Raises:
            Unavailable: The supervisor took longer than its host waits; it is told later, and has more time then.
        """
        self.asked += 1
        failure = _decode(data)
        try:
            async with asyncio.timeout(self._ask_s):
                directive = await self._judge(failure)
        except TimeoutError:
            msg = f"Supervisor {self._name} did not answer within {self._ask_s:g} s."
            raise Unavailable(msg, entity=failure.entity) from None
        return "" if directive is None else directive.value

    async def _judge(self, failure: Failure) -> Directive | None:
        """Have the supervisor decide; what it raises is its own failure, and the declared rules decide about the entity."""
        judging = asyncio.current_task()
        try:
            directive = await self._supervisor.on_failure(failure)
        except (Exception, asyncio.CancelledError):
            if judging is not None and judging.cancelling():
                raise  # it was not the supervisor's doing: its time is over, or this process ends
            self._log.exception("supervisor %s failed on a failure of %s", self._name, failure.entity)
            return None
        if directive is None or isinstance(directive, Directive):
            return directive
        self._log.error("supervisor %s returned %r, which is no Directive: the rules decide", self._name, directive)
        return None

    async def _tell(self) -> None:
        while True:
            try:
                while rows := await self._store.untold_failures(self._types, TELL_ROWS):
                    for row in rows:
                        await self._tell_of(row)
                        self.told += row.untold
                        await self._store.told([row])
            except RemoraError as error:  # the store is away: what is not told stays so, and is told when it is back
                self._log.warning("supervisor %s is not told what it missed: %s", self._name, error)
            await asyncio.sleep(TELL_S)  # noqa: TID251 - the period of looks

    async def _tell_of(self, row: FailureRow) -> None:
        failure = self._missed(row)
        if failure is None:
            return
        try:
            async with asyncio.timeout(JUDGE_S):
                await self._judge(failure)
        except TimeoutError:
            self._log.error("supervisor %s was at a failure of %s for %g s", self._name, row.entity, JUDGE_S)

    def _missed(self, row: FailureRow) -> Failure | None:
        """Return what a row tells, the last of its failures and how many are untold; None where it cannot be read."""
        try:
            return msgspec.structs.replace(_decode(row.latest), entity=row.entity, times=row.untold)
        except msgspec.MsgspecError:
            self._log.exception("what the store has of failures of %s cannot be told", row.entity)
            return None

    # -- watching ------------------------------------------------------------------------------------

    def watch(self, spec: EntitySpec, entity_id: str) -> None:
        """See ``Supervisor.watch``."""
        check_entity_id(entity_id, spec.type)
        key = (spec.type, entity_id)
        if key in self._watches:
            return
        if len(self._watches) >= WATCHES_MAX:
            msg = f"Supervisor {self._name} watches {WATCHES_MAX} entities, its bound: unwatch some."
            raise Overloaded(msg)
        task = self._watches[key] = self._background.spawn(self._watch(spec, entity_id))
        task.add_done_callback(lambda _: self._watches.pop(key, None) if self._watches.get(key) is task else None)

    def unwatch(self, spec: EntitySpec, entity_id: str) -> None:
        """See ``Supervisor.unwatch``."""
        task = self._watches.pop((spec.type, entity_id), None)
        if task is not None:
            task.cancel()

    async def _watch(self, spec: EntitySpec, entity_id: str) -> None:
        terminated = await self._termination(spec, entity_id)
        self._watches.pop((spec.type, entity_id), None)  # first: it may want to watch it again
        await self._supervisor.on_terminated(terminated)

    async def _termination(self, spec: EntitySpec, entity_id: str) -> Terminated:
        while True:
            try:
                _, payload = await self.client.call(spec, "$stopped", entity_id, b"{}", lane=False)
            except RemoraError as error:
                if error.verdict is Verdict.REJECT:
                    raise
                payload = b"null"  # its host is away, and whoever gets it next can tell
            if (found := _decode_stopped(payload)) is not None:
                return Terminated(entity_key(spec.type, entity_id), *found)
            await asyncio.sleep(WATCH_S)  # noqa: TID251 - the period of looks
