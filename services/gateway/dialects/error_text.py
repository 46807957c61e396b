"""The message of an error, in its caller's language and without keys."""

from __future__ import annotations

from typing import Final, NamedTuple

from services.gateway.errors import ApiError
from services.gateway.i18n.language import ACCEPTED, preferred, translated
from services.runtime.messages.catalogue import ENGLISH
from services.runtime.telemetry import without_keys

MESSAGE_ID_HEADER: Final = "x-error-message-id"
"""The header with the id of an error's message, which is the same in every language and version."""


class ErrorText(NamedTuple):
    """A message and the language that it is in."""

    text: str
    language: str
    message_id: str | None
    """None for a message that is in no catalogue."""

    def headers(self) -> dict[str, str]:
        """Return the headers of a response with this message."""
        of_message = {MESSAGE_ID_HEADER: self.message_id} if self.message_id is not None else {}
        return {"Content-Language": self.language, "Vary": "Accept-Language", **of_message}


def error_text(error: ApiError) -> ErrorText:
    """Return the message of an error in the language of the current request."""
    message, language = error.message, preferred(ACCEPTED.get())
    # Messages quote requests and end up in callers' logs, so keys are removed.
    if message.is_translated:
        return ErrorText(without_keys(message.text(language)), language, message.id)
    english = without_keys(str(message))
    text = translated(english, language)
    return ErrorText(english, ENGLISH, None) if text is None else ErrorText(text, language, None)
