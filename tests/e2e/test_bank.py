"""The bank as a user has it: `remora up`, HTTP requests, the command line, a crash, `remora down`.

One platform for all of them; the test of `down` is the last.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from remora.cluster.ray_process import RayProcess, free_ports
from tests.e2e.machine import Ended, listener, processes, remora, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
BALANCED_S = 60.0


@dataclass(frozen=True)
class Bank:
    """A running bank."""

    home: Path
    port: int
    started: dict[str, Any]
    """What `remora up --json` printed."""
    http: httpx.Client

    def cli(self, *words: str) -> Ended:
        return remora(*words, home=self.home)

    def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        return self.http.post(path, json={} if body is None else body, headers=headers)

    def hosts(self) -> list[dict[str, Any]]:
        found = self.cli("status", "--json").json()["hosts"]
        assert isinstance(found, list)
        return found


@pytest.fixture(scope="module")
def bank(stray: RayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """The bank, started where the environment names another cluster and no authentication mode."""
    home = tmp_path_factory.mktemp("home")
    port = free_ports(1)[0]
    up = remora(
        "up", "entities.account:app", "--json", "--hosts", "2", "--port", str(port), "--store", f"sqlite:///{home / 'bank.db'}",
        home=home, RAY_ADDRESS=stray.address, RAY_AUTH_MODE=None,
    )  # fmt: skip
    assert up.code == 0, up.err
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as http:
            yield Bank(home, port, up.json(), http)
    finally:
        remora("down", home=home)
        for pid in processes(str(home)):  # only where a test has failed
            os.kill(pid, signal.SIGKILL)


def test_up_starts_a_cluster_of_its_own_beside_the_one_the_environment_names(bank: Bank, stray: RayProcess) -> None:
    assert bank.started["address"] != stray.address
    assert bank.started["ray_pid"] not in {0, stray.pid}
    assert Path(bank.started["temp_dir"]).is_dir()
    serve = httpx.get(f"{stray.dashboard_url}/api/serve/applications/", timeout=30.0).json()
    assert serve["applications"] == {}
    assert [host["name"] for host in bank.started["status"]["hosts"]] == [
        "remora/bank/host/1/1-1",
        "remora/bank/host/2/1-2",
    ]


def test_every_process_is_told_the_authentication_mode_though_up_was_not(bank: Bank) -> None:
    running = processes(str(bank.home))
    hosts = {host["pid"] for host in bank.hosts()}

    assert hosts <= running.keys()
    for pid in hosts:
        assert b"RAY_AUTH_MODE=disabled" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_haproxy_takes_the_requests(bank: Bank) -> None:
    assert listener(bank.port, processes(str(bank.home))) == "haproxy"


def test_every_route_answers(bank: Bank) -> None:
    assert bank.post("/v1/account/routes/deposit", {"amount": 10}).json() == 10
    assert bank.http.get("/v1/account/routes/balance").json() == 10
    assert bank.http.get("/v1/account/routes").json() == {"amount": 10}
    events = bank.http.get("/v1/account/routes/events").json()
    assert [(event["seq"], event["event"], event["data"]) for event in events] == [(1, "Deposited", {"amount": 10})]
    assert bank.http.get("/v1/account/routes/why").json()["entity"] == "account/routes"
    assert bank.http.get("/healthz").status_code == 200
    assert bank.http.get("/readyz").json()["status"] == "ready"
    assert "/v1/account/{id}/deposit" in bank.http.get("/openapi.json").json()["paths"]
    assert "text/html" in bank.http.get("/docs").headers["content-type"]


def test_a_batch_answers_every_line_in_order(bank: Bank) -> None:
    lines = [f'{{"type":"account","id":"b{n % 5}","command":"deposit","args":{{"amount":1}}}}' for n in range(200)]
    lines[7] = '{"type":"account","id":"b0","command":"deposit","args":{"amount":-1}}'
    answer = bank.http.post("/v1/batch", content="\n".join(lines))

    replies = [httpx.Response(200, content=line).json() for line in answer.text.splitlines()]
    assert [reply["index"] for reply in replies] == list(range(200))
    assert Counter(reply["status"] for reply in replies) == {200: 199, 422: 1}
    assert replies[7]["problem"]["code"] == "invalid_argument"
    balances = [bank.http.get(f"/v1/account/b{n}/balance").json() for n in range(5)]
    assert balances == [40, 40, 39, 40, 40]


def test_the_same_idempotency_key_again_gives_the_same_reply_and_is_applied_once(bank: Bank) -> None:
    first = bank.post("/v1/account/key/deposit", {"amount": 5}, **{"Idempotency-Key": "pay-7"})
    again = bank.post("/v1/account/key/deposit", {"amount": 5}, **{"Idempotency-Key": "pay-7"})

    assert (first.json(), again.json()) == (5, 5)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert bank.http.get("/v1/account/key/balance").json() == 5


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/nothing/x/deposit", '{"amount":1}', 404, "unknown_entity"),
        ("POST", "/v1/account/bad/steal", '{"amount":1}', 404, "unknown_command"),
        ("POST", "/v1/account/bad/deposit", '{"amount":-1}', 422, "invalid_argument"),
        ("POST", "/v1/account/bad/deposit", '{"amount":"ten"}', 422, "invalid_argument"),
        ("POST", "/v1/account/bad/deposit", '{"amount":NaN}', 422, "invalid_argument"),
        ("POST", "/v1/account/bad/deposit", '{"amount":1,"currency":"EUR"}', 422, "invalid_argument"),
        ("POST", "/v1/account/bad/deposit", "{", 422, "invalid_argument"),
        ("POST", "/v1/account/bad/deposit", f'{{"amount":1,"x":"{"y" * 1_100_000}"}}', 413, "payload_too_large"),
        ("POST", "/v1/account/bad/withdraw", '{"amount":1}', 409, "rejected"),
        ("POST", "/v1/account//deposit", '{"amount":1}', 400, "invalid_id"),
        ("POST", f"/v1/account/{'i' * 2000}/deposit", '{"amount":1}', 400, "invalid_id"),
        ("POST", "/v1/account/a%00b/deposit", '{"amount":1}', 400, "invalid_id"),
        ("POST", "/v1/account/a%2Fb/deposit", '{"amount":1}', 400, "invalid_id"),
        ("POST", "/v1/account/a%FFb/deposit", '{"amount":1}', 400, "invalid_id"),
        ("GET", "/v1/account/bad/deposit", "", 405, "method_not_allowed"),
        ("GET", "/nowhere", "", 404, "route_not_found"),
    ],
)
def test_what_is_wrong_is_answered_by_a_problem_document_and_leaves_no_trace(
    bank: Bank, method: str, path: str, body: str, status: int, code: str
) -> None:
    answer = bank.http.request(method, path, content=body or None, headers={"content-type": "application/json"})

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem.keys() >= {"type", "title", "status", "detail", "code"}
    assert (problem["type"], problem["status"], problem["code"]) == (f"urn:remora:error:{code}", status, code)
    assert bank.http.get("/v1/account/bad/balance").json() == 0
    assert bank.http.get("/v1/account/bad/events").json() == []


def test_an_integer_over_64_bits_is_either_kept_exactly_or_refused(bank: Bank) -> None:
    amount = 2**80
    answer = bank.post("/v1/account/huge/deposit", {"amount": amount})

    if answer.status_code == 200:
        assert answer.json() == amount
        assert bank.http.get("/v1/account/huge").json() == {"amount": amount}
    else:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_argument")
        assert bank.http.get("/v1/account/huge/balance").json() == 0


def test_an_id_may_hold_any_script(bank: Bank) -> None:
    assert bank.post("/v1/account/Zoë 🦈 漢字/deposit", {"amount": 3}).json() == 3
    assert bank.cli("call", "account", "Zoë 🦈 漢字", "balance", "--json").json() == 3


def test_many_connections_lose_no_request(bank: Bank) -> None:
    with httpx.Client(base_url=bank.http.base_url, timeout=60.0, limits=httpx.Limits(max_connections=64)) as http:

        def deposit(n: int) -> int:
            return http.post(f"/v1/account/many{n % 50}/deposit", json={"amount": 1}).status_code

        with ThreadPoolExecutor(64) as threads:
            assert Counter(threads.map(deposit, range(1_000))) == {200: 1_000}
    assert [bank.http.get(f"/v1/account/many{n}/balance").json() for n in range(50)] == [20] * 50


def test_the_command_line_calls_shows_and_explains(bank: Bank) -> None:
    assert bank.cli("call", "account", "cli", "deposit", "--amount", "7", "--json").json() == 7
    assert bank.cli("call", "account", "cli", "balance", "--json").json() == 7
    assert bank.cli("state", "account", "cli", "--json").json() == {"amount": 7}
    assert [event["event"] for event in bank.cli("events", "account", "cli", "--json").json()] == ["Deposited"]
    assert bank.cli("why", "account", "cli", "--json").json()["entity"] == "account/cli"
    status = bank.cli("status", "--json").json()
    assert (status["app"], status["shards"], len(status["hosts"])) == ("bank", 256, 2)
    for words in (["status"], ["state", "account", "cli"], ["events", "account", "cli"]):
        shown = bank.cli(*words)
        assert shown.code == 0
        assert shown.out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["call", "account", "cli", "withdraw", "--amount", "1000000"], 1, "does not cover"),
        (["call", "account", "cli", "deposit", "--amount", "-5"], 1, "amount"),
        (["call", "nothing", "x", "deposit"], 1, "nothing"),
        (["call", "account", "x", "steal"], 1, "steal"),
        (["state", "account", ""], 1, "id"),
        (["status", "nope"], 4, "nope"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_what_is_wrong_on_the_command_line_ends_with_its_exit_code_and_no_traceback(
    bank: Bank, words: list[str], code: int, says: str
) -> None:
    ended = bank.cli(*words)

    assert ended.code == code, ended.err
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert bank.cli(*words, "--json").code == code


def test_a_host_killed_between_requests_is_not_seen_by_the_next_one(bank: Bank) -> None:
    names = [f"kill{n}" for n in range(20)]
    keys = {name: {"Idempotency-Key": f"first-{name}"} for name in names}
    assert [bank.post(f"/v1/account/{name}/deposit", {"amount": 4}, **keys[name]).json() for name in names] == [4] * 20
    before = bank.hosts()
    host = bank.http.get("/v1/account/kill0/why").json()["host"]
    victim = next(found for found in before if found["name"] == host)
    os.kill(victim["pid"], signal.SIGKILL)

    again = [bank.post(f"/v1/account/{name}/deposit", {"amount": 4}, **keys[name]) for name in names]

    assert [(answer.status_code, answer.json()) for answer in again] == [(200, 4)] * 20
    assert {answer.headers["idempotency-replayed"] for answer in again} == {"true"}
    assert [bank.post(f"/v1/account/{name}/deposit", {"amount": 1}).json() for name in names] == [5] * 20

    def whole() -> bool:
        hosts = bank.hosts()
        return victim["pid"] not in {found["pid"] for found in hosts} and [h["shards"] for h in hosts] == [128, 128]

    until(whole, BALANCED_S, "the host is replaced and shards are even again")


@pytest.mark.slow
def test_an_operator_sees_shards_empties_a_host_and_asks_what_would_move(bank: Bank) -> None:
    assert bank.post("/v1/account/drained/deposit", {"amount": 3}).json() == 3
    host = bank.http.get("/v1/account/drained/why").json()["host"]
    shown = bank.cli("shards")
    assert "256 shards on 2 hosts: 256 owned" in shown.out + shown.err

    drained = bank.cli("drain", host)

    assert drained.code == 0, drained.err
    assert "is empty" in drained.out
    assert host not in {row["host"] for row in bank.cli("shards", "--json").json()}
    assert bank.post("/v1/account/drained/deposit", {"amount": 3}).json() == 6
    until(
        lambda: [host["state"] for host in bank.hosts()] == ["up"] * 2, BALANCED_S, "another host has taken its place"
    )
    assert bank.cli("rebalance", "--dry-run").code == 0
    unknown = bank.cli("drain", "nowhere")
    assert "nodes with hosts are" in unknown.err
    assert "Traceback" not in unknown.err


def test_an_app_that_runs_is_not_started_twice(bank: Bank) -> None:
    ended = bank.cli("up", "entities.account:app", "--port", str(free_ports(1)[0]))

    assert ended.code == 4
    assert "runs already" in ended.err
    assert "Traceback" not in ended.err
    assert bank.http.get("/readyz").status_code == 200


def test_a_port_that_is_taken_is_refused_before_anything_starts(bank: Bank) -> None:
    before = processes(str(bank.home)).keys()
    ended = bank.cli(
        "up", "entities.counter:app", "--port", str(bank.port), "--store", f"sqlite:///{bank.home / 'c.db'}"
    )

    assert ended.code == 4
    assert f"Port {bank.port} is in use" in ended.err
    assert "--port" in ended.err
    assert "Traceback" not in ended.err
    assert processes(str(bank.home)).keys() <= before
    assert not (bank.home / "c.db").exists()


@pytest.mark.slow
def test_down_leaves_nothing_running_and_up_again_finds_everything(bank: Bank) -> None:
    assert bank.post("/v1/account/last/deposit", {"amount": 9}).json() == 9
    down = bank.cli("down", "--json")

    assert down.code == 0, down.err
    until(lambda: not processes(bank.started["temp_dir"]), 10, "every process has ended")
    assert processes(str(bank.home)) == {}
    assert not Path(bank.started["temp_dir"]).exists()
    assert bank.cli("status").code == 4

    up = bank.cli(
        "up",
        "entities.account:app",
        "--hosts",
        "1",
        "--port",
        str(bank.port),
        "--store",
        f"sqlite:///{bank.home / 'bank.db'}",
    )
    assert up.code == 0, up.err
    assert bank.http.get("/v1/account/last/balance").json() == 9
    assert bank.cli("down").code == 0
    until(lambda: not processes(str(bank.home)), 10, "every process has ended")
