"""Many commands in one request."""

import asyncio
import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from remora import Client
from remora.gateway import batch
from remora.gateway.asgi import Gateway
from remora.gateway.request import Message
from remora.messages import VALUE
from tests.unit.gateway.asking import Answer, ask, lent, sending
from tests.unit.gateway.shop import PAYLOAD_BYTES_MAX, Notebook, app

SCOPE = {"type": "http", "method": "POST", "path": "/v1/batch", "query_string": b"", "headers": []}


def line(entity_type: str, entity_id: str, command: str, **more: object) -> bytes:
    return json.dumps({"type": entity_type, "id": entity_id, "command": command, **more}).encode() + b"\n"


def deposit(account: str, amount: int, **more: object) -> bytes:
    return line("account", account, "deposit", args={"amount": amount}, **more)


def divided(body: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.sample(range(len(body)), 40))
    return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


async def ask_batch(gateway: Gateway, lines: Iterable[bytes], **headers: str) -> Answer:
    return await ask(gateway, "POST", "/v1/batch", b"".join(lines), headers)


async def test_every_line_is_answered_in_its_place(gateway: Gateway) -> None:
    answer = await ask_batch(
        gateway,
        [deposit("a", 1), deposit("b", 2), line("account", "a", "withdraw", args={"amount": 9}), deposit("a", 3)],
    )

    assert (answer.status, answer.headers["content-type"], answer.complete) == (200, "application/x-ndjson", True)
    assert [found["index"] for found in answer.lines] == [0, 1, 2, 3]
    assert [found["status"] for found in answer.lines] == [200, 200, 409, 200]
    assert [found.get("reply") for found in answer.lines] == [1, 2, None, 4]
    assert answer.lines[2]["problem"]["detail"] == "Balance 1 does not cover 9"
    assert all(found["command_id"] for found in answer.lines)


async def test_commands_to_one_entity_are_applied_in_the_order_of_the_lines_however_the_body_is_cut(
    gateway: Gateway, client: Client, rng: random.Random
) -> None:
    lines = [line("notebook", f"n{rng.randrange(5)}", "write", args={"line": str(n)}) for n in range(400)]

    answer = await ask(gateway, "POST", "/v1/batch", divided(b"".join(lines), rng))
    written = [(await client.ref(Notebook, f"n{n}").snapshot())["lines"] for n in range(5)]

    assert [found["status"] for found in answer.lines] == [200] * 400
    assert [list(map(int, lines)) == sorted(map(int, lines)) for lines in written] == [True] * 5
    assert sum(map(len, written)) == 400


async def test_a_command_id_in_a_line_is_recognised_again(gateway: Gateway) -> None:
    once = deposit("a", 1, command_id="pay-7")

    first = await ask_batch(gateway, [once, once])
    second = await ask_batch(gateway, [once])

    assert [found["reply"] for found in first.lines + second.lines] == [1, 1, 1]
    assert [found.get("replayed") for found in first.lines + second.lines] == [None, True, True]
    assert second.lines[0]["command_id"] == "pay-7"


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        (b"nonsense\n", 422, "invalid_argument"),
        (b"[]\n", 422, "invalid_argument"),
        (b"\xff\n", 422, "invalid_argument"),
        (b"[" * 3000 + b"\n", 422, "invalid_argument"),
        (b'{"type": "account", "id": "a"}\n', 422, "invalid_argument"),
        (line("account", "a", "deposit", arguments={"amount": 1}), 422, "invalid_argument"),
        (line("account", "a", "deposit"), 422, "invalid_argument"),
        (line("account", "a", "deposit", args=[1]), 422, "invalid_argument"),
        (line("account", "a", "deposit", args=None), 422, "invalid_argument"),
        (line("account", "a", "deposit", args={"amount": 2**63}), 422, "invalid_argument"),
        (b'{"type": "account", "id": "a", "command": "deposit", "args": {"amount": NaN}}\n', 422, "invalid_argument"),
        (line("account", "a", "$state"), 404, "unknown_command"),
        (line("account", "a", "steal"), 404, "unknown_command"),
        (line("acount", "a", "deposit"), 404, "unknown_entity"),
        (line("account", "", "deposit", args={"amount": 1}), 400, "invalid_id"),
        (line("account", "a/b", "deposit", args={"amount": 1}), 400, "invalid_id"),
        (line("account", "a\0", "deposit", args={"amount": 1}), 400, "invalid_id"),
        (line("account", "x" * 513, "deposit", args={"amount": 1}), 400, "invalid_id"),
        (deposit("a", 1, command_id=""), 400, "invalid_id"),
        (deposit("a", 1, command_id="a>b"), 400, "invalid_id"),
        (line("notebook", "n", "write", args={"line": "x" * PAYLOAD_BYTES_MAX}), 413, "payload_too_large"),
        (line("notebook", "n", "write", args={"line": "x" * 100_000}), 413, "payload_too_large"),
        (line("notebook", "n", "fail"), 500, "handler_failed"),
    ],
)
async def test_a_bad_line_is_a_problem_of_its_own_and_of_no_other_line(
    gateway: Gateway, rng: random.Random, bad: bytes, status: int, code: str
) -> None:
    body = deposit("a", 1) + bad + deposit("a", 1)

    answer = await ask(gateway, "POST", "/v1/batch", divided(body, rng))

    assert answer.status == 200
    assert [found["status"] for found in answer.lines] == [200, status, 200]
    assert [found.get("reply") for found in answer.lines] == [1, None, 2]
    assert (answer.lines[1]["problem"]["code"], answer.lines[1]["problem"]["status"]) == (code, status)


