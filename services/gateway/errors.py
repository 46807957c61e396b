"""Errors in OpenAI's shape, and how the workers' failures become them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import grpc
import orjson
from starlette.responses import Response

from services.gateway.dialects.field_names import openai_name
from services.gateway.i18n.language import ACCEPTED, preferred, translated
from services.runtime.failure import Failure, Reason, failure_of
from services.runtime.telemetry import without_keys

JSON: Final = "application/json"
_FORM: Final = "response_format"
"""The worker's field for the form of an answer, however the request gave it."""


class ApiError(Exception):
    """A request's error, as its caller sees it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002  # the field's name in the API
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`status` is HTTP's; the rest are the fields of OpenAI's error object."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON document `{"error": {message, type, param, code}}`, with its message in the caller's language."""
        return self._body(self._said()[0])

    def _body(self, message: str) -> bytes:
        param = self.param and without_keys(self.param)
        return orjson.dumps({"error": {"message": message, "type": self.type, "param": param, "code": self.code}})

    def _said(self) -> tuple[str, str]:
        """The message, and the language it is in."""
        # An error quotes what it is about, and ends up in its caller's logs.
        message, language = without_keys(self.message), preferred(ACCEPTED.get())
        text = translated(message, language)
        return (message, "en") if text is None else (text, language)

    def response(self) -> Response:
        """The HTTP response."""
        message, language = self._said()
        headers = {"Content-Language": language, "Vary": "Accept-Language", **self.headers}
        return Response(self._body(message), self.status, headers, JSON)


def bad_request(param: str | None, message: str, *, code: str | None = None) -> ApiError:
    """A 400 for one parameter."""
    return ApiError(400, message, param=param, code=code)


def unauthorized(message: str) -> ApiError:
    """A 401."""
    return ApiError(
        401, message, type="authentication_error", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
    )


def unavailable(message: str, *, retry_after: float = 1.0) -> ApiError:
    """A 503 that may be tried again after `retry_after` seconds."""
    return ApiError(503, message, type="service_unavailable", headers=retry_headers(retry_after))


def restarting() -> ApiError:
    """A 503 for a request that this gateway has no time left for."""
    return unavailable("The server is being restarted. Please try again.")


def silent() -> ApiError:
    """A 504 for a worker that has given no sign of life for too long."""
    message = "The model has not answered for too long. Please try again."
    return ApiError(504, message, type="timeout", headers=retry_headers(1))


def server_error(request_id: str) -> ApiError:
    """A 500. What happened is in the log, under the request id."""
    return ApiError(500, f"The server had an error. Please report the request id {request_id}.", type="server_error")


def retry_headers(seconds: float) -> dict[str, str]:
    """Headers that say when to try again: whole seconds, at least 1, and exact milliseconds."""
    return {"Retry-After": str(max(1, math.ceil(seconds))), "retry-after-ms": str(max(1, math.ceil(seconds * 1000)))}


_BAD_REQUESTS: Final = {
    Reason.INVALID_ARGUMENT: None,
    Reason.UNSUPPORTED_PARAMETER: "unsupported_parameter",
    Reason.CONTEXT_LENGTH_EXCEEDED: "context_length_exceeded",
}


def from_rpc(error: grpc.aio.AioRpcError, *, request_id: str, form: str = _FORM) -> ApiError:
    """The API's error for a call that failed. `form` is as below."""
    return from_failure(failure_of_rpc(error), request_id=request_id, form=form)


def failure_of_rpc(error: grpc.aio.AioRpcError) -> Failure:
    """The failure that a call ended with, also where the connection and not the worker ended it."""
    failure = failure_of(error)
    if failure is not None:
        return failure
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        return Failure(Reason.MODEL_UNAVAILABLE, "The model is not available at the moment. Please try again.")
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure(Reason.TIMEOUT, "The model did not answer in time.")
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
        return Failure(
            Reason.INVALID_ARGUMENT,
            "The request, or the answer to it, is too large for one message. Ask for less at once.",
        )
    return Failure(Reason.INTERNAL, f"the call ended with {error.code().name}")


def from_failure(failure: Failure, *, request_id: str, form: str = _FORM) -> ApiError:
    """The API's error for a worker's failure. `form` is the path at which the request gave the form of its answer."""
    param = (openai_name(failure.violations[0].field, form=form) or None) if failure.violations else None
    retry = retry_headers(failure.retry_after or 1.0)
    if failure.reason in _BAD_REQUESTS:
        message = failure.message
        if param is not None:
            # The caller knows the field by OpenAI's name, and a form that another field is at odds with by its own.
            field = failure.violations[0].field
            message = message.replace(field, param)
            if not field.startswith(_FORM):
                message = message.replace(_FORM, form)
        return bad_request(param, message, code=_BAD_REQUESTS[failure.reason])
    match failure.reason:
        case Reason.MODEL_NOT_FOUND:
            return ApiError(404, failure.message, param="model", code="model_not_found")
        case Reason.MODEL_UNAVAILABLE | Reason.DRAINING:
            return ApiError(503, failure.message, type="service_unavailable", headers=retry)
        case Reason.OVERLOADED:
            return ApiError(429, failure.message, type="rate_limit_error", code="rate_limit_exceeded", headers=retry)
        case Reason.TIMEOUT:
            return ApiError(504, failure.message, type="timeout", headers=retry)
        case _:
            return _fault(failure, param, request_id)


def _fault(failure: Failure, param: str | None, request_id: str) -> ApiError:
    """A 500. Where one of several inputs is at fault, it says which."""
    if failure.reason is not Reason.ENGINE_FAILED or param is None:
        return server_error(request_id)
    message = failure.message.replace(failure.violations[0].field, param)
    return ApiError(500, f"{message}. The request id is {request_id}.", type="server_error", param=param)


def shown(value: Any) -> str:
    """A JSON value for an error message, not longer than a line."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
