"""Who asks: the key of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from services.gateway.errors import unauthorized
from services.gateway.tenancy.key import Key, Proof
from services.gateway.tenancy.keyring import Keyring
from services.gateway.tenancy.secret import is_well_formed

_HINT: Final = "Send it as the header `Authorization: Bearer KEY`."


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    key: Key
    proof: Proof
    """As what the key was found. Whoever lets it in has it proven that it is still the same: a body may take long."""
    redis_was_away: bool = False
    """Whether the key is one that was remembered, because Redis could not be asked."""


async def authenticate(request: Request, keyring: Keyring) -> Key:
    """The key that the request carries. Raises ApiError: 401 when it carries none that is valid, 503 when nobody knows."""
    return (await look_up(request, keyring)).key


async def look_up(request: Request, keyring: Keyring) -> Caller:
    """Who asks, as Redis knows it now. Raises as `authenticate` does."""
    api_key = _api_key(request)
    found = await keyring.find(api_key)
    if found is None:
        # The key itself is not repeated: an answer may end up in somebody's log.
        problem = "unknown or was revoked" if is_well_formed(api_key) else "mistyped or incomplete"
        raise unauthorized(f"The API key is {problem}. Check it, or ask your operator for a new one. {_HINT}")
    request.state.log["key_id"] = found.key.id
    return Caller(found.key, found.proof, found.redis_was_away)


async def recognise(request: Request, keyring: Keyring) -> Caller:
    """Who asks, without looking up again a key that was valid a moment ago. For `admit`. Raises as `authenticate` does."""
    recalled = keyring.recall(_api_key(request))
    if recalled is None:
        return await look_up(request, keyring)
    key, proof = recalled
    request.state.log["key_id"] = key.id
    return Caller(key, proof)


def _api_key(request: Request) -> str:
    scheme, _, api_key = request.headers.get("authorization", "").partition(" ")
    api_key = api_key.strip(" \t")
    if scheme.lower() != "bearer" or not api_key:
        raise unauthorized(f"You did not provide an API key. {_HINT}")
    return api_key
