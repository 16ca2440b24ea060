"""Problem documents, error by error."""

import json

import pytest

from remora.errors import BY_CODE, Overloaded, Rejected, RemoraError, Stopped, Unavailable, Verdict
from remora.gateway import problems
from remora.gateway.problems import MethodNotAllowed, RouteNotFound, UnsupportedMediaType

OURS: list[type[RemoraError]] = [MethodNotAllowed, RouteNotFound, UnsupportedMediaType]
ERRORS: list[type[RemoraError]] = [*BY_CODE.values(), *OURS]


def document(error: RemoraError) -> dict[str, object]:
    found: dict[str, object] = json.loads(problems.encode(problems.problem(error)))
    return found


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_problem_document(kind: type[RemoraError]) -> None:
    error = kind("Do this.", entity="account/a", command_id="c-1", retry_after_s=0.25, details=[{"allow": "GET"}])
    found = document(error)

    assert found["type"] == f"urn:remora:error:{kind.code}"
    assert found["title"] == kind.code.replace("_", " ").capitalize()
    assert (found["status"], found["detail"], found["code"]) == (kind.status, "Do this.", kind.code)
    assert (found["entity"], found["command_id"], found["errors"]) == ("account/a", "c-1", [{"allow": "GET"}])
    assert found.get("retry", False) is (kind.verdict is not Verdict.REJECT)
    assert 400 <= kind.status < 600


def test_every_code_is_used_once() -> None:
    codes = [kind.code for kind in ERRORS] + [problems.UNEXPECTED]

    assert len(set(codes)) == len(codes)


def test_members_that_say_nothing_are_left_out() -> None:
    assert set(document(Rejected("no"))) == {"type", "title", "status", "detail", "code"}


@pytest.mark.parametrize(
    ("retry_after_s", "header"), [(0.0, b"1"), (0.02, b"1"), (1.0, b"1"), (1.001, b"2"), (59.5, b"60")]
)
@pytest.mark.parametrize("kind", [Overloaded, Unavailable])
def test_retry_after_is_in_whole_seconds_upwards_and_exact_in_the_document(
    kind: type[RemoraError], retry_after_s: float, header: bytes
) -> None:
    error = kind("Come back.", retry_after_s=retry_after_s)

    assert (b"retry-after", header) in problems.headers(error)
    assert document(error)["retry_after_s"] == retry_after_s


def test_an_entity_that_stays_stopped_does_not_ask_to_come_back() -> None:
    error = Stopped("It was stopped.", retry_after_s=1.0)

    assert problems.headers(error) == []
    assert "retry_after_s" not in document(error)
