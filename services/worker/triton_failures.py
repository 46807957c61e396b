"""Failures of the models in Triton: from the errors of engines, of Triton, and of gRPC."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import grpc

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message

MOST_CHARACTERS: Final = 500
"""The longest text of an engine in a failure, because a gRPC status is sent as a header."""
_DEAD_PROCESS: Final = re.compile(r"[Ss]tub process .*is not healthy")


class DeadModelError(Failure):
    """The model's own process has died. Triton itself lives on, and does not restart the process."""

    def __init__(self, model: str) -> None:
        """`model` is the model's id."""
        message = Message("model_process_died", model=model)
        super().__init__(Reason.MODEL_UNAVAILABLE, message, retry_after=2.0)


def reject_error(response: Any, model: str) -> None:
    """Raise Failure for a response that is an error: the engine's, as `REASON: text`, or Triton's own."""
    if response.error_message:
        unknown = response.error_message.startswith("Request for unknown model")
        code = grpc.StatusCode.NOT_FOUND if unknown else grpc.StatusCode.INTERNAL
        raise failure_of(code, response.error_message, model)


async def raise_status(call: Any, model: str) -> None:
    """Raise the Failure of a call that has ended."""
    code = await call.code()
    raise failure_of(code, await call.details(), model)


def failure_of_rpc(error: grpc.aio.AioRpcError, model: str) -> Failure:
    """Return the failure that an error of gRPC stands for."""
    return failure_of(error.code(), error.details() or "", model)


def failure_of(code: grpc.StatusCode, details: str, model: str) -> Failure:
    """Return the failure that a status stands for: the engine's own, or one of Triton."""
    if _DEAD_PROCESS.search(details):
        return DeadModelError(model)
    reason, separator, message = details.partition(": ")
    if separator and reason in Reason.__members__:
        return Failure(Reason(reason), _message(message), retry_after=1.0 if reason == Reason.OVERLOADED else None)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
        return Failure(Reason.MODEL_UNAVAILABLE, Message("model_unavailable", model=model), retry_after=1.0)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure(Reason.TIMEOUT, Message("model_timed_out", model=model), retry_after=1.0)
    return engine_failed(details)


def _message(text: str) -> Message:
    """Return the message that a RequestError has written; one that cannot be read stays as it is."""
    try:
        content = json.loads(text)
        parameters = {name: str(value)[:MOST_CHARACTERS] for name, value in content["parameters"].items()}
        return Message.received(content["message_id"], parameters, text=text)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Message.verbatim(text[:MOST_CHARACTERS])


def engine_failed(problem: str) -> Failure:
    """Return the failure of an engine with a `problem`."""
    return Failure(Reason.ENGINE_FAILED, Message("engine_failed", reason=problem[:MOST_CHARACTERS]))
