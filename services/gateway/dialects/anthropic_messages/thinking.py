"""Signs the thinking of a model, so that only what it thought itself returns into its prompts.

A signature is an HMAC over the tenant, the model and the text. If the text is hidden from the client, the signature is
the sealed text itself: clients return thinking and signature unchanged. All keys of a tenant can return it.
"""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from services.gateway.errors import bad_request
from services.gateway.key_ring import KeyRing
from services.runtime.messages.message import Message

MAX_THINKING_BYTES: Final = 2**20
"""The longest text that a signature carries, in bytes of UTF-8."""
SHOWN: Final = "vt3."
"""The beginning of a signature of text that is beside it. Signatures of earlier forms name no tenant."""
HIDDEN: Final = "vt4."
"""The beginning of a signature that carries its text."""
MOST_RATIO: Final = 16
"""The most bytes of text for which a byte of a signature stands. A language is far from it. More would let a small
body, which is read on the event loop, stand for megabytes that nothing counts."""
PURPOSE: Final = "thinking"
_MAX_LENGTH: Final = MAX_THINKING_BYTES * 4 // 3 + 1024
"""More characters than a signature has: base64 of compressed text and of what sealing adds."""


class ThinkingSignatures:
    """Writes signatures, and makes what reads them."""

    def __init__(self, key_ring: KeyRing, *, max_bytes: int) -> None:
        """Use the keys of `key_ring`. The signatures of one request may carry `max_bytes` of text."""
        self._key_ring: Final = key_ring
        self._max_bytes: Final = max_bytes

    def write(self, tenant: str, model: str, thinking: str, *, is_hidden: bool) -> str:
        """Return the signature of thinking; an empty one for hidden text that is too long to be carried."""
        text, context = thinking.encode(), context_of(tenant, model)
        if not is_hidden:
            return SHOWN + urlsafe_b64encode(self._key_ring.sign(_signed(context, text), purpose=PURPOSE)).decode()
        if len(text) > MAX_THINKING_BYTES:
            return ""
        sealed = self._key_ring.seal(_packed(text), purpose=PURPOSE, context=context)
        return HIDDEN + urlsafe_b64encode(sealed).decode()

    def reader(self, tenant: str, model: str) -> SignatureReader:
        """Return what reads the signatures of one request."""
        return SignatureReader(self._key_ring, context_of(tenant, model), max_bytes=self._max_bytes)


class SignatureReader:
    """Reads the signatures of one request, and bounds the text that they carry, which few bytes may stand for."""

    def __init__(self, key_ring: KeyRing, context: bytes, *, max_bytes: int) -> None:
        """Accept what `key_ring` signed in `context`, and at most `max_bytes` of text that signatures carry."""
        self._key_ring: Final = key_ring
        self._context: Final = context
        self._max_bytes: Final = max_bytes
        self._bytes = 0
        """The bytes of text that the signatures have carried so far."""

    def read(self, thinking: str, signature: str, *, field: str) -> str | None:
        """Return the thinking that a signature proves to be the model's own; an empty text for any other.

        Return None for a signature that carries too long a text. `field` is the path of the block.

        Raises:
            ApiError: The signatures so far carry too much text (400).
        """
        form, rest = signature[: len(SHOWN)], signature[len(SHOWN) :]
        if form not in (SHOWN, HIDDEN) or len(rest) > _MAX_LENGTH:
            return ""
        try:
            data = urlsafe_b64decode(rest)
        except ValueError:
            return ""
        if form == SHOWN:
            signed = _signed(self._context, thinking.encode())
            return thinking if self._key_ring.verify(data, signed, purpose=PURPOSE) else ""
        packed = self._key_ring.open(data, purpose=PURPOSE, context=self._context)
        return "" if packed is None else self._unpack(packed, field)

    def _unpack(self, packed: bytes, field: str) -> str | None:
        most = min(MAX_THINKING_BYTES, MOST_RATIO * len(packed))
        # One more byte than is allowed shows that there is more, and nothing beyond it is unpacked.
        text = zlib.decompressobj().decompress(packed, most + 1)
        self._bytes += len(text)
        if self._bytes > self._max_bytes:
            raise bad_request(Message("thinking_too_large", field=field, limit=self._max_bytes))
        return None if len(text) > most else text.decode()


def context_of(tenant: str, model: str) -> bytes:
    """Return what a signature is bound to."""
    return f"{tenant}\0{model}".encode()


def _packed(text: bytes) -> bytes:
    """Compress a text, unless it consists of repetitions that are shorter than MOST_RATIO allows."""
    compressed = zlib.compress(text)
    return compressed if len(text) <= MOST_RATIO * len(compressed) else zlib.compress(text, 0)


def _signed(context: bytes, text: bytes) -> bytes:
    return context + b"\0" + text
