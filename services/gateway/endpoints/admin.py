"""The admin API: keys, aliases, activity, receipts and the audit log over HTTP, with its own listener and credential.

Its OpenAPI document describes it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from services.gateway.dialects import openai_errors
from services.gateway.edge.access import Access
from services.gateway.edge.admin_guard import AdminGuard
from services.gateway.endpoints import (
    admin_activity,
    admin_aliases,
    admin_audit,
    admin_errors,
    admin_examples,
    admin_requests,
)
from services.gateway.endpoints.request_record import record_of
from services.gateway.errors import ApiError, ErrorKind, bad_request, conflict, not_found, server_error, unavailable
from services.gateway.live_requests import LiveRequests
from services.gateway.quoting import shown
from services.gateway.redis.link import RedisLink
from services.gateway.redis.rejections import rejection_of
from services.gateway.routing.aliases import Aliases
from services.gateway.routing.fleet import Fleet
from services.gateway.tenancy import keys, usage
from services.gateway.tenancy.key import Change, Draft, ExpiredError, Key, NameTakenError, RevokedError
from services.gateway.tenancy.key_records import NewerRecordError
from services.gateway.tenancy.limits import NO_BOOLEAN
from services.runtime.messages.message import Message

PREFIX: Final = "/admin/v1"
_OPENAPI_PATH: Final = f"{PREFIX}/openapi.json"
_CREDENTIAL: Final = Security(HTTPBearer(auto_error=False))
"""Declared for the OpenAPI document only. AdminGuard checks the credential before the body is read."""


class NewKey(Key):
    """A key with its secret, which is shown only once."""

    key: str = Field(description="The secret.")


class Rotation(BaseModel):
    """The options of a rotation."""

    grace_seconds: Annotated[int, Field(ge=0, le=keys.MAX_GRACE_SECONDS), NO_BOOLEAN] = Field(
        keys.GRACE_SECONDS, description="How long older secrets stay valid."
    )


class Revocation(BaseModel):
    """A revoked key."""

    id: str
    name: str
    replicas: int = Field(description="Replicas that Redis has.")
    acknowledged: int = Field(description="Replicas that had the revocation, after waiting up to a second.")


router: Final = APIRouter(prefix=PREFIX, dependencies=[_CREDENTIAL])


@router.post("/keys", tags=["keys"], status_code=201, responses=admin_examples.CREATED)
async def create_key(request: Request, draft: Annotated[Draft, Body(openapi_examples=admin_examples.CREATE)]) -> NewKey:
    """Create a key. The response has its secret, which cannot be retrieved again."""
    redis = _redis_of(request)
    key, secret = await keys.create(redis, **dict(draft))
    record_of(request).key_id = key.id
    return NewKey(key=secret, **dict(key))


@router.get("/keys", tags=["keys"], responses=admin_examples.LISTED)
async def list_keys(request: Request) -> list[Key]:
    """List all keys except revoked ones, oldest first."""
    return await keys.list_all(_redis_of(request))


@router.get("/keys/{name_or_id}", tags=["keys"], responses=admin_examples.SHOWN)
async def show_key(request: Request, name_or_id: str) -> Key:
    """Show a key."""
    return await keys.get(_redis_of(request), name_or_id)


@router.patch("/keys/{name_or_id}", tags=["keys"], responses=admin_examples.SHOWN)
async def change_key(
    request: Request, name_or_id: str, change: Annotated[Change, Body(openapi_examples=admin_examples.CHANGE)]
) -> Key:
    """Change a key. Absent fields stay as they are; null removes a limit. The change applies from the next request."""
    key = await keys.change(_redis_of(request), name_or_id, change)
    record_of(request).key_id = key.id
    return key


@router.post("/keys/{name_or_id}/rotate", tags=["keys"], status_code=201, responses=admin_examples.CREATED)
async def rotate_key(
    request: Request,
    name_or_id: str,
    rotation: Annotated[Rotation | None, Body(openapi_examples=admin_examples.ROTATE)] = None,
) -> NewKey:
    """Create a new secret for a key. Older secrets stay valid for `grace_seconds`."""
    grace = (rotation or Rotation()).grace_seconds
    key, secret = await keys.rotate(_redis_of(request), name_or_id, grace_seconds=grace)
    record_of(request).key_id = key.id
    return NewKey(key=secret, **dict(key))


@router.delete("/keys/{name_or_id}", tags=["keys"], responses=admin_examples.REVOKED)
async def revoke_key(request: Request, name_or_id: str) -> Revocation:
    """Revoke a key. From now on every gateway rejects it."""
    key, replication = await keys.revoke(_redis_of(request), name_or_id)
    record_of(request).key_id = key.id
    return Revocation(id=key.id, name=key.name, replicas=replication.replicas, acknowledged=replication.acknowledged)


@router.get(
    "/keys/{name_or_id}/usage",
    tags=["keys"],
    responses=admin_examples.USAGE,
    response_model_exclude_none=True,  # Without prices there is no cost.
)
async def key_usage(
    request: Request,
    name_or_id: str,
    by: Literal["model", "day"] = "day",
    days: Annotated[int, Query(ge=1, le=400)] = 30,
) -> dict[str, usage.Counts]:
    """Show what a key used in the last `days` days, including today (UTC). A revoked key is found only by its id."""
    redis = _redis_of(request)
    key = await keys.get(redis, name_or_id)
    return usage.summed(await usage.of_days(redis, key, last=datetime.now(UTC).date(), days=days), by=by)


router.include_router(admin_aliases.router)
router.include_router(admin_audit.router)
router.include_router(admin_requests.router)


def create_admin_app(
    link: RedisLink, fleet: Fleet, live_requests: LiveRequests, aliases: Aliases, *, token: str
) -> ASGIApp:
    """Return the admin API as an ASGI application, for callers that send `token`.

    It manages the keys and aliases behind `link`, and shows the load of `fleet` and the running requests.
    """
    app = FastAPI(
        title="Vilix admin API",
        version="1",
        openapi_url=_OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        responses=admin_errors.RESPONSES,
    )
    app.state.link, app.state.fleet, app.state.live_requests = link, fleet, live_requests
    app.state.aliases = aliases
    app.include_router(router)
    app.include_router(admin_activity.router, prefix=PREFIX, dependencies=[_CREDENTIAL])
    handlers: dict[type[Exception], Any] = {
        ApiError: _api_error,
        HTTPException: _http_error,
        RequestValidationError: _invalid,
        LookupError: _not_found,
        NameTakenError: _conflict,
        RevokedError: _revoked,
        ExpiredError: _expired,
        NewerRecordError: _newer_record,
        ValueError: _wrong,
        RedisError: _redis_error,
        OSError: _redis_error,
        Exception: _unexpected_error,
    }
    for error, handler in handlers.items():
        app.add_exception_handler(error, handler)
    return Access(AdminGuard(app, token=token, open_path=_OPENAPI_PATH), origins=[])


def _redis_of(request: Request) -> Redis:
    link: RedisLink = request.app.state.link
    return link.redis


async def _api_error(request: Request, error: ApiError) -> Response:
    return openai_errors.response(error)


async def _http_error(request: Request, error: HTTPException) -> Response:
    message = Message("admin_request_not_valid", reason=str(error.detail), document=_OPENAPI_PATH)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = admin_errors.allowed_methods(request)
    return openai_errors.response(ApiError(error.status_code, ErrorKind.INVALID_REQUEST, message, headers=headers))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    problem = error.errors()[0]
    field, value, reason = ".".join(map(str, problem["loc"][1:])), shown(problem["input"]), problem["msg"]
    if field:
        message = Message("admin_field_not_valid", field=field, value=value, reason=reason)
    else:
        message = Message("admin_body_not_valid", value=value, reason=reason)
    return openai_errors.response(bad_request(message))


async def _not_found(request: Request, error: LookupError) -> Response:
    return openai_errors.response(not_found(_message_of(error), code="key_not_found"))


async def _conflict(request: Request, error: NameTakenError) -> Response:
    return openai_errors.response(conflict(_message_of(error), code="name_taken"))


async def _revoked(request: Request, error: RevokedError) -> Response:
    return openai_errors.response(conflict(_message_of(error), code="key_revoked"))


async def _expired(request: Request, error: ExpiredError) -> Response:
    return openai_errors.response(conflict(_message_of(error), code="key_expired"))


async def _newer_record(request: Request, error: NewerRecordError) -> Response:
    return openai_errors.response(conflict(_message_of(error), code="newer_record"))


async def _wrong(request: Request, error: ValueError) -> Response:
    return openai_errors.response(bad_request(_message_of(error)))


async def _redis_error(request: Request, error: Exception) -> Response:
    cause = rejection_of(error)
    message = Message("admin_redis_silent" if cause is None else "admin_redis_rejects", cause=cause or "")
    return openai_errors.response(unavailable(message))


async def _unexpected_error(request: Request, error: Exception) -> Response:
    return openai_errors.response(server_error(record_of(request).request_id))


def _message_of(error: Exception) -> Message:
    """Return the message of an error of services.gateway.tenancy; that of another error is its text."""
    problem = error.args[0]
    return problem if isinstance(problem, Message) else Message.verbatim(str(problem))
