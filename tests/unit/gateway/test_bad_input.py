"""Every wrong request gets its status and its problem document, and nothing of it is applied."""

import asyncio
import logging

import pytest

from remora import Client
from remora.gateway import request
from remora.gateway.asgi import Gateway
from remora.gateway.request import Message, Receive
from tests.unit.gateway.asking import Answer, ask
from tests.unit.gateway.shop import PAYLOAD_BYTES_MAX, Notebook

DEPOSIT = "/v1/account/alice/deposit"


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "says"),
    [
        ("GET", "/v1/acount/alice", 404, "unknown_entity", "it has account, counter, notebook, presence"),
        ("GET", "/v1/acount/alice/balance", 404, "unknown_entity", "'acount'"),
        ("POST", "/v1/account/alice/steal", 404, "unknown_command", "it has balance, deposit, withdraw"),
        ("GET", "/v1/account/alice/steal", 404, "unknown_command", "'steal'"),
        ("PUT", "/v1/account/alice/steal", 404, "unknown_command", "'steal'"),
        ("POST", "/v1/account/alice/", 404, "unknown_command", "''"),
        ("GET", "/v1/counter/c/events", 404, "unknown_command", "only an EventSourced entity"),
        ("GET", "/v1/account", 404, "route_not_found", "/v1/{type}/{id}"),
        ("GET", "/v1/", 404, "route_not_found", "/v1/{type}/{id}"),
        ("GET", "/v2/account/alice", 404, "route_not_found", "/docs"),
        ("GET", "/v1/account/", 400, "invalid_id", "empty"),
        ("POST", "/v1/account//deposit", 400, "invalid_id", "empty"),
        ("GET", "/v1/account/a%2Fb", 400, "invalid_id", "'/'"),
        ("POST", "/v1/account/a%2fb/deposit", 400, "invalid_id", "'/'"),
        ("POST", "/v1/account/a/b/deposit", 400, "invalid_id", "'/'"),
        ("GET", "/v1/account/a/b/c/d/e", 400, "invalid_id", "'/'"),
        ("GET", "/v1/account/a%00b", 400, "invalid_id", "control character"),
        ("GET", "/v1/account/%0A", 400, "invalid_id", "control character"),
        ("GET", "/v1/account/%2E%2E", 400, "invalid_id", "folder"),
        ("GET", "/v1/account/" + "x" * 513, 400, "invalid_id", "512"),
        ("GET", "/v1/account/" + "%F0%9F%90%9F" * 129, 400, "invalid_id", "516 bytes"),
        ("GET", "/v1/account/%FF", 400, "invalid_id", "UTF-8"),
        ("GET", "/v1/account/%ED%A0%80", 400, "invalid_id", "UTF-8"),
        ("GET", "/v1/account/100%", 400, "invalid_id", "%25"),
        ("GET", "/v1/account/%zz", 400, "invalid_id", "%25"),
        ("GET", "/v1/account/alice/events?limit=0", 422, "invalid_argument", "from 1 to 1000"),
        ("GET", "/v1/account/alice/events?limit=1001", 422, "invalid_argument", "from 1 to 1000"),
        ("GET", "/v1/account/alice/events?after=-1", 422, "invalid_argument", "from 0"),
        ("GET", "/v1/account/alice/events?after=9223372036854775808", 422, "invalid_argument", "from 0"),
        ("GET", "/v1/account/alice/events?after=x", 422, "invalid_argument", "whole number"),
        ("GET", "/v1/account/alice/events?before=1", 422, "invalid_argument", "'before' is unknown"),
    ],
)
async def test_a_path_that_names_nothing_is_refused(
    gateway: Gateway, method: str, path: str, status: int, code: str, says: str
) -> None:
    answer = await ask(gateway, method, path)

    assert (answer.status, answer.json["status"], answer.json["code"]) == (status, status, code)
    assert says in answer.json["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", DEPOSIT, "POST"),
        ("HEAD", DEPOSIT, "POST"),
        ("PUT", DEPOSIT, "POST"),
        ("OPTIONS", DEPOSIT, "POST"),
        ("DELETE", "/v1/account/alice/balance", "GET, POST"),
        ("POST", "/v1/account/alice", "GET"),
        ("POST", "/v1/account/alice/events", "GET"),
        ("PATCH", "/v1/account/alice/why", "GET"),
        ("GET", "/v1/batch", "POST"),
        ("POST", "/healthz", "GET"),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_answered_with_those_it_takes(
    gateway: Gateway, method: str, path: str, allow: str
) -> None:
    answer = await ask(gateway, method, path)

    assert (answer.status, answer.json["code"], answer.headers["allow"]) == (405, "method_not_allowed", allow)
    assert f"use {allow.replace(', ', ' or ')}" in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "amount: Field required"),
        (b"{}", "amount: Field required"),
        (b'{"amount": -1}', "greater than 0"),
        (b'{"amount": "ten"}', "valid integer"),
        (b'{"amount": 1.5}', "valid integer"),
        (b'{"amount": null}', "valid integer"),
        (b'{"amount": 1, "currency": "EUR"}', "currency: Extra inputs"),
        (b'{"amount": 9223372036854775808}', "over 64 bits"),
        (b'{"amount": 1e400}', "amount"),
        (b'{"amount": NaN}', "NaN is not JSON"),
        (b'{"amount": -Infinity}', "-Infinity is not JSON"),
        (b"[10]", "an object"),
        (b"10", "an object"),
        (b"null", "an object"),
        (b" ", "Invalid JSON"),
        (b'{"amount": 1', "Invalid JSON"),
        (b'{"amount": 1}}', "Invalid JSON"),
        (b"amount=1", "Invalid JSON"),
        (b'\xff\xfe{"amount": 1}', "Invalid JSON"),
        (b'{"amount": ' + b"[" * 2000, "Invalid JSON"),
        (b'{"\\ud800": 1}', "Invalid JSON"),
    ],
)
async def test_wrong_arguments_are_listed_and_never_reach_the_handler(gateway: Gateway, body: bytes, says: str) -> None:
    answer = await ask(gateway, "POST", DEPOSIT, body, {"Content-Type": "application/json"})
    events = await ask(gateway, "GET", "/v1/account/alice/events")

    assert (answer.status, answer.json["code"]) == (422, "invalid_argument")
    assert says in answer.json["detail"]
    assert answer.json["entity"] == "account/alice"
    assert events.json == []


