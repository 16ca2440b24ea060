"""What each route answers."""

import asyncio

import httpx
import pytest

import remora
from entities.account import Account
from entities.account import app as bank
from remora import Client
from remora.gateway.asgi import Gateway
from remora.gateway.request import Message
from tests.unit.gateway.asking import Answer, ask, sending
from tests.unit.gateway.shop import Notebook

DEPOSIT = "/v1/account/alice/deposit"


async def test_a_command_answers_with_its_reply_and_its_id(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}')

    assert (answer.status, answer.json) == (200, 10)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == "2"
    assert answer.headers["remora-command-id"].startswith("r")
    assert "idempotency-replayed" not in answer.headers


async def test_the_same_idempotency_key_gives_the_same_reply_and_says_so(gateway: Gateway) -> None:
    key = {"Idempotency-Key": "pay-7"}
    first = await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}', key)
    second = await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}', key)
    balance = await ask(gateway, "GET", "/v1/account/alice/balance")

    assert (first.json, second.json, balance.json) == (10, 10, 10)
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["remora-command-id"] == "pay-7"


async def test_a_rejection_is_repeated_under_its_key_and_says_so(gateway: Gateway) -> None:
    key = {"Idempotency-Key": "pay-8"}
    first = await ask(gateway, "POST", "/v1/account/alice/withdraw", b'{"amount": 10}', key)
    await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}')
    second = await ask(gateway, "POST", "/v1/account/alice/withdraw", b'{"amount": 10}', key)

    assert (first.status, second.status) == (409, 409)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


async def test_a_key_of_the_python_client_is_the_same_key_over_http(gateway: Gateway, client: Client) -> None:
    await client.ref(Account, "alice").with_options(command_id="pay-7").deposit(10)

    answer = await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}', {"Idempotency-Key": "pay-7"})

    assert answer.headers["idempotency-replayed"] == "true"


async def test_the_id_that_the_gateway_made_can_be_used_to_ask_again(gateway: Gateway) -> None:
    first = await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}')
    again = {"Idempotency-Key": first.headers["remora-command-id"]}

    second = await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}', again)

    assert (second.json, second.headers["idempotency-replayed"]) == (10, "true")


async def test_new_commands_are_never_taken_for_old_ones_however_many_there_were(gateway: Gateway) -> None:
    window = Account.__remora__.options.dedup_window

    answers = await asyncio.gather(*(ask(gateway, "POST", DEPOSIT, b'{"amount": 1}') for _ in range(window)))
    after = await ask(gateway, "POST", DEPOSIT, b'{"amount": 1}')
    last = await ask(gateway, "POST", DEPOSIT, b'{"amount": 1}')

    assert {answer.status for answer in answers} == {200}
    assert (after.json, last.json) == (window + 1, window + 2)


async def test_a_command_without_arguments_needs_no_body(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", "/v1/counter/hits/increment")

    assert (answer.status, answer.json) == (200, 1)


async def test_a_body_may_come_in_any_number_of_parts(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", DEPOSIT, [b'{"am', b"", b'ount": 1', b"0}"])

    assert answer.json == 10


async def test_a_query_answers_to_get_and_to_post(gateway: Gateway) -> None:
    await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}')

    got = await ask(gateway, "GET", "/v1/account/alice/balance")
    posted = await ask(gateway, "POST", "/v1/account/alice/balance")

    assert (got.json, posted.json) == (10, 10)
    assert "remora-command-id" not in posted.headers
    assert got.headers["cache-control"] == posted.headers["cache-control"] == "no-store"


async def test_the_state_is_at_the_entitys_own_path(gateway: Gateway) -> None:
    await ask(gateway, "POST", DEPOSIT, b'{"amount": 10}')

    answer = await ask(gateway, "GET", "/v1/account/alice")

    assert answer.json == {"amount": 10}


async def test_head_is_answered_as_get(gateway: Gateway) -> None:
    answer = await ask(gateway, "HEAD", "/v1/account/alice")

    assert (answer.status, answer.headers["content-length"]) == (200, "12")


