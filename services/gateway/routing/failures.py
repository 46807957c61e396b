"""Turns workers' failures into API errors. Fields keep the worker's names, which dialects replace."""

from __future__ import annotations

from typing import Final

import grpc

from services.gateway.errors import ApiError, ErrorKind, not_found, server_error, timed_out, unavailable
from services.gateway.record import Outcome
from services.runtime.failure import Failure, Reason, failure_of, invalid
from services.runtime.messages.message import Message

_BAD_REQUESTS: Final = {
    Reason.INVALID_ARGUMENT: None,
    Reason.UNSUPPORTED_PARAMETER: "unsupported_parameter",
    Reason.CONTEXT_LENGTH_EXCEEDED: "context_length_exceeded",
}


def failure_of_rpc(error: grpc.aio.AioRpcError) -> Failure:
    """Return the failure of a call that the worker, the connection or gRPC has ended."""
    failure = failure_of(error)
    if failure is not None:
        return failure
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        return model_unavailable()
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure(Reason.TIMEOUT, Message("worker_timed_out"), retry_after=1.0)
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
        return invalid(Message("message_too_large"))
    return Failure(Reason.INTERNAL, Message.verbatim(f"the call ended with {error.code().name}"))


def model_unavailable() -> Failure:
    """Return the failure of a call that lost its connection."""
    return Failure(Reason.MODEL_UNAVAILABLE, Message("worker_lost"))


def api_error(failure: Failure, *, request_id: str) -> ApiError:
    """Return the API error for a worker's failure. `request_id` is named in messages about server errors."""
    message, retry_after = failure.message, failure.retry_after or 1.0
    error = server_error(request_id)
    match failure.reason:
        case reason if reason in _BAD_REQUESTS:
            error = ApiError(
                400, ErrorKind.INVALID_REQUEST, message, has_worker_fields=True, code=_BAD_REQUESTS[reason]
            )
        case Reason.MODEL_NOT_FOUND:
            error = not_found(message, code="model_not_found")
        case Reason.MODEL_UNAVAILABLE | Reason.DRAINING:
            error = unavailable(message, retry_after=retry_after)
        case Reason.OVERLOADED:
            error = _overloaded(message, retry_after)
        case Reason.TIMEOUT:
            error = timed_out(message, retry_after=failure.retry_after)
        case Reason.ENGINE_FAILED if message.field:
            # One of several inputs caused the failure, and the caller can leave it out.
            error = _input_failed(message, request_id)
    return error


def outcome_of_failure(failure: Failure) -> Outcome:
    """Return the outcome of a request whose worker has ended the call with this failure."""
    return Outcome.REJECTED if api_error(failure, request_id="").status < 500 else Outcome.BROKEN_OFF


def call_status(outcome: Outcome, worker_status: str | None) -> str | None:
    """Return the name of the gRPC status with which a call has ended; None if it was successful."""
    if outcome is Outcome.COMPLETE:
        return None
    return worker_status or ("DEADLINE_EXCEEDED" if outcome is Outcome.SILENT else "CANCELLED")


def silent() -> ApiError:
    """Return a 504 for a worker that has sent no heartbeat for too long."""
    return timed_out(Message("worker_silent"))


def _overloaded(message: Message, retry_after: float) -> ApiError:
    return ApiError(429, ErrorKind.RATE_LIMIT, message, code="rate_limit_exceeded", retry_after=retry_after)


def _input_failed(message: Message, request_id: str) -> ApiError:
    reason = message.parameters.get("reason", str(message))
    failed = Message("input_failed", field=message.field or "", reason=reason, request_id=request_id)
    return ApiError(500, ErrorKind.SERVER_ERROR, failed, has_worker_fields=True)