async def test_every_wrong_argument_is_an_entry_of_errors(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", DEPOSIT, b'{"amount": 0, "note": "x"}')

    assert [found["argument"] for found in answer.json["errors"]] == ["amount", "note"]


@pytest.mark.parametrize(
    ("key", "says"),
    [("", "non-empty"), ("x" * 257, "256"), ("a>1", "'>'"), ("a\tb", "printable"), ("\x01", "printable")],
)
async def test_an_idempotency_key_that_cannot_be_a_command_id_is_refused(gateway: Gateway, key: str, says: str) -> None:
    answer = await ask(gateway, "POST", DEPOSIT, b'{"amount": 1}', {"Idempotency-Key": key})
    state = await ask(gateway, "GET", "/v1/account/alice")

    assert (answer.status, answer.json["code"]) == (400, "invalid_id")
    assert says in answer.json["detail"]
    assert state.json == {"amount": 0}


async def test_an_idempotency_key_that_is_not_utf_8_is_refused(gateway: Gateway) -> None:
    answer = Answer()
    scope = {
        "type": "http", "method": "POST", "path": DEPOSIT, "raw_path": DEPOSIT.encode(), "query_string": b"",
        "headers": [(b"idempotency-key", b"\xff")],
    }  # fmt: skip
    await gateway(scope, _never, answer.take)

    assert (answer.status, answer.json["code"]) == (400, "invalid_id")


@pytest.mark.parametrize("name", ["Remora-Deadline", "x-request-timeout-seconds"])
@pytest.mark.parametrize("value", ["soon", "nan", "inf", "86401", "1e9"])
async def test_a_deadline_that_is_none_is_refused(gateway: Gateway, name: str, value: str) -> None:
    answer = await ask(gateway, "GET", "/v1/account/alice", headers={name: value})

    assert (answer.status, answer.json["code"]) == (400, "invalid_input")
    assert name in answer.json["detail"]


@pytest.mark.parametrize("value", ["0", "-1"])
async def test_only_serves_own_header_may_say_that_there_is_no_deadline(gateway: Gateway, value: str) -> None:
    ours = await ask(gateway, "GET", "/v1/account/alice", headers={"Remora-Deadline": value})
    serves = await ask(gateway, "GET", "/v1/account/alice", headers={"x-request-timeout-seconds": value})

    assert (ours.status, serves.status) == (400, 200)


async def test_a_rejection_carries_the_entitys_own_words(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", "/v1/account/alice/withdraw", b'{"amount": 5}', {"Idempotency-Key": "w-1"})

    assert (answer.status, answer.json["code"]) == (409, "rejected")
    assert answer.json["detail"] == "Balance 0 does not cover 5"
    assert answer.json["entity"] == "account/alice"
    assert answer.json["command_id"] == answer.headers["remora-command-id"] == "w-1"
    assert "retry" not in answer.json


async def test_a_body_over_the_bound_is_refused_before_it_is_read(
    gateway: Gateway,
) -> None:
    answer = Answer()

    async def receive() -> Message:
        assert answer.json["code"] == "payload_too_large", "it has its answer first"
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "method": "POST", "path": DEPOSIT, "raw_path": DEPOSIT.encode(), "query_string": b"",
        "headers": [(b"content-length", b"%d" % (PAYLOAD_BYTES_MAX + 1))],
    }  # fmt: skip
    await gateway(scope, receive, answer.take)

    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")
    assert answer.headers["connection"] == "close"
    assert str(PAYLOAD_BYTES_MAX) in answer.json["detail"]


@pytest.mark.parametrize("parts", [1, 2, 100])
async def test_a_body_over_the_bound_of_unknown_length_is_read_no_further_than_that(
    gateway: Gateway, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "DRAIN_BYTES_MAX", 0)
    size = PAYLOAD_BYTES_MAX // parts + 1
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += size
        return {"type": "http.request", "body": b"x" * size, "more_body": parts > 1}

    answer = Answer()
    scope = {"type": "http", "method": "POST", "path": DEPOSIT, "query_string": b"", "headers": []}
    await gateway(scope, receive, answer.take)

    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")
    assert read <= PAYLOAD_BYTES_MAX + 2 * size


@pytest.mark.parametrize(("parts", "expected"), [(3, 3), (100, 5)])
async def test_who_still_sends_a_refused_body_has_the_answer_before_and_is_read_to_the_end_within_a_bound(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, parts: int, expected: int
) -> None:
    monkeypatch.setattr(request, "DRAIN_BYTES_MAX", 3 * PAYLOAD_BYTES_MAX)
    answer, read, read_at_answer = Answer(), 0, list[int]()

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * PAYLOAD_BYTES_MAX, "more_body": read < parts}

    async def take(message: Message) -> None:
        read_at_answer.append(read)
        await answer.take(message)

    scope = {"type": "http", "method": "POST", "path": DEPOSIT, "query_string": b"", "headers": []}
    await gateway(scope, receive, take)

    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")
    assert read_at_answer == [2, 2, expected], "the head and the body at once, the end of it once that was read"


