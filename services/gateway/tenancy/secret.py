"""The secret of an API key: `vlx_`, 30 base62 characters and 6 of their CRC-32. Only its SHA-256 is ever stored."""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from typing import Final

from services.gateway.redis.shards import SHARDS, shard_name

PREFIX: Final = "vlx_"
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH: Final = 30
_CHECKSUM_LENGTH: Final = 6


def is_well_formed(secret: str) -> bool:
    """Return whether the checksum is right, so that a mistyped or cut key is rejected without asking Redis."""
    body = secret[len(PREFIX) :]
    if not secret.startswith(PREFIX) or len(body) != _RANDOM_LENGTH + _CHECKSUM_LENGTH:
        return False
    return body[_RANDOM_LENGTH:] == _checksum(body[:_RANDOM_LENGTH])


def draw(shard: str) -> str:
    """Return a new secret whose digest belongs to `shard`. It takes 64 attempts on average."""
    while True:
        body = random_text(_RANDOM_LENGTH)
        secret = PREFIX + body + _checksum(body)
        if shard_of(digest(secret)) == shard:
            return secret


def digest(text: str) -> str:
    """Return the SHA-256 of a text as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def shard_of(hashed: str) -> str:
    """Return the hash tag, s00 to s63, of a digest."""
    return shard_name(int(hashed[:2], 16) % SHARDS)


def random_text(length: int) -> str:
    """Return cryptographically random base62 characters."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
