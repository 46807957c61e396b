"""The keys with which the gateways seal and sign what clients keep for them.

All gateways of a deployment have the same keys, in one file with a key in each line: 32 random bytes in base64. The
first key seals and signs; all keys open and verify. To replace a key without invalidating anything, append the new one,
move it to the first line once every gateway has read it, and remove the old one when nothing that it sealed is in use
any more. The file is read again when it changes.

Each message is encrypted with keys of its own, derived by HKDF from a key of the file, a random salt and the purpose,
so there is no limit on the number of messages of a key (NIST SP 800-38D limits random nonces).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
ID_BYTES: Final = 8
"""The bytes of a key's id, which is derived from the key."""
CHECK_SECONDS: Final = 1.0
"""The least time between two checks of the file."""
_SALT_BYTES: Final = 16
_CIPHER_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_DIGEST_BYTES: Final = 32
_log: Final = logging.getLogger(__name__)


def new_key() -> str:
    """Return a line for the file of keys: a new random key."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


class KeyRing:
    """Seals and opens messages, and signs and verifies them, for one purpose each."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the keys in the file `path`. None: use a random key, which no other gateway has.

        Raises OSError, and ValueError for a file that is not valid. The message has no key.
        """
        self._path: Final = path
        self._stamp: tuple[int, int, int] = _stamp_of(path) if path is not None else (0, 0, 0)
        self._keys = _read(path) if path is not None else _by_id([secrets.token_bytes(KEY_BYTES)])
        self._checked_at = time.monotonic()

    def seal(self, message: bytes, *, purpose: str, context: bytes = b"") -> bytes:
        """Encrypt and authenticate `message`. Only `open` with the same purpose and context returns it."""
        key_id, key = next(iter(self._current().items()))
        salt = secrets.token_bytes(_SALT_BYTES)
        cipher, nonce = _cipher(key, salt, purpose)
        return key_id + salt + cipher.encrypt(nonce, message, key_id + context)

    def open(self, sealed: bytes, *, purpose: str, context: bytes = b"") -> bytes | None:
        """Return the message that was sealed, or None if no key of the ring sealed it for this purpose and context."""
        key_id, rest = sealed[:ID_BYTES], sealed[ID_BYTES:]
        key = self._current().get(key_id)
        if key is None or len(rest) < _SALT_BYTES + _TAG_BYTES:
            return None
        cipher, nonce = _cipher(key, rest[:_SALT_BYTES], purpose)
        try:
            return cipher.decrypt(nonce, rest[_SALT_BYTES:], key_id + context)
        except InvalidTag:
            return None

    def sign(self, message: bytes, *, purpose: str) -> bytes:
        """Return a signature of `message`: the id of the key and an HMAC-SHA256."""
        key_id, key = next(iter(self._current().items()))
        return key_id + _digest(key, message, purpose)

    def verify(self, signature: bytes, message: bytes, *, purpose: str) -> bool:
        """Return whether a key of the ring signed `message` for this purpose."""
        key = self._current().get(signature[:ID_BYTES])
        return key is not None and hmac.compare_digest(signature[ID_BYTES:], _digest(key, message, purpose))

    def _current(self) -> dict[bytes, bytes]:
        """Return the keys by id, of which the first seals, after reading a file that has changed."""
        now = time.monotonic()
        if self._path is None or now < self._checked_at + CHECK_SECONDS:
            return self._keys
        self._checked_at = now
        try:
            stamp = _stamp_of(self._path)
            if stamp != self._stamp:
                self._keys = _read(self._path)
                self._stamp = stamp
                _log.info("read the token keys again", extra={"keys": len(self._keys)})
        except (OSError, ValueError) as error:
            _log.warning("the token keys cannot be read; the previous ones stay", extra={"error": str(error)})
        return self._keys


def _cipher(key: bytes, salt: bytes, purpose: str) -> tuple[AESGCM, bytes]:
    """Return the cipher of one message, and its nonce."""
    derived = HKDF(SHA256(), _CIPHER_KEY_BYTES + _NONCE_BYTES, salt, b"vilix seal " + purpose.encode()).derive(key)
    return AESGCM(derived[:_CIPHER_KEY_BYTES]), derived[_CIPHER_KEY_BYTES:]


def _digest(key: bytes, message: bytes, purpose: str) -> bytes:
    derived = HKDF(SHA256(), _DIGEST_BYTES, None, b"vilix sign " + purpose.encode()).derive(key)
    return hmac.new(derived, message, hashlib.sha256).digest()


def _stamp_of(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)  # noqa: PTH116  # it follows the links by which Kubernetes replaces a file
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: Path) -> dict[bytes, bytes]:
    keys = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            key = base64.b64decode(line.strip(), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"{path}, line {number}: a key must be {KEY_BYTES} bytes in base64")
        keys.append(key)
    if not keys:
        raise ValueError(f"{path} has no key; a line must have {KEY_BYTES} bytes in base64")
    return _by_id(keys)


def _by_id(keys: Sequence[bytes]) -> dict[bytes, bytes]:
    return {hashlib.sha256(b"vilix key id" + key).digest()[:ID_BYTES]: key for key in keys}
