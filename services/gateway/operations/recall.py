"""Finds what a request refers to: a previous response, stored items, and reasoning that was sealed for its client."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.dialects.openai_responses.conversation import Recalled
from services.gateway.dialects.openai_responses.response import Seal, id_of_response
from services.gateway.edge.body import RequestBody
from services.gateway.errors import ApiError, bad_request, not_found
from services.gateway.key_ring import KeyRing
from services.gateway.operations.response_state import ResponseState
from services.gateway.tenancy.key import Key
from services.runtime.messages.message import Message

PURPOSE: Final = "reasoning"
VERSION: Final = "1"
MAX_REASONING_BYTES: Final = 2**20
"""The longest reasoning that is sealed for a client, in bytes of UTF-8."""
MAX_TOKEN_LENGTH: Final = MAX_REASONING_BYTES * 4 // 3 + 1024
MAX_TOKENS: Final = 1_024
"""The most tokens of sealed reasoning that one request may have, and that are opened of what it continues."""


async def recalled_for(call: ResponsesCall, key: Key, state: ResponseState, body: RequestBody) -> Recalled:
    """Return what a request refers to, which counts as a part of its body.

    Raises ApiError: 400, 404 for a previous response that the key does not have, 503.
    """
    sealed = dict.fromkeys(call.sealed)
    if len(sealed) > MAX_TOKENS:
        raise bad_request(Message("too_many_sealed_items", field="input", value=len(sealed), limit=MAX_TOKENS))
    meter = _Meter(body, most=state.most_recalled_bytes)
    history: list[dict[str, Any]] = []
    if call.previous_response_id is not None:
        meter.field = "previous_response_id"
        found = await state.find(call.previous_response_id, key.id, with_items=True, charge=meter.charge)
        if found is not None and found.is_lost:
            found = await state.find_current(call.previous_response_id, key.id, with_items=True)
        if found is None:
            raise previous_not_found(call.previous_response_id)
        if not found.has_ended:
            message = Message("previous_response_running", field="previous_response_id", value=found.id)
            raise bad_request(message, code="previous_response_not_ready")
        history = [*found.items, *found.document["output"]]
    references: dict[str, dict[str, Any]] = {}
    meter.field = "input"
    wanted = frozenset(call.references)
    for response_id in dict.fromkeys(map(id_of_response, call.references)):
        found = await state.find(response_id, key.id, charge=meter.charge) if response_id is not None else None
        outputs = found.document["output"] if found is not None else ()
        references.update({item["id"]: item for item in outputs if item["id"] in wanted})
    # The items of a previous response have sealed reasoning, too. The latest is what matters.
    tokens = [item.get("encrypted_content") for item in [*references.values(), *history]]
    recalled = dict.fromkeys(token for token in reversed(tokens) if isinstance(token, str))
    sealed.update(dict.fromkeys(list(recalled)[:MAX_TOKENS]))
    context = _context(key.tenant, call.generate.model)
    opened = await asyncio.to_thread(_open_all, sealed, context, state.key_ring) if sealed else {}
    return Recalled(history, references, opened)


class _Meter:
    """Counts the bytes of what a request refers to."""

    def __init__(self, body: RequestBody, *, most: int) -> None:
        """Count them as a part of `body`, and allow at most `most` of them."""
        self.field = ""
        """The field that refers to what is counted next."""
        self._body: Final = body
        self._most: Final = most
        self._size = 0

    async def charge(self, size: int) -> None:
        """Count `size` bytes before they are unpacked. Raises ApiError (400, 503)."""
        self._size += size
        if self._size > self._most:
            message = Message("recalled_too_large", field=self.field, value=self._size, limit=self._most)
            raise bad_request(message, code="recalled_too_large")
        await self._body.count(size)


def previous_not_found(response_id: str) -> ApiError:
    """Return the error of a previous response that the key does not have."""
    message = Message("previous_response_not_found", field="previous_response_id", value=repr(response_id[:64]))
    return not_found(message, code="previous_response_not_found")


def reasoning_seal(state: ResponseState, tenant: str, model: str) -> Seal:
    """Return the function that seals reasoning for the clients of a tenant and a model."""
    context = _context(tenant, model)

    def seal(text: str) -> str | None:
        message = text.encode()
        if len(message) > MAX_REASONING_BYTES:
            return None
        sealed = state.key_ring.seal(message, purpose=PURPOSE, context=context)
        return base64.urlsafe_b64encode(sealed).decode()

    return seal


def _open(token: str, context: bytes, key_ring: KeyRing) -> str | None:
    if len(token) > MAX_TOKEN_LENGTH:
        return None
    try:
        sealed = base64.urlsafe_b64decode(token)
    except (binascii.Error, ValueError):
        return None
    message = key_ring.open(sealed, purpose=PURPOSE, context=context)
    return None if message is None else message.decode()


def _open_all(tokens: Iterable[str], context: bytes, key_ring: KeyRing) -> dict[str, str]:
    opened = {token: _open(token, context, key_ring) for token in tokens}
    return {token: text for token, text in opened.items() if text is not None}


def _context(tenant: str, model: str) -> bytes:
    return "\0".join((VERSION, tenant, model)).encode()
