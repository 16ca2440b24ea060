"""What ``client.ref`` returns: at type-checking time the entity, at run time a ``Reference``.

Only the entity's commands and queries and the documented reference names exist on it; every
other attribute raises, so that nobody mistakes it for the entity's memory.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from remora.contract import EntitySpec, HandlerSpec
from remora.errors import InvalidArgument, UnknownCommand
from remora.ids import check_command_id
from remora.why import Why

HISTORY_LIMIT_MAX = 1000
"""Events one ``history`` call returns at most."""


class Caller(Protocol):
    """Carries a reference's calls: a client, or a running handler."""

    async def call(
        self, spec: EntitySpec, method: HandlerSpec | str, entity_id: str, args: bytes, *,
        command_id: str | None = None, deadline_s: float | None = None, stale: bool = False,
    ) -> tuple[int, bytes]:  # fmt: skip
        """Ask and wait; see ``Client.call``."""
        ...

    async def why(self, spec: EntitySpec, entity_id: str) -> Why:
        """Say what an entity does or waits for; see ``Client.why``."""
        ...


class Reference:
    """A reference to one entity."""

    __slots__ = ("_caller", "_command_id", "_deadline_s", "_spec", "_stale", "id")

    def __init__(
        self, caller: Caller, spec: EntitySpec, entity_id: str,
        command_id: str | None = None, deadline_s: float | None = None, stale: bool = False,  # noqa: FBT001, FBT002 - internal
    ) -> None:  # fmt: skip
        self._caller = caller
        self._spec = spec
        self.id = entity_id
        self._command_id = command_id
        self._deadline_s = deadline_s
        self._stale = stale

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - typed by the entity class
        """Return a command or query, ready to be called."""
        handler = self._spec.handlers.get(name)
        if handler is None:
            have = ", ".join(sorted(self._spec.handlers))
            msg = f"A reference to {self._spec.cls.__name__} has {have}, with_options, why, history, snapshot and release_sends; not {name!r}."
            raise AttributeError(msg)

        async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - typed by the entity class
            _, payload = await self._caller.call(
                self._spec, handler, self.id, handler.bind(args, kwargs),
                command_id=self._command_id, deadline_s=self._deadline_s, stale=self._stale,
            )  # fmt: skip
            return handler.read_reply(payload)

        return call

    def with_options(
        self, *, command_id: str | None = None, deadline_s: float | None = None, stale: bool = False
    ) -> Reference:
        """Return a reference that calls with these options; see ``Entity.with_options``."""
        if deadline_s is not None and not 0 < deadline_s <= 86_400:  # noqa: PLR2004 - a day
            msg = f"deadline_s must be above 0 and at most 86400 seconds, not {deadline_s!r}."
            raise InvalidArgument(msg)
        identity = self._command_id if command_id is None else check_command_id(command_id)
        return Reference(self._caller, self._spec, self.id, identity, deadline_s or self._deadline_s, stale)

    async def why(self) -> Why:
        """Return what the entity does or waits for, and for how long: within a second, whatever is dead."""
        return await self._caller.why(self._spec, self.id)

    async def history(self, *, after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        """Return recorded events in order."""
        if self._spec.kind != "event_sourced":
            msg = f"{self._spec.cls.__name__} is {self._spec.kind}: only an EventSourced entity has a history."
            raise UnknownCommand(msg)
        if not (0 <= after < 2**63 and 0 < limit <= HISTORY_LIMIT_MAX):
            msg = f"history takes after from 0 to 2**63 - 1 and limit from 1 to {HISTORY_LIMIT_MAX}."
            raise InvalidArgument(msg)
        args = msgspec.json.encode({"after": after, "limit": limit})
        return await self._built_in("$events", args)  # type: ignore[no-any-return]  # JSON

    async def snapshot(self) -> dict[str, Any]:
        """Return the entity's state as plain data."""
        return await self._built_in("$state", b"{}")  # type: ignore[no-any-return]  # JSON

    async def release_sends(self) -> int:
        """Send again what was parked; return how many sends that are."""
        return await self._built_in("$release", b"{}")  # type: ignore[no-any-return]  # JSON

    def __repr__(self) -> str:
        """Return ``<ref account/alice>``."""
        return f"<ref {self._spec.type}/{self.id}>"

    async def _built_in(self, name: str, args: bytes) -> Any:  # noqa: ANN401 - JSON
        _, payload = await self._caller.call(
            self._spec, name, self.id, args, deadline_s=self._deadline_s, stale=self._stale
        )
        return msgspec.json.decode(payload)
