"""Messages of errors inside Triton, which know no catalogue."""

from __future__ import annotations

from services.runtime.messages.message import Message
from services.worker.triton_kit.request_error import RequestError


def message_of(error: RequestError) -> Message:
    """Return the message of which an error inside Triton has the id and the parameters."""
    return Message(error.message_id, **error.parameters)
