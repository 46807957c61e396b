"""The aliases of models in the admin API."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis

from services.gateway.endpoints import admin_examples
from services.gateway.errors import not_found
from services.gateway.redis.link import RedisLink
from services.gateway.routing import aliases
from services.runtime.messages.message import Message


class AliasTarget(BaseModel):
    """The model of an alias."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=aliases.MOST_CHARACTERS, description="The id of a model.")


Alias = Annotated[str, Path(json_schema_extra={"pattern": f"^{aliases.PATTERN.pattern}$"})]

router: Final = APIRouter(prefix="/aliases", tags=["aliases"])


@router.get("", responses=admin_examples.ALIASES)
async def list_aliases(request: Request) -> dict[str, str]:
    """List the aliases that were created here, with their models. Those of the settings are not among them."""
    return await aliases.read(_redis_of(request))


@router.put("/{alias:path}", responses=admin_examples.ALIASES)
async def put_alias(
    request: Request, alias: Alias, target: Annotated[AliasTarget, Body(openapi_examples=admin_examples.ALIAS)]
) -> dict[str, str]:
    """Create or replace an alias, which every gateway knows after a second. Keys, limits and usage name the model."""
    known: aliases.Aliases = request.app.state.aliases
    await aliases.save(_redis_of(request), alias, target.model, configured=known.configured)
    return await aliases.read(_redis_of(request))


@router.delete("/{alias:path}", responses=admin_examples.ALIASES)
async def delete_alias(request: Request, alias: Alias) -> dict[str, str]:
    """Delete an alias."""
    if not await aliases.delete(_redis_of(request), alias):
        raise not_found(Message("alias_not_found", value=repr(alias[:80])), code="alias_not_found")
    return await aliases.read(_redis_of(request))


def _redis_of(request: Request) -> Redis:
    link: RedisLink = request.app.state.link
    return link.redis
