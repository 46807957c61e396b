"""Authentication: the key that a request carries."""

from __future__ import annotations

from typing import Final

from services.gateway.errors import ApiError, unauthorized
from services.gateway.tenancy.key_cache import Caller, KeyCache
from services.gateway.tenancy.secret import is_well_formed

_HINT: Final = "Send it as the header `Authorization: Bearer KEY`."


async def authenticate(api_key: str | None, key_cache: KeyCache) -> Caller:
    """Look up the key that a request carries, and return the caller.

    Raises ApiError: 401 for a key that is missing or not valid, 503 if it cannot be checked.
    """
    if api_key is None:
        raise _missing()
    caller = await key_cache.find(api_key)
    if caller is None:
        raise _invalid(api_key)
    return caller


async def recognise(api_key: str | None, key_cache: KeyCache) -> Caller:
    """Return the caller, from memory if the key was valid a moment ago: admission checks its fingerprint.

    Raises as `authenticate` does.
    """
    if api_key is None:
        raise _missing()
    return key_cache.recall(api_key) or await authenticate(api_key, key_cache)


def _missing() -> ApiError:
    return unauthorized(f"You did not provide an API key. {_HINT}")


def _invalid(api_key: str) -> ApiError:
    # The message does not repeat the key, because clients log error messages.
    problem = "unknown or was revoked" if is_well_formed(api_key) else "mistyped or incomplete"
    return unauthorized(f"The API key is {problem}. Check it, or ask your operator for a new one. {_HINT}")
