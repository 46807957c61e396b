"""Errors of requests, independent of any API. A dialect renders them as a response or as an event."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto

from services.gateway.limit_status import RateLimits
from services.runtime.messages.message import Message


class ErrorKind(Enum):
    """The kinds of errors that callers handle differently. Each dialect has its own name for each kind."""

    INVALID_REQUEST = auto()
    """The request is wrong: for example a value, the method, or a body that is not JSON."""
    AUTHENTICATION = auto()
    """The request has no valid credential."""
    PERMISSION = auto()
    """The credential is valid, but does not allow the request."""
    NOT_FOUND = auto()
    """The requested thing does not exist."""
    CONFLICT = auto()
    """The state of the requested thing does not allow the operation."""
    TOO_LARGE = auto()
    """The request has more bytes than are accepted."""
    RATE_LIMIT = auto()
    """The caller has sent too many requests or tokens within a minute, or at the same time."""
    QUOTA = auto()
    """A daily or monthly budget is used up, so that waiting for minutes does not help."""
    UNAVAILABLE = auto()
    """No worker, or another part that is needed, is available at the moment."""
    TIMEOUT = auto()
    """A worker did not respond in time."""
    SERVER_ERROR = auto()
    """A fault of the server."""


class ApiError(Exception):
    """The error of a request."""

    def __init__(
        self,
        status: int,
        kind: ErrorKind,
        message: Message,
        *,
        has_worker_fields: bool = False,
        code: str | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        limits: RateLimits | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the error.

        Args:
            status: The HTTP status.
            kind: The kind of error.
            message: The message for the caller: what is wrong, which value it has, and what to do.
            has_worker_fields: Whether the message has a worker's names of fields, which a dialect must replace.
            code: A more precise, stable name of the error, if there is one.
            retry_after: Seconds after which to try again.
            should_retry: Whether clients should retry automatically; None leaves it to them.
            limits: The state of the key's limits.
            headers: Headers of the response in every API, such as those about the connection or the credential.
        """
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.field = message.field
        self.has_worker_fields = has_worker_fields
        self.code = code
        self.retry_after = retry_after
        self.should_retry = should_retry
        self.limits = limits
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        """Return the message in English."""
        return str(self.message)

    def closing(self) -> ApiError:
        """Return this error, after whose response the connection is closed: the rest of the body is not read."""
        self.headers["Connection"] = "close"
        return self


def bad_request(message: Message, *, code: str | None = None) -> ApiError:
    """Return a 400."""
    return ApiError(400, ErrorKind.INVALID_REQUEST, message, code=code)


def unauthorized(message: Message, *, challenge: Mapping[str, str]) -> ApiError:
    """Return a 401. `challenge` is the header that states which credential is expected."""
    return ApiError(401, ErrorKind.AUTHENTICATION, message, code="invalid_api_key", headers=challenge)


def not_found(message: Message, *, code: str | None = None) -> ApiError:
    """Return a 404."""
    return ApiError(404, ErrorKind.NOT_FOUND, message, code=code)


def conflict(message: Message, *, code: str) -> ApiError:
    """Return a 409."""
    return ApiError(409, ErrorKind.CONFLICT, message, code=code)


def too_large(message: Message) -> ApiError:
    """Return a 413."""
    return ApiError(413, ErrorKind.TOO_LARGE, message, code="request_too_large")


def unavailable(message: Message, *, retry_after: float = 1.0) -> ApiError:
    """Return a 503 that may be tried again after `retry_after` seconds."""
    return ApiError(503, ErrorKind.UNAVAILABLE, message, retry_after=retry_after)


def timed_out(message: Message, *, retry_after: float | None = 1.0) -> ApiError:
    """Return a 504 that may be tried again after `retry_after` seconds; None tells clients not to retry by themselves.

    A request that took too long mostly takes as long again.
    """
    should_retry = False if retry_after is None else None
    return ApiError(504, ErrorKind.TIMEOUT, message, retry_after=retry_after, should_retry=should_retry)


def restarting() -> ApiError:
    """Return a 503 for a request that the gateway's grace period after SIGTERM has ended."""
    return unavailable(Message("server_restarting"))


@contextmanager
def restarting_if_cancelled() -> Iterator[None]:
    """Raise `restarting` if the block is cancelled: only the end of the gateway's grace period cancels a request."""
    try:
        yield
    except asyncio.CancelledError:
        raise restarting() from None


def server_error(request_id: str) -> ApiError:
    """Return a 500. The log has the cause, under the request id."""
    return ApiError(500, ErrorKind.SERVER_ERROR, Message("server_failed", request_id=request_id))
