"""Failures, and their conversion to and from gRPC statuses with google.rpc details.

The status of a failure carries `google.rpc.ErrorInfo` with the domain `vilix` and a stable reason. A status without it
did not come from our code.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.runtime.messages.message import VERBATIM, Message

DOMAIN: Final = "vilix"
_MESSAGE_ID: Final = "message_id"
"""Among the metadata of ErrorInfo; all others are parameters of the message."""


class Reason(StrEnum):
    """Stable names of the kinds of failures: `ErrorInfo.reason` on the wire."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    """A field has a value that no model accepts."""
    UNSUPPORTED_PARAMETER = "UNSUPPORTED_PARAMETER"
    """A field is well formed, but this model or its engine cannot honour it."""
    CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED"
    """Prompt and requested output are longer than the model's context."""
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    """No model has this id."""
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    """The model exists, but nothing serves it at the moment."""
    OVERLOADED = "OVERLOADED"
    """There is no capacity for another request at the moment."""
    DRAINING = "DRAINING"
    """The process is about to stop and takes no new requests."""
    TIMEOUT = "TIMEOUT"
    """No response came within the time allowed."""
    ENGINE_FAILED = "ENGINE_FAILED"
    """The engine reported an error that is not the caller's fault."""
    INTERNAL = "INTERNAL"
    """A fault of our code."""


_CODES: Final = {
    Reason.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNSUPPORTED_PARAMETER: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.CONTEXT_LENGTH_EXCEEDED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.MODEL_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.ENGINE_FAILED: grpc.StatusCode.INTERNAL,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}


class Failure(Exception):
    """A failure with a reason. `message` is for the caller: what was wrong, with which value, and what to do."""

    def __init__(self, reason: Reason, message: Message, *, retry_after: float | None = None) -> None:
        """`retry_after` is in seconds; None means that a retry makes no sense."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Return the message in English."""
        return str(self.message)

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code of the reason."""
        return _CODES[self.reason]

    def status(self) -> grpc.Status:
        """Return the failure as a gRPC status, for `context.abort_with_status`."""
        return rpc_status.to_status(self.to_proto())

    def to_proto(self) -> status_pb2.Status:
        """Return the failure as a google.rpc.Status; `from_proto` is the inverse.

        Its message is the English text. The metadata of ErrorInfo have the message's id and its parameters, so that a
        caller can show it in another language.
        """
        text, field = str(self.message), self.message.field
        metadata = {name: value for name, value in self.message.texts().items() if name != "text"}
        if self.message.is_translated:
            metadata[_MESSAGE_ID] = self.message.id
        details: list[error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo] = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=metadata)
        ]
        if field is not None:
            violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(int(self.retry_after * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        return status_pb2.Status(code=self.code.value[0], message=text, details=packed)


def invalid(message: Message) -> Failure:
    """Return a failure with the reason INVALID_ARGUMENT."""
    return Failure(Reason.INVALID_ARGUMENT, message)


def unsupported(message: Message) -> Failure:
    """Return a failure with the reason UNSUPPORTED_PARAMETER."""
    return Failure(Reason.UNSUPPORTED_PARAMETER, message)


def failure_of(error: grpc.aio.AioRpcError) -> Failure | None:
    """Return the failure with which a call ended, or None if the status did not come from our code."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has the same three accessors
    except ValueError:
        return None
    return from_proto(status) if status is not None else None


def from_proto(status: status_pb2.Status) -> Failure | None:
    """Return the failure of a status, or None if the status did not come from our code."""
    info, retry = error_details_pb2.ErrorInfo(), None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    parameters = dict(info.metadata)
    message = Message.received(parameters.pop(_MESSAGE_ID, VERBATIM), parameters, text=status.message)
    delay = retry.retry_delay.ToMilliseconds() / 1000 if retry is not None else None
    return Failure(Reason(info.reason), message, retry_after=delay)
