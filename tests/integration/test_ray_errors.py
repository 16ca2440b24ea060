"""Ray's errors as ours: no cluster is needed to make them."""

from ray.exceptions import ActorDiedError, GetTimeoutError, RayTaskError

from remora import Rejected
from remora.cluster.transport import first_line, ours
from remora.errors import HostGone


def test_a_time_out_without_a_message_is_still_a_typed_error() -> None:
    error = ours(TimeoutError(), "remora/bank/host/1/1-1")

    assert isinstance(error, HostGone)
    assert error.message == "remora/bank/host/1/1-1 does not answer: TimeoutError"


def test_a_long_message_of_ray_is_cut_to_its_first_line() -> None:
    assert first_line(GetTimeoutError("Get timed out.\nSee the logs.")) == "GetTimeoutError: Get timed out."
    assert "\n" not in ours(ActorDiedError(), "a host").message


def test_an_error_that_an_actor_raised_on_purpose_stays_what_it_is() -> None:
    refused = Rejected("no")
    assert ours(RayTaskError("place", "traceback", refused), "the registry") is refused
