"""Receipts of requests in the admin API, for support."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from services.gateway.endpoints import admin_examples
from services.gateway.errors import not_found
from services.gateway.quoting import shown
from services.gateway.redis.link import RedisLink
from services.gateway.tenancy import receipts
from services.runtime.messages.message import Message

router = APIRouter(prefix="/requests", tags=["requests"])


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
    """Show the receipt of a request of the last day. Of several requests with one id, it is the latest."""
    link: RedisLink = request.app.state.link
    redis: Redis = link.redis
    found = await receipts.find_of_any(redis, request_id, name_or_id=key)
    if found is None:
        raise not_found(Message("request_not_found_anywhere", value=shown(request_id)), code="request_not_found")
    owner, receipt = found
    return FoundReceipt(key=owner.id, key_name=owner.name, receipt=receipt)
