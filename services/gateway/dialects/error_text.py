"""The message of an error, in its caller's language and without keys."""

from __future__ import annotations

from typing import Final, NamedTuple

from services.gateway.errors import ApiError
from services.gateway.i18n.language import ACCEPTED, preferred
from services.runtime.messages.catalogue import ENGLISH
from services.runtime.telemetry import without_keys

MESSAGE_ID_HEADER: Final = "x-error-message-id"
"""The header with the id of an error's message, which is the same in every language and version."""


class ErrorText(NamedTuple):
    """A message and the language that it is in."""

    text: str
    language: str
    message_id: str
    field: str | None
    """The caller's name of the field, for a response that names it beside the message."""

    def headers(self) -> dict[str, str]:
        """Return the headers of a response with this message."""
        return {
            "Content-Language": self.language,
            "Vary": "Accept-Language",
            MESSAGE_ID_HEADER: self.message_id,
        }


def error_text(error: ApiError) -> ErrorText:
    """Return the message for the caller of the request that is being answered."""
    message = error.message
    language = preferred(ACCEPTED.get()) if message.is_translated else ENGLISH
    # An error quotes what it is about, and ends up in its caller's logs. A key may also be part of a field's name.
    field = error.field and without_keys(error.field)
    return ErrorText(without_keys(message.text(language)), language, message.id, field)
