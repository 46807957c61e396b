"""Checks the size of a worker's request and its number of elements before it enters a shared connection."""

from __future__ import annotations

from typing import Final, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message as ProtoMessage

from services.gateway.errors import too_large
from services.gateway.routing.failures import api_error
from services.runtime.element_limit import LEAST_BYTES, MAX_ELEMENTS, TooManyElementsError, check_elements
from services.runtime.messages.message import Message

ENVELOPE_BYTES: Final = 64 * 2**10
"""More than the bytes that the enclosing messages add to a request."""
ENVELOPE_ELEMENTS: Final = 1024
"""More than the elements that the enclosing messages and fetched images add to a request."""


def check_size(size: int, max_message_bytes: int) -> None:
    """Raise ApiError (413) if a translated request of `size` bytes, images included, does not fit into a message."""
    most = max_message_bytes - ENVELOPE_BYTES
    if size > most:
        raise too_large(Message("request_too_large_for_worker", value=size, limit=most))


def check_number_of_elements(request: ProtoMessage) -> None:
    """Raise ApiError (400) if a translated request has more elements than a worker accepts."""
    most = MAX_ELEMENTS - ENVELOPE_ELEMENTS
    if request.ByteSize() > most * LEAST_BYTES:
        try:
            check_elements(request.SerializeToString(), cast("Descriptor", request.DESCRIPTOR), most=most)
        except TooManyElementsError as failure:
            raise api_error(failure, request_id="") from None
