"""What a caller is told about a handler that did not return."""

from __future__ import annotations

from remora.errors import CallCycle, HandlerFailed, NonDeterministic, PayloadTooLarge, RemoraError, Unavailable
from remora.supervision.failure import described


def answer_for(failure: BaseException, where: str, command_id: str) -> RemoraError:
    """Return what a caller is told about a handler that raised.

    Errors of Remora that a handler did not catch keep their verdict if asking again helps, or their
    class if the caller can do something about it; everything else is the handler's failure.
    """
    if isinstance(failure, RemoraError) and failure.verdict.value != "reject":
        return Unavailable(
            f"{where}: {failure.message}", command_id=command_id, retry_after_s=failure.retry_after_s or 0.05
        )
    if isinstance(failure, CallCycle | NonDeterministic | PayloadTooLarge):
        failure.command_id = command_id
        return failure
    return HandlerFailed(f"{where} raised {described(failure)}", command_id=command_id)