async def test_events_come_in_order_and_by_the_page(gateway: Gateway) -> None:
    for amount in (b"1", b"2", b"3", b"4"):
        await ask(gateway, "POST", DEPOSIT, b'{"amount": %b}' % amount)

    everything = await ask(gateway, "GET", "/v1/account/alice/events")
    page = await ask(gateway, "GET", "/v1/account/alice/events?after=1&limit=2")

    assert [event["data"]["amount"] for event in everything.json] == [1, 2, 3, 4]
    assert [(event["seq"], event["event"]) for event in page.json] == [(2, "Deposited"), (3, "Deposited")]


async def test_parked_sends_are_released_by_a_post(gateway: Gateway) -> None:
    assert (await ask(gateway, "POST", "/v1/account/alice/release_sends")).json == 0
    assert (await ask(gateway, "GET", "/v1/account/alice/release_sends")).status == 404


async def test_why_says_what_an_entity_does(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/v1/account/alice/why")

    assert (answer.json["entity"], answer.json["state"]) == ("account/alice", "new")


@pytest.mark.parametrize(
    ("path", "durability"),
    [("/v1/account/a", "journal"), ("/v1/counter/a", "journal"), ("/v1/presence/a", "memory")],
)
async def test_every_answer_says_whether_the_entity_is_kept_in_the_journal(
    gateway: Gateway, path: str, durability: str
) -> None:
    answer = await ask(gateway, "GET", path)

    assert answer.headers["remora-durability"] == durability


async def test_a_command_of_a_transient_entity_says_that_it_is_in_memory_only(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", "/v1/presence/lobby/seen", b'{"person": "ann"}')

    assert (answer.json, answer.headers["remora-durability"]) == (None, "memory")


@pytest.mark.parametrize("entity_id", ["ünïcödé", "🐟", "a b", "50%", "a?b#c", "x:y-z_1~", "%2F", "日本", "a\u0301"])
async def test_an_id_may_hold_any_unicode(gateway: Gateway, entity_id: str) -> None:
    transport = httpx.ASGITransport(gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        path = f"/v1/account/{_encoded(entity_id)}"
        await http.post(f"{path}/deposit", json={"amount": 7})
        why = (await http.get(f"{path}/why")).json()

    assert why["entity"] == f"account/{entity_id}"
    assert why["entries"] == 1


async def test_type_and_command_may_be_percent_encoded_too(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", "/v1/acc%6Funt/alice/depos%69t", b'{"amount": 1}')

    assert answer.json == 1


async def test_the_gateway_works_below_a_prefix(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/bank/v1/account/alice/balance", root_path="/bank")

    assert (answer.status, answer.json) == (200, 0)


async def test_without_a_raw_path_an_encoded_slash_is_still_refused(gateway: Gateway) -> None:
    answer = Answer()
    scope = {"type": "http", "method": "GET", "path": "/v1/account/a/b/balance", "query_string": b"", "headers": []}
    await gateway(scope, sending([b""]), answer.take)

    assert answer.json["code"] == "invalid_id"


async def test_a_client_that_goes_away_in_the_middle_of_its_body_changes_nothing(
    gateway: Gateway, client: Client
) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"line": "x"}', "more_body": True},
        {"type": "http.disconnect"},
    ]
    answer = Answer()

    async def receive() -> Message:
        return messages.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/v1/notebook/n/write", "query_string": b"", "headers": []}
    await gateway(scope, receive, answer.take)

    assert answer.status == 0
    assert await client.ref(Notebook, "n").snapshot() == {"lines": []}


async def test_the_lifespan_of_the_server_opens_and_closes_the_gateway() -> None:
    gateway = Gateway(bank, lambda: remora.local(bank))
    told: list[str] = []

    async def receive() -> Message:
        if told:
            assert (await ask(gateway, "GET", "/v1/account/alice/balance")).json == 0
        return {"type": "lifespan.shutdown" if told else "lifespan.startup"}

    async def send(message: Message) -> None:
        told.append(message["type"])

    await gateway({"type": "lifespan"}, receive, send)

    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (await ask(gateway, "GET", "/v1/account/alice")).status == 503


async def test_a_gateway_that_cannot_connect_fails_its_start_and_says_why() -> None:
    gateway = Gateway(bank, lambda: remora.local(bank, hosts=0))
    told: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        told.append(message)

    await gateway({"type": "lifespan"}, receive, send)

    assert [message["type"] for message in told] == ["lifespan.startup.failed"]
    assert "at least one host" in told[0]["message"]


def _encoded(entity_id: str) -> str:
    return "".join(f"%{byte:02X}" for byte in entity_id.encode())