async def test_arguments_of_exactly_the_bound_are_taken(gateway: Gateway) -> None:
    body = b'{"amount": 1' + b" " * (PAYLOAD_BYTES_MAX - 13) + b"}"

    answer = await ask(gateway, "POST", DEPOSIT, body, {"Content-Length": str(len(body))})

    assert (len(body), answer.status) == (PAYLOAD_BYTES_MAX, 200)


async def test_a_handler_that_raises_is_a_problem_without_a_traceback(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", "/v1/notebook/n/fail")

    assert (answer.status, answer.json["code"]) == (500, "handler_failed")
    assert "ZeroDivisionError: the pencil broke" in answer.json["detail"]
    assert b"Traceback" not in answer.body
    assert b".py" not in answer.body


async def test_a_deadline_that_passes_is_a_problem_with_the_command_id(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", "/v1/notebook/n/hang", headers={"Remora-Deadline": "0.05"})

    assert (answer.status, answer.json["code"]) == (504, "deadline_exceeded")
    assert answer.json["retry"] is True
    assert answer.json["command_id"] == answer.headers["remora-command-id"] != ""


async def test_a_full_mailbox_says_when_to_come_back(gateway: Gateway, client: Client) -> None:
    reference = client.ref(Notebook, "n").with_options(deadline_s=0.5)
    tasks = [asyncio.ensure_future(call) for call in (reference.hang(), reference.write("waits"))]
    async with asyncio.timeout(5):
        while (why := await reference.why()).state != "running" or why.mailbox < 1:
            pass

    answer = await ask(gateway, "POST", "/v1/notebook/n/write", b'{"line": "x"}', {"Remora-Deadline": "0.1"})
    for task in tasks:
        task.cancel()

    assert (answer.status, answer.json["code"], answer.json["retry"]) == (429, "overloaded", True)
    assert int(answer.headers["retry-after"]) >= 1
    assert 0 < answer.json["retry_after_s"] < 1


async def test_a_fault_of_the_gateway_is_a_problem_that_tells_nothing_and_a_line_in_the_log(
    gateway: Gateway, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def call(*_: object, **__: object) -> tuple[int, bytes]:
        msg = "secret"
        raise KeyError(msg)

    monkeypatch.setattr(client, "call", call)
    with caplog.at_level(logging.ERROR, "remora.gateway"):
        answer = await ask(gateway, "POST", DEPOSIT, b'{"amount": 1}')

    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example", "Content-Type": "text/plain"}, 415),
        ({"Origin": "https://evil.example"}, 415),
        ({"Origin": "null", "Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Origin": "https://evil.example", "Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Origin": "http://gateway:8000"}, 200),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 200),
    ],
)
async def test_a_page_of_another_site_cannot_make_a_browser_command_anything_unasked(
    gateway: Gateway, headers: dict[str, str], status: int
) -> None:
    answer = await ask(gateway, "POST", DEPOSIT, b'{"amount": 1}', {"Host": "gateway:8000", **headers})
    batch = await ask(gateway, "POST", "/v1/batch", b"", {"Host": "gateway:8000", **headers})

    assert (answer.status, batch.status) == (status, status)


async def test_a_websocket_is_refused(gateway: Gateway) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await gateway({"type": "websocket", "path": "/v1/account/alice"}, _never, send)

    assert [message["type"] for message in sent] == ["websocket.close"]


async def _read_nothing() -> Message:
    pytest.fail("The body was read.")


_never: Receive = _read_nothing
