"""Errors: a sentence that names the fix, the exit code of what to do next, never a traceback."""

import socket
from collections.abc import Iterator

import pytest

from remora.cli import main as module
from remora.cli.exits import exit_code
from remora.cluster import record
from remora.cluster.record import ClusterRecord
from remora.errors import BY_CODE
from tests.unit.cli.running import Run
from tests.unit.cli.serving import Canned

LONG = "x" * 600


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nothing listens on, and that nothing else can take meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


# -- what the entity or the gateway says no to ---------------------------------------------------------


def test_a_rejection_is_told_in_the_entitys_words_and_ends_with_1(ask: Run) -> None:
    ended = ask("call", "account", "poor", "withdraw", "--amount", "50", "--command-id", "w-1")

    assert (ended.code, ended.out) == (1, "")
    assert "error: Balance 0 does not cover 50\n" in ended.err
    assert "command id: w-1" in ended.err
    assert "try again" not in ended.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["call", "acount", "a", "deposit"], "unknown_entity"),
        (["call", "../x", "a", "deposit"], "unknown_entity"),
        (["call", "", "a", "deposit"], "unknown_entity"),
        (["call", "account", "a", "deposti"], "unknown_command"),
        (["call", "account", "a", "why"], "unknown_command"),
        (["call", "account", "a", "x/y"], "unknown_command"),
        (["call", "account", "a", "deposit"], "invalid_argument"),
        (["call", "account", "a", "deposit", "--amount", "-1"], "invalid_argument"),
        (["call", "account", "a", "deposit", "--amount", "NaN"], "invalid_argument"),
        (["call", "account", "a", "deposit", "--amount", "1e400"], "invalid_argument"),
        (["call", "account", "a", "deposit", "--amount", "9223372036854775808"], "invalid_argument"),
        (["call", "account", "a", "deposit", "--amount", "1" * 5000], "invalid_argument"),
        (["call", "account", "a", "deposit", "--amount", "1", "--extra", "1"], "invalid_argument"),
        (["call", "account", "", "balance"], "invalid_id"),
        (["call", "account", "a/b", "balance"], "invalid_id"),
        (["call", "account", "a\0b", "balance"], "invalid_id"),
        (["call", "account", "..", "balance"], "invalid_id"),
        (["call", "account", "a\udcff", "balance"], "invalid_id"),
        (["call", "account", LONG, "balance"], "invalid_id"),
        (["call", "account", "a", "deposit", "--amount", "1", "--command-id", "a>b"], "invalid_id"),
        (["call", "account", "a", "deposit", "--amount", "1", "--command-id", LONG], "invalid_id"),
        (["call", "account", "a", "deposit", "--amount", "1", "--command-id", ""], "invalid_id"),
        (["call", "echo", "e", "fail"], "handler_failed"),
        (["call", "echo", "e", "say", "--value", "y" * (1 << 20)], "payload_too_large"),
        (["state", "account", "a/b"], "invalid_id"),
        (["state", "acount", "a"], "unknown_entity"),
        (["events", "account", ""], "invalid_id"),
        (["why", "nothing", "a"], "unknown_entity"),
    ],
)
def test_what_stays_refused_ends_with_1_for_people_and_programs_alike(ask: Run, words: list[str], code: str) -> None:
    people, programs = ask(*words), ask(*words, "--json")

    assert (people.code, people.out) == (1, "")
    assert people.err.startswith("error: ")
    assert f"code: {code}" in people.err
    assert (programs.code, programs.err) == (1, "")
    assert programs.document["code"] == code
    assert programs.document["type"] == f"urn:remora:error:{code}"
    assert programs.document["detail"]


def test_nothing_of_a_refused_command_is_applied(ask: Run) -> None:
    for amount in ("-1", "0", "ten", "1.5", "null", "[1]", '"NaN"', "9223372036854775808"):
        assert ask("call", "account", "clean", "deposit", "--amount", amount).code == 1

    assert ask("events", "account", "clean", "--json").document == []


def test_a_problem_document_carries_what_a_program_needs_to_go_on(ask: Run) -> None:
    found = ask("call", "account", "a", "deposit", "--amount", "-1", "--command-id", "d-9", "--json").document

    assert (found["status"], found["command_id"]) == (422, "d-9")
    assert found["errors"] == [{"argument": "amount", "problem": "Input should be greater than 0"}]


# -- what is worth another try ---------------------------------------------------------------------------


def test_a_deadline_ends_with_3_and_the_command_id_to_ask_again_with(ask: Run) -> None:
    ended = ask("call", "echo", "slow", "wait", "--deadline", "0.1", "--command-id", "s-1")

    assert (ended.code, ended.out) == (3, "")
    assert "--command-id s-1; it is applied once" in ended.err