async def test_blank_lines_do_not_count_and_the_last_needs_no_line_break(gateway: Gateway) -> None:
    answer = await ask_batch(gateway, [b"\n", deposit("a", 1), b"  \r\n", deposit("a", 1).strip()])

    assert [(found["index"], found["reply"]) for found in answer.lines] == [(0, 1), (1, 2)]


async def test_an_empty_batch_has_an_empty_answer(gateway: Gateway) -> None:
    answer = await ask_batch(gateway, [])

    assert (answer.status, answer.body, answer.complete) == (200, b"", True)


async def test_a_line_may_name_a_query(gateway: Gateway) -> None:
    answer = await ask_batch(gateway, [line("account", "a", "balance")])

    assert answer.lines == [{"index": 0, "status": 200, "reply": 0}]


async def test_the_deadline_counts_for_each_line(gateway: Gateway) -> None:
    answer = await ask_batch(gateway, [line("notebook", "n", "hang"), deposit("a", 1)], **{"Remora-Deadline": "0.05"})

    assert [found["status"] for found in answer.lines] == [504, 200]
    assert answer.lines[0]["problem"]["command_id"] == answer.lines[0]["command_id"]


async def test_answers_come_while_lines_are_still_being_sent(gateway: Gateway) -> None:
    answer = Answer()
    first_answered = asyncio.Event()
    parts = iter([deposit("a", 1), deposit("a", 2)])

    async def receive() -> Message:
        body = next(parts)
        if body == deposit("a", 2):
            await first_answered.wait()
        return {"type": "http.request", "body": body, "more_body": body == deposit("a", 1)}

    async def send(message: Message) -> None:
        await answer.take(message)
        if answer.body:
            first_answered.set()

    async with asyncio.timeout(5):
        await gateway(SCOPE, receive, send)

    assert [found["reply"] for found in answer.lines] == [1, 3]


async def test_a_client_that_reads_nothing_before_it_has_sent_everything_is_served(gateway: Gateway) -> None:
    answer = Answer()
    all_sent = asyncio.Event()
    give = sending([deposit("a", 1)] * 3000)

    async def receive() -> Message:
        message = await give()
        if not message.get("more_body"):
            all_sent.set()
        return message

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await all_sent.wait()
        await answer.take(message)

    async with asyncio.timeout(20):
        await gateway(SCOPE, receive, send)

    assert [found["reply"] for found in answer.lines] == list(range(1, 3001))


async def test_a_client_that_never_reads_its_answers_is_given_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "STALL_S", 0.05)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) > 1:
            await asyncio.get_running_loop().create_future()

    async with asyncio.timeout(5):
        await gateway(SCOPE, sending([deposit("a", 1)]), send)

    assert sent[-1]["more_body"] is True


async def test_a_client_that_goes_away_gets_no_complete_answer_and_its_last_half_line_is_not_run(
    gateway: Gateway, client: Client
) -> None:
    answer = Answer()
    messages: list[Message] = [
        {"type": "http.request", "body": deposit("a", 1) + deposit("a", 2).strip(), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    await gateway(SCOPE, receive, answer.take)
    state = await ask(gateway, "GET", "/v1/account/a")

    assert answer.complete is False
    assert state.json == {"amount": 1}
    assert client.in_flight == 0


async def test_what_one_batch_has_under_way_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = most = 0

    async def call(*_: object, **__: object) -> tuple[int, bytes]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, done.set_result, None)
        await done
        under_way -= 1
        return VALUE, b"1"

    monkeypatch.setattr(client, "call", call)
    monkeypatch.setattr(batch, "IN_FLIGHT_MAX", 64)
    gateway = Gateway(app, lambda: lent(client))
    await gateway.open()
    answer = await ask_batch(gateway, [deposit("a", 1)] * 500)

    assert most == 64
    assert [found["index"] for found in answer.lines] == list(range(500))


async def test_a_batch_stops_reading_while_it_holds_too_many_bytes(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "HELD_BYTES_MAX", 2000)
    answer = Answer()
    given = most = 0
    give = sending([deposit("a", 1)] * 300)

    async def receive() -> Message:
        nonlocal given
        given += 1
        return await give()

    async def send(message: Message) -> None:
        nonlocal most
        await answer.take(message)
        most = max(most, given - answer.body.count(b"\n"))

    await gateway(SCOPE, receive, send)

    assert len(answer.lines) == 300
    assert most < 60


async def test_a_fault_of_the_gateway_in_one_line_leaves_the_others(
    gateway: Gateway, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client.call

    async def call(spec: Any, method: Any, entity_id: str, *args: Any, **more: Any) -> tuple[int, bytes]:  # noqa: ANN401 - passed on
        if entity_id == "bad":
            msg = "secret"
            raise KeyError(msg)
        return await real(spec, method, entity_id, *args, **more)

    monkeypatch.setattr(client, "call", call)
    answer = await ask_batch(gateway, [deposit("good", 1), deposit("bad", 1), deposit("good", 1)])

    assert [found["status"] for found in answer.lines] == [200, 500, 200]
    assert answer.lines[1]["problem"]["code"] == "internal_error"
    assert b"secret" not in answer.body
