"""What can go wrong with a request, without the words of any API: a dialect renders it as a response or as an event."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from services.gateway.limit_status import RateLimits


class ErrorKind(Enum):
    """What went wrong, as far as callers act on it. Each dialect has its own name for each kind."""

    INVALID_REQUEST = auto()
    """The request cannot be answered as it is: a wrong value, a wrong method, a body that is no JSON."""
    AUTHENTICATION = auto()
    """There is no valid credential."""
    PERMISSION = auto()
    """The credential is valid and does not cover what is asked for."""
    NOT_FOUND = auto()
    """What is asked for does not exist."""
    CONFLICT = auto()
    """The state of what is asked for does not allow it."""
    TOO_LARGE = auto()
    """The request has more bytes than are accepted."""
    RATE_LIMIT = auto()
    """Too many requests or tokens for the moment."""
    QUOTA = auto()
    """A budget is used up; there is nothing to wait for within minutes."""
    UNAVAILABLE = auto()
    """Nothing can serve the request at the moment."""
    TIMEOUT = auto()
    """A worker did not answer in time."""
    SERVER_ERROR = auto()
    """A fault of ours."""


class ApiError(Exception):
    """The error of a request."""

    def __init__(
        self,
        status: int,
        kind: ErrorKind,
        message: str,
        *,
        field: str | None = None,
        worker_field: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        limits: RateLimits | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the error.

        status: of HTTP.
        message: an English sentence for the caller: what was wrong, with which value, and what to do.
        field: the path of the field at fault, in the names of the caller's API.
        worker_field: the same in the worker's names, which the message then uses too; a dialect replaces both.
        code: a more precise, stable name of the error, where there is one.
        retry_after: seconds after which to try again.
        should_retry: tells clients that try again by themselves not to, or to; None leaves it to them.
        limits: how the key's limits stand.
        headers: of HTTP, whatever the API: those about the connection, the method or the credential.
        """
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.field = field
        self.worker_field = worker_field
        self.code = code
        self.retry_after = retry_after
        self.should_retry = should_retry
        self.limits = limits
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        """Return the message, with the names of fields that it has by now."""
        return self.message

    def closing(self) -> ApiError:
        """Have the connection closed with the response, because the rest of the request's body is not read."""
        self.headers["Connection"] = "close"
        return self


def bad_request(
    field: str | None, message: str, *, code: str | None = None, worker_field: str | None = None
) -> ApiError:
    """Return a 400 for one field."""
    return ApiError(400, ErrorKind.INVALID_REQUEST, message, field=field, worker_field=worker_field, code=code)


def unauthorized(message: str) -> ApiError:
    """Return a 401."""
    return ApiError(
        401, ErrorKind.AUTHENTICATION, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
    )


def not_found(message: str, *, field: str | None = None, code: str | None = None) -> ApiError:
    """Return a 404."""
    return ApiError(404, ErrorKind.NOT_FOUND, message, field=field, code=code)


def conflict(message: str, *, code: str, field: str | None = None) -> ApiError:
    """Return a 409."""
    return ApiError(409, ErrorKind.CONFLICT, message, field=field, code=code)


def too_large(message: str) -> ApiError:
    """Return a 413."""
    return ApiError(413, ErrorKind.TOO_LARGE, message, code="request_too_large")


def unavailable(message: str, *, retry_after: float = 1.0) -> ApiError:
    """Return a 503 that may be tried again after `retry_after` seconds."""
    return ApiError(503, ErrorKind.UNAVAILABLE, message, retry_after=retry_after)


def timed_out(message: str, *, retry_after: float = 1.0) -> ApiError:
    """Return a 504 that may be tried again after `retry_after` seconds."""
    return ApiError(504, ErrorKind.TIMEOUT, message, retry_after=retry_after)


def restarting() -> ApiError:
    """Return a 503 for a request that this gateway has no time left for."""
    return unavailable("The server is being restarted. Please try again.")


def server_error(request_id: str) -> ApiError:
    """Return a 500. What happened is in the log, under the request id."""
    return ApiError(500, ErrorKind.SERVER_ERROR, f"The server had an error. Please report the request id {request_id}.")