def test_a_command_id_is_made_where_none_was_given_so_that_asking_again_is_safe(ask: Run) -> None:
    found = ask("call", "echo", "slower", "wait", "--deadline", "0.1", "--json").document

    assert found["code"] == "deadline_exceeded"
    assert len(found["command_id"]) == 28


def test_what_was_sent_can_be_sent_again(run: Run, canned: Canned) -> None:
    canned.answers(504, {"code": "deadline_exceeded", "detail": "Over.", "status": 504, "command_id": "x-1"})

    run("call", "echo", "a b", "say", "--value", "1", "--deadline", "2.5", "--command-id", "x-1")

    ((method, path, headers, body),) = canned.asked
    assert (method, path, body) == ("POST", "/v1/echo/a%20b/say", b'{"value": 1}')
    assert (headers["idempotency-key"], headers["remora-deadline"]) == ("x-1", "2.5")


def test_an_overloaded_entity_says_when_to_come_back(run: Run, canned: Canned) -> None:
    canned.answers(429, {"code": "overloaded", "detail": "Full.", "status": 429, "retry_after_s": 1.5})

    ended = run("call", "echo", "e", "say", "--value", "1", "--command-id", "o-1")

    assert ended.code == 3
    assert "try again: after 1.5 s, the same way with --command-id o-1" in ended.err


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_proxy_that_refuses_in_its_own_words_is_worth_another_try(run: Run, canned: Canned, status: int) -> None:
    canned.answers(status, b"<h1>No server</h1>")

    ended = run("call", "echo", "e", "say", "--value", "1")

    assert ended.code == 3
    assert "does not take requests at the moment" in ended.err
    assert "try again" in ended.err


def test_a_fault_of_the_gateway_is_worth_another_try(run: Run, canned: Canned) -> None:
    canned.answers(500, {"code": "internal_error", "detail": "The gateway failed.", "status": 500, "retry": True})

    assert run("state", "account", "a").code == 3
    assert run("state", "account", "a", "--json").document["code"] == "internal_error"


def test_a_connection_lost_on_the_way_leaves_the_outcome_open_and_says_so(run: Run, canned: Canned) -> None:
    canned.answers(200, b"1", content_length="100", remora_durability="journal")

    ended = run("call", "echo", "e", "say", "--value", "1", "--command-id", "l-1")

    assert ended.code == 3
    assert "was lost before it answered" in ended.err
    assert "--command-id l-1" in ended.err


@pytest.mark.parametrize(("status", "retry", "expected"), [(500, True, 3), (500, False, 1), (404, False, 1)])
def test_codes_of_a_newer_gateway_are_judged_by_what_its_document_says(
    run: Run,
    canned: Canned,
    status: int,
    retry: bool,  # noqa: FBT001 - a column of the table
    expected: int,
) -> None:
    canned.answers(status, {"code": "from_the_future", "detail": "New.", "status": status, "retry": retry})

    assert run("state", "account", "a").code == expected


# -- what cannot be reached ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["call", "a", "b", "c"], ["state", "a", "b"], ["events", "a", "b"], ["why", "a", "b"], ["release", "a", "b"]],
)
def test_without_a_record_every_question_names_remora_up_and_ends_with_4(run: Run, words: list[str]) -> None:
    people, programs = run(*words), run(*words, "--json")

    assert (people.code, programs.code) == (4, 4)
    assert "`remora up MODULE:APP`" in people.err
    assert programs.document["code"] == "cluster_unreachable"


@pytest.mark.parametrize(
    "words",
    [
        ["down"],
        ["status"],
        ["down", "bank"],
        ["status", "bank"],
        ["shards"],
        ["drain", "n1"],
        ["undrain", "n1"],
        ["rebalance"],
    ],
)
def test_without_a_record_commands_about_the_platform_name_remora_up_too(run: Run, words: list[str]) -> None:
    ended = run(*words)

    assert ended.code == 4
    assert "`remora up MODULE:APP`" in ended.err


def test_the_record_of_remora_up_names_the_gateway_to_ask(run: Run, gateway: str) -> None:
    record.save(ClusterRecord("sample", "m:app", "127.0.0.1:1", "", gateway, "memory://", 2))

    assert run("call", "counter", "r", "increment").out == "1\n"
    assert run("call", "counter", "r", "increment", "--app", "sample").out == "2\n"
    assert run("call", "counter", "r", "increment", "--app", "other").code == 4


def test_where_several_apps_run_one_has_to_be_named(run: Run, gateway: str) -> None:
    for name in ("one", "two"):
        record.save(ClusterRecord(name, "m:app", "127.0.0.1:1", "", gateway, "memory://", 2))

    ended = run("state", "counter", "several")

    assert ended.code == 4
    assert "one, two" in ended.err
    assert run("state", "counter", "several", "--app", "two").code == 0


