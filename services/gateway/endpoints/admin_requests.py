"""Receipts of requests in the admin API, for support."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from services.gateway.endpoints import admin_examples
from services.gateway.errors import conflict, not_found
from services.gateway.quoting import shown
from services.gateway.redis.link import RedisLink
from services.gateway.tenancy import receipts
from services.gateway.tenancy.key import Key
from services.runtime.messages.message import Message

router = APIRouter(prefix="/requests", tags=["requests"])
_MOST_KEYS: Final = 10


class FoundReceipt(BaseModel):
    """A receipt, and the key that it belongs to."""

    key: str = Field(description="The id of the key that made the request.")
    key_name: str = Field(description="The name of that key.")
    receipt: dict[str, Any] = Field(
        description="The receipt, as `GET /requests/{id}` of the public API describes it, and the `addresses` of the "
        "workers that were called, oldest first."
    )


@router.get("/{request_id}", responses=admin_examples.RECEIPT)
async def show_request(
    request: Request,
    request_id: Annotated[str, Path(max_length=128, description="The id of the request: its header `x-request-id`.")],
    key: Annotated[
        str | None,
        Query(
            max_length=256, description="The name or id of the key; of a revoked one its id. Default: any valid key."
        ),
    ] = None,
) -> FoundReceipt:
    """Show the receipt of a request of the last day.

    Of several requests of a key with one id, it is the latest. If several keys have requests with it, the answer is
    409, and names these keys.
    """
    link: RedisLink = request.app.state.link
    redis: Redis = link.redis
    try:
        found = await receipts.find_of_any(redis, request_id, name_or_id=key)
    except receipts.SharedIdError as error:
        message = Message("request_of_several_keys", field="key", value=shown(request_id), keys=_names(error.owners))
        raise conflict(message, code="request_of_several_keys") from None
    if found is None:
        raise not_found(Message("request_not_found_anywhere", value=shown(request_id)), code="request_not_found")
    owner, receipt = found
    return FoundReceipt(key=owner.id, key_name=owner.name, receipt=receipt)


def _names(owners: Sequence[Key]) -> str:
    """Return the names of keys, with their ids, cut to ten keys."""
    names = ", ".join(f"{owner.name} ({owner.id})" for owner in owners[:_MOST_KEYS])
    return names if len(owners) <= _MOST_KEYS else f"{names}, …"
