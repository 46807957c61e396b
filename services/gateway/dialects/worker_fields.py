"""Replaces the worker's field names in errors by those of the caller's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.gateway.errors import ApiError
from services.runtime.messages.message import Message

STRUCTURED_OUTPUT: Final = "response_format"
"""The worker's field for structured output, for which an API may have several fields."""


def use_callers_names(error: ApiError, name: Callable[[str], str]) -> None:
    """Replace a worker's names of fields in an error by the caller's, which `name` returns for a path."""
    if not error.has_worker_fields:
        return
    error.has_worker_fields = False
    field = error.message.field
    if field is not None:
        error.field = name(field) or None
    if not error.message.is_translated and field and not field.startswith(STRUCTURED_OUTPUT):
        text = str(error.message).replace(STRUCTURED_OUTPUT, name(STRUCTURED_OUTPUT))
        error.message = Message(error.message.id, **{**error.message.parameters, "text": text})
    error.message = error.message.with_fields(name)
