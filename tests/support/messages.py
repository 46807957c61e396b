"""Messages of errors: of responses, and of errors inside Triton, which know no catalogue."""

from __future__ import annotations

import httpx

from services.gateway.dialects.error_text import MESSAGE_ID_HEADER
from services.runtime.messages.message import Message
from services.worker.triton_kit.request_error import RequestError


def message_id_of(response: httpx.Response) -> str | None:
    """Return the id of the message of an error; None for a response without one."""
    return response.headers.get(MESSAGE_ID_HEADER)


def message_of(error: RequestError) -> Message:
    """Return the message of which an error inside Triton has the id and the parameters."""
    return Message(error.message_id, **error.parameters)
