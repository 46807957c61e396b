"""Authentication: the key that a request carries."""

from __future__ import annotations

from services.gateway.credential import Credential, KeyHeader
from services.gateway.errors import ApiError, unauthorized
from services.gateway.tenancy.key_cache import Caller, KeyCache
from services.gateway.tenancy.secret import is_well_formed
from services.runtime.messages.message import Message


async def authenticate(credential: Credential, key_cache: KeyCache) -> Caller:
    """Look up the key that a request carries, and return the caller.

    Raises ApiError: 401 for a key that is missing or not valid, 503 if it cannot be checked.
    """
    if not credential.secret:
        raise _missing(credential.header)
    caller = await key_cache.find(credential)
    if caller is None:
        raise _invalid(credential)
    return caller


async def authenticate_from_cache(credential: Credential, key_cache: KeyCache) -> Caller:
    """Return the caller as `authenticate` does, but without asking Redis if the key was valid a moment ago.

    The key may have been revoked since. Admission checks its fingerprint in the script that reserves the request's
    share, so that a request needs one command of Redis instead of two.
    """
    return key_cache.recall(credential) or await authenticate(credential, key_cache)


def _missing(header: KeyHeader) -> ApiError:
    return unauthorized(Message("api_key_missing", header=header.example), challenge=header.challenge)


def _invalid(credential: Credential) -> ApiError:
    # The message does not repeat the key, because clients log error messages.
    header = credential.header
    is_whole = is_well_formed(credential.secret)
    message = Message("api_key_unknown" if is_whole else "api_key_incomplete", header=header.example)
    return unauthorized(message, challenge=header.challenge)
