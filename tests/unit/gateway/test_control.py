"""The control routes."""

import re
from typing import Any

import msgspec
import pytest

from remora import Client
from remora.gateway.asgi import Gateway
from remora.sharding.table import Table
from tests.unit.gateway.asking import Answer, ask, lent, sending
from tests.unit.gateway.shop import app


async def test_the_index_lists_the_types_with_their_commands_and_queries(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/")

    assert answer.json["app"] == "shop"
    assert answer.json["types"]["account"] == {
        "kind": "event_sourced",
        "doc": "A bank account.",
        "commands": ["deposit", "withdraw"],
        "queries": ["balance"],
    }
    assert answer.json["docs"] == "/docs"


async def test_links_lead_below_the_prefix_that_the_gateway_is_mounted_at(gateway: Gateway) -> None:
    index = await ask(gateway, "GET", "/shop/", root_path="/shop")
    docs = await ask(gateway, "GET", "/shop/docs", root_path="/shop")

    assert index.json["openapi.json"] == "/shop/openapi.json"
    assert b"url: '/shop/openapi.json'" in docs.body


async def test_the_process_is_alive_also_while_it_is_not_ready(client: Client) -> None:
    gateway = Gateway(app, lambda: lent(client))

    alive = await ask(gateway, "GET", "/healthz")
    ready = await ask(gateway, "GET", "/readyz")
    command = await ask(gateway, "POST", "/v1/account/a/deposit", b'{"amount": 1}')

    assert (alive.status, alive.json) == (200, {"status": "alive"})
    assert (ready.status, ready.json["code"], ready.headers["retry-after"]) == (503, "unavailable", "1")
    assert (command.status, command.json["code"], command.headers["retry-after"]) == (503, "unavailable", "1")


async def test_28_it_is_ready_once_every_shard_has_a_host(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/readyz")

    assert (answer.status, answer.json) == (200, {"status": "ready", "shards": 256})


async def test_28_it_is_not_ready_while_a_shard_has_none(
    gateway: Gateway, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = next(iter(client.table.hosts))
    left = {incarnation: row for incarnation, row in client.table.hosts.items() if incarnation != lost}
    table: Table = msgspec.structs.replace(client.table, hosts=left)
    monkeypatch.setattr(client, "_table", table)

    answer = await ask(gateway, "GET", "/readyz")

    assert answer.status == 503
    assert f"{len(client.table.owned_by(lost))} of 256 shards" in answer.json["detail"]


async def test_the_openapi_document_is_served(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/openapi.json")

    assert answer.json["openapi"] == "3.1.0"
    assert "/v1/account/{id}/deposit" in answer.json["paths"]


async def test_the_page_shows_every_command_also_without_its_script(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/docs")
    text = re.sub(r"<script.*?</script>", "", answer.body.decode(), flags=re.DOTALL)

    for spec in app.specs.values():
        for name in spec.handlers:
            assert f"POST /v1/{spec.type}/{{id}}/{name}" in text
    assert "exclusiveMinimum" in text
    assert "SwaggerUIBundle" in answer.body.decode()


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/docs/x", "/-/healthz", "/v1x/account/a"])
async def test_an_unknown_path_is_a_problem_too(gateway: Gateway, path: str) -> None:
    answer = await ask(gateway, "GET", path)

    assert (answer.status, answer.json["code"]) == (404, "route_not_found")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_name_in_an_address_is_not_read_as_html(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/docs?title=<script>alert(1)</script>")
    document: dict[str, Any] = (await ask(gateway, "GET", "/openapi.json")).json

    assert b"alert(1)" not in answer.body
    assert document["info"]["title"] == "shop"


async def test_an_unreadable_query_string_does_not_matter_to_a_path_that_is_not_there(gateway: Gateway) -> None:
    answer = Answer()
    scope = {"type": "http", "method": "GET", "path": "/nowhere", "query_string": b"\xff", "headers": []}
    await gateway(scope, sending([b""]), answer.take)

    assert (answer.status, answer.json["code"]) == (404, "route_not_found")


async def test_a_fault_in_a_control_route_is_one_problem_and_is_left_to_the_servers_log(
    gateway: Gateway, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_table", None)
    answer = Answer()
    scope = {"type": "http", "method": "GET", "path": "/readyz", "query_string": b"", "headers": []}

    with pytest.raises(AttributeError):
        await gateway(scope, sending([b""]), answer.take)
    assert (answer.status, answer.json["code"], answer.complete) == (500, "internal_error", True)