def test_a_gateway_that_does_not_answer_ends_with_4(run: Run, closed_port: int) -> None:
    ended = run("call", "a", "b", "c", "--gateway", f"http://127.0.0.1:{closed_port}")

    assert ended.code == 4
    assert f"No gateway answers at http://127.0.0.1:{closed_port}" in ended.err
    assert "`remora up MODULE:APP`" in ended.err


def test_the_gateway_of_the_command_line_counts_before_that_of_the_environment(ask: Run, closed_port: int) -> None:
    assert ask("state", "counter", "c", "--gateway", f"http://127.0.0.1:{closed_port}").code == 4


def test_a_proxy_of_the_environment_is_not_asked_for_this_machines_gateway(
    ask: Run, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")

    assert ask("state", "counter", "c").code == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<h1>Welcome</h1>"), (200, b'{"amount": 1}'), (404, b"Not found"), (302, b""), (500, b"\xff")],
)
def test_another_server_is_not_taken_for_a_gateway(run: Run, canned: Canned, status: int, body: bytes) -> None:
    canned.answers(status, body)

    ended = run("state", "account", "a")

    assert (ended.code, ended.out) == (4, "")
    assert "is no gateway of Remora" in ended.err


# -- what is wrong on the command line itself --------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["stauts"],
        ["up"],
        ["up", "m:a", "--hosts", "0"],
        ["up", "m:a", "--port", "65536"],
        ["up", "m:a", "--port", "http"],
        ["up", "m:a", "--host", "1"],
        ["call", "account", "a"],
        ["call", "account", "a", "deposit", "10"],
        ["call", "account", "a", "deposit", "--amount", "1", "--amount", "2"],
        ["call", "account", "a", "deposit", "--args", "{"],
        ["call", "account", "a", "deposit", "--deadline", "soon"],
        ["call", "account", "a", "deposit", "--deadline", "0"],
        ["call", "account", "a", "deposit", "--deadline", "nan"],
        ["call", "account", "a", "deposit", "--command-id", " padded"],
        ["state", "account", "a", "--deadline", "-1"],
        ["state", "account", "a", "--amount", "1"],
        ["state", "account", "a", "--gateway", "localhost:8000"],
        ["state", "account", "a", "--gateway", "http://[::1"],
        ["state", "account", "a", "--gateway", "http://host:port"],
        ["state", "account", "a", "--gateway", "ftp://host"],
        ["state", "account", "a", "--gateway", ""],
        ["events", "account", "a", "--limit", "1001"],
    ],
)
def test_wrong_usage_ends_with_2_for_people_and_programs_alike(ask: Run, words: list[str]) -> None:
    people, programs = ask(*words), ask(*words, "--json")

    assert (people.code, people.out) == (2, "")
    assert people.err.startswith("error: ")
    assert (programs.code, programs.err) == (2, "")
    assert programs.document["code"] == "usage"


def test_wrong_usage_points_to_the_help_of_that_command(run: Run) -> None:
    assert "`remora up --help`" in run("up", "m:a", "--prot", "1").err


def test_nothing_at_all_shows_the_help_and_ends_with_2(run: Run) -> None:
    ended = run()

    assert ended.code == 2
    assert "Usage: remora" in ended.out


# -- the table of codes ------------------------------------------------------------------------------------


def test_every_error_of_the_tree_has_the_exit_code_of_its_verdict() -> None:
    found = {code: exit_code(kind("…")) for code, kind in BY_CODE.items()}

    assert {code for code, number in found.items() if number == 3} == {
        "try_again", "overloaded", "unavailable", "store_unavailable", "out_of_order", "deadline_exceeded",
        "not_owner", "host_gone", "not_leader", "fenced",
    }  # fmt: skip
    assert {code for code, number in found.items() if number == 4} == {
        "start_error", "store_mismatch", "cluster_unreachable", "port_taken", "contract_error",
    }  # fmt: skip
    assert set(found.values()) == {1, 3, 4}


def test_a_fault_of_remora_itself_never_looks_like_a_refusal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        msg = "broken"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr("remora.cli.entities.gateway_url", broken)

    assert module.main(["state", "account", "a"]) == 70
    printed = capsys.readouterr()
    assert "Traceback" in printed.err
    assert "Please report it" in printed.err
    assert printed.out == ""


def test_ctrl_c_ends_with_130_and_the_command_id_to_learn_the_outcome_with(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("remora.cli.gateway_client.GatewayClient.ask", interrupted)

    ended = run("call", "a", "b", "c", "--command-id", "i-1", "--gateway", "http://127.0.0.1:1")

    assert ended.code == 130
    assert "--command-id i-1" in ended.err
