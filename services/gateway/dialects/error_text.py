"""The message of an error, in its caller's language and without keys."""

from __future__ import annotations

from typing import NamedTuple

from services.gateway.errors import ApiError
from services.gateway.i18n.language import ACCEPTED, preferred, translated
from services.runtime.telemetry import without_keys


class ErrorText(NamedTuple):
    """A message and the language that it is in."""

    text: str
    language: str

    def headers(self) -> dict[str, str]:
        """Return the headers of a response with this message."""
        return {"Content-Language": self.language, "Vary": "Accept-Language"}


def error_text(error: ApiError) -> ErrorText:
    """Return the message for the caller of the request that is being answered."""
    # An error quotes what it is about, and ends up in its caller's logs.
    message, language = without_keys(error.message), preferred(ACCEPTED.get())
    text = translated(message, language)
    return ErrorText(message, "en") if text is None else ErrorText(text, language)
