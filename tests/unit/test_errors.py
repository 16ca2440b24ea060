"""The tree of errors: each says what to do next, and crosses process boundaries whole."""

import inspect
import pickle

import msgspec
import pytest

from remora import errors
from remora.errors import (
    BY_CODE,
    CallCycle,
    Corrupt,
    DeadlineExceeded,
    ErrorBody,
    Fenced,
    HandlerFailed,
    HostGone,
    InvalidInput,
    NotOwner,
    Rejected,
    RemoraError,
    StartError,
    Stopped,
    TooOld,
    TryAgain,
    Verdict,
    decode_error,
)

CLASSES = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, RemoraError)]
RETRY = {"try_again", "overloaded", "unavailable", "store_unavailable", "out_of_order", "deadline_exceeded"}
RELOCATE = {"not_owner", "host_gone", "not_leader", "fenced"}


def full(cls: type[RemoraError]) -> RemoraError:
    return cls(
        "Ünglück: do this instead.",
        entity="account/älice",
        command_id="pay-7",
        retry_after_s=0.25,
        details=[{"argument": "amount", "problem": "ß"}, {"n": 1}],
    )


def fields(error: RemoraError) -> ErrorBody:
    return error.body()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_pickles_with_all_its_fields(cls: type[RemoraError]) -> None:
    error = full(cls)

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - what Ray does between our own processes

    assert type(copy) is cls
    assert fields(copy) == fields(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_travels_over_the_wire_with_all_its_fields(cls: type[RemoraError]) -> None:
    error = full(cls)

    copy = decode_error(error.encode())

    assert type(copy) is cls
    assert fields(copy) == fields(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_has_a_code_of_its_own_a_verdict_and_a_status(cls: type[RemoraError]) -> None:
    expected = Verdict.RETRY if cls.code in RETRY else Verdict.RELOCATE if cls.code in RELOCATE else Verdict.REJECT

    assert cls.verdict is expected
    assert BY_CODE[cls.code] is cls
    assert 400 <= cls.status < 600
    assert (cls.__doc__ or "").strip()


def test_the_tree_is_as_drawn() -> None:
    assert {cls.__name__ for cls in CLASSES} == {cls.__name__ for cls in BY_CODE.values()}
    assert issubclass(HostGone, NotOwner)
    assert issubclass(TooOld, InvalidInput)
    assert issubclass(DeadlineExceeded, TryAgain)
    for alone in (Rejected, CallCycle, HandlerFailed, Corrupt, Stopped, Fenced, StartError):
        assert alone.__bases__ == (RemoraError,)
    for cls in CLASSES:
        assert f"{cls.__name__} " in (errors.__doc__ or "").replace("\n", " \n"), "drawn in the module"


def test_an_error_with_a_code_of_a_newer_release_is_still_an_error() -> None:
    body = ErrorBody("from_the_future", "Something new.", "a/1", "c", 1.0, [])
    data = msgspec.json.encode(body)

    copy = decode_error(data)

    assert type(copy) is RemoraError
    assert (copy.message, copy.entity, copy.command_id, copy.retry_after_s) == ("Something new.", "a/1", "c", 1.0)


def test_a_rejection_of_a_users_own_class_arrives_as_a_rejection() -> None:
    class NotCovered(Rejected):
        pass

    assert type(decode_error(NotCovered("no").encode())) is Rejected


def test_two_errors_do_not_share_their_details() -> None:
    first, second = Rejected("a"), Rejected("b")
    first.details.append({"x": 1})

    assert second.details == []
