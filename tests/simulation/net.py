"""A platform in one process whose parties can be cut off from each other, as on machines of their own.

Parties are hosts by name, "registry", "store" and "client", which is everybody outside. A cut works
both ways and at once: what is asked across it fails, nobody learns whether it was done, and no
process behind it can be ended or seen to have ended.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from remora import App, Client
from remora.errors import HostGone, StoreUnavailable, Unavailable
from remora.journal import Store
from remora.local import LocalPlatform
from remora.sharding.table import HostRow, Table
from remora.storage.memory import MemoryStore
from remora.why import Glance
from tests.simulation.virtual import VirtualClock, passing

_party: ContextVar[str] = ContextVar("party", default="")
PAUSE_S = 0.05
"""How long a call across a cut takes to fail, in virtual seconds."""


class Net:
    """Who is cut off from whom."""

    def __init__(self) -> None:
        self.cuts: set[frozenset[str]] = set()

    def cut(self, one: str, *others: str) -> None:
        """Cut a party off from others."""
        self.cuts |= {frozenset({one, other}) for other in others}

    def heal(self, *parties: str) -> None:
        """Mend every cut of these parties, or of all."""
        self.cuts = {cut for cut in self.cuts if parties and not cut & set(parties)}

    def parted(self, one: str, other: str) -> bool:
        """Return whether two parties do not reach each other."""
        return frozenset({one, other}) in self.cuts


class ApartStore:
    """The store as one party reaches it."""

    def __init__(self, inner: Store, net: Net, party: str) -> None:
        self._inner = inner
        self._net = net
        self._me = party

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method of the store
        found = getattr(self._inner, name)
        if name == "renew":
            return self._renew
        if name in {"open", "close"} or not callable(found):
            return found

        async def through(*args: Any) -> Any:  # noqa: ANN401 - any method of the store
            await self._check()
            answer = await found(*args)
            await self._check()  # cut meanwhile: done, and nobody knows
            return answer

        return through

    def _renew(self, incarnation: int, at_s: float) -> None:
        if self._net.parted(self._me, "store"):
            raise StoreUnavailable(self._away())
        self._inner.renew(incarnation, at_s)

    async def _check(self) -> None:
        if self._net.parted(self._me, "store"):
            await passing(PAUSE_S)
            raise StoreUnavailable(self._away())

    def _away(self) -> str:
        return f"{self._me} does not reach the store."


class Seat:
    """The platform as one party reaches it: a client's directory and transport."""

    def __init__(self, platform: "Apart", party: str) -> None:
        self._platform = platform
        self._me = party

    async def _registry(self) -> None:
        if self._platform.net.parted(self._me, "registry"):
            await passing(PAUSE_S)
            msg = "The registry does not answer."
            raise Unavailable(msg)

    async def table(self, after: int) -> Table:
        await self._registry()
        found = await self._platform.registry.table(after)
        await self._registry()
        return found

    async def place(self, key: str) -> None:
        await self._registry()
        await self._platform.registry.place(key)

    async def suspect(self, host: str) -> None:
        await self._registry()
        await self._platform.registry.suspect(host)

    async def leave(self) -> None:
        pass

    async def about(self, shard: str) -> dict[str, Any]:
        await self._registry()
        return await self._platform.about(shard)

    async def glance(self, host: str) -> Glance:
        return await self._platform.glance(host)

    async def exchange(self, host: str, data: bytes) -> bytes:
        await self._platform.reach(self._me, host)
        answers = await self._platform.exchange(host, data)
        await self._platform.reach(self._me, host)
        return answers


class Apart(LocalPlatform):
    """A platform of hosts that are machines of their own.

    Args:
        app: The app.
        store: The app's store.
        seed: Seeds all jitter.
    """

    def __init__(self, app: App, store: Store, seed: int = 0) -> None:
        self.net = Net()
        self.inner = store
        super().__init__(app, self._store_of("registry"), VirtualClock(), seed)

    @property
    def store(self) -> Store:
        """The store, as the party reaches it that is being made."""
        return self._store_of(_party.get() or "registry")

    @store.setter
    def store(self, _: Store) -> None:
        """What is handed on is made anew for every party."""

    def _store_of(self, party: str) -> Store:
        found: Any = ApartStore(self.inner, self.net, party)
        return found  # type: ignore[no-any-return]  # all of the store's methods by name

    def client(self) -> Client:
        made = super().client()
        seat = Seat(self, _party.get() or "client")
        client = Client(seat, seat, self.clock, self.app.settings, made.session, self._seed)
        self._clients[-1] = client
        return client

    async def _new_host(self, name: str, dedicated: str = "", *, node: str = "local", group: str = "") -> HostRow:
        token = _party.set(name)
        try:
            return await super()._new_host(name, dedicated, node=node, group=group)
        finally:
            _party.reset(token)

    async def reach(self, one: str, host: str) -> None:
        """Fail where a party does not reach a host."""
        if self.net.parted(one, host):
            await passing(PAUSE_S)
            msg = f"{one} does not reach {host}."
            raise HostGone(msg)

    # -- as Hosts of the registry, which is one of the parties -------------------------------------------

    async def own(self, host: HostRow, shards: dict[str, int]) -> None:
        await self.reach("registry", host.name)
        await super().own(host, shards)

    async def release(self, host: HostRow, targets: Mapping[str, str]) -> None:
        await self.reach("registry", host.name)
        await super().release(host, targets)
        await self.reach("registry", host.name)

    async def answers(self, host: HostRow) -> bool:
        return not self.net.parted("registry", host.name) and await super().answers(host)

    async def kill(self, host: HostRow) -> bool:
        if self.net.parted("registry", host.name):
            return False
        return await super().kill(host)

    async def ended(self, host: HostRow) -> bool:
        return not self.net.parted("registry", host.name) and await super().ended(host)

    async def replace(self, host: HostRow) -> None:
        """Start it under a name of its own: the former one may still run behind a cut."""
        await self.add_host(f"host-{next(self._slots)}", node=host.node, group=host.group)


@asynccontextmanager
async def apart(app: App, hosts: int = 3, store: Store | None = None) -> AsyncIterator[tuple[Apart, Client]]:
    """Run an app; yield its platform and a client outside of it."""
    platform = Apart(app, store or MemoryStore())
    try:
        await platform.start(hosts)
        yield platform, await platform.client().start()
    finally:
        platform.net.heal()
        await platform.close()
