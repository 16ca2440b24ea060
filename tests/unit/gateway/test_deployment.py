"""The Serve deployment, up to where Ray begins: its arguments, and the order in which a replica comes up."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

import remora
from entities.account import app
from remora import App, Client, StartError, StoreMismatch
from remora.app import AppSource
from remora.cluster import bootstrap
from remora.gateway import deployment
from remora.gateway.asgi import Gateway
from tests.unit.gateway.asking import ask

ARGS: dict[str, Any] = {"app": "entities.account:app", "store": "env:REMORA_STORE", "hosts": 2}


def test_the_deployment_is_called_gateway_and_takes_many_requests_at_once() -> None:
    built = deployment.build(ARGS)._bound_deployment  # noqa: SLF001 - Serve shows it nowhere else

    assert (built.name, built.max_ongoing_requests) == ("Gateway", 1024)
    assert built.init_args == (AppSource("entities.account:app"), "env:REMORA_STORE", 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hosts": -1}, "hosts: Input should be greater"),
        ({"hosts": "2"}, "hosts: Input should be a valid integer"),
        ({"store": ""}, "store: String should have at least 1"),
        ({"shards": 64}, "shards: Extra inputs"),
        ({"config": {"supervision": {"shard": [{"at_most": -1}]}}}, "config.supervision.shard.0.at_most: Input should"),
        ({"config": {"supervision": {"entities": {"acount": []}}}}, "names 'acount'"),
        ({"app": "entities.account"}, "MODULE:APP"),
        ({"app": "entities.missing:app"}, "Cannot import"),
        ({"app": "entities.account:Account"}, "no remora.App"),
    ],
)
def test_wrong_arguments_are_refused_when_the_application_is_built(change: dict[str, Any], says: str) -> None:
    with pytest.raises(StartError, match=says):
        deployment.build(ARGS | change)


def test_a_missing_argument_is_refused_by_name() -> None:
    with pytest.raises(StartError, match=r"app, store, hosts and config: store: Field required; hosts: Field required"):
        deployment.build({"app": "entities.account:app"})


@pytest.fixture(name="done")
async def _done(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[object]]:
    """A platform in this process in place of the one on Ray; what was asked of it, in order."""
    done: list[object] = []
    async with remora.local(app) as client:

        async def ensure_platform(source: AppSource, store: str, hosts: int, *, anew: bool) -> None:
            assert not anew, "what the rules have stopped is not for a replica to start"
            done.append((source, store, hosts))

        async def open_client(of: App) -> Client:
            done.append(of)
            return client

        monkeypatch.setattr(bootstrap, "ensure_platform", ensure_platform)
        monkeypatch.setattr(bootstrap, "open_client", open_client)
        yield done


async def started() -> Any:  # noqa: ANN401 - Serve's wrapper class
    """Bring a replica up as Serve 2.60 does it (``UserCallableWrapper.initialize_callable``)."""
    replica_class: Any = deployment.build(ARGS)._bound_deployment.func_or_class  # noqa: SLF001 - what Serve unpickles
    replica = replica_class.__new__(replica_class)
    await replica.__init__(AppSource("entities.account:app"), "memory://", 2)
    replica._set_asgi_app(replica.__serve_build_asgi_app__())  # noqa: SLF001 - Serve's own steps
    await replica._run_asgi_lifespan_startup()  # noqa: SLF001 - as above
    return replica


async def test_28_a_replica_is_connected_before_serve_calls_it_healthy(done: list[object]) -> None:
    replica = await started()
    gateway: Gateway = replica.app
    answer = await ask(gateway, "POST", "/v1/account/a/deposit", b'{"amount": 1}')
    await replica.__del__()
    closed = await ask(gateway, "GET", "/v1/account/a")

    assert done == [(AppSource("entities.account:app"), "memory://", 2), app]
    assert (answer.status, closed.status) == (200, 503)


async def test_a_replica_that_cannot_bring_the_platform_up_fails_with_the_reason(
    done: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ensure_platform(*_: object, anew: bool) -> None:
        assert not anew
        msg = "The store belongs to another app."
        raise StoreMismatch(msg)

    monkeypatch.setattr(bootstrap, "ensure_platform", ensure_platform)

    replica: Any = deployment.GatewayReplica.__new__(deployment.GatewayReplica)
    with pytest.raises(StoreMismatch, match="another app"):
        await replica.__init__(AppSource("entities.account:app"), "memory://", 2)
    assert done == []
