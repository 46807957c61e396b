"""Checks what a worker is asked, before it enters a connection that other requests share: its size, and its elements."""

from __future__ import annotations

from typing import Final, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services.gateway.errors import too_large
from services.gateway.routing.failures import api_error
from services.runtime.element_limit import LEAST_BYTES, MAX_ELEMENTS, TooManyElementsError, check_elements

ENVELOPE_BYTES: Final = 64 * 2**10
"""More than the messages add in which a request is sent."""
ENVELOPE_ELEMENTS: Final = 1024
"""The most elements that those messages add, and the images that are fetched."""


def check_size(size: int, max_message_bytes: int) -> None:
    """Raise ApiError (413) for a translated request of so many bytes, its images included, that no message has room for."""
    most = max_message_bytes - ENVELOPE_BYTES
    if size > most:
        raise too_large(
            f"The request has {size} bytes, its images included; at most {most} can be given to a model. Shorten it, or "
            "send fewer or smaller images."
        )


def check_number_of_elements(request: Message) -> None:
    """Raise ApiError (400) for a translated request with more elements than a worker takes."""
    most = MAX_ELEMENTS - ENVELOPE_ELEMENTS
    if request.ByteSize() > most * LEAST_BYTES:
        try:
            check_elements(request.SerializeToString(), cast("Descriptor", request.DESCRIPTOR), most=most)
        except TooManyElementsError as failure:
            raise api_error(failure, request_id="") from None
