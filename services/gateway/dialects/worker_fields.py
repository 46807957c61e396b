"""Replaces the worker's field names in errors by those of the caller's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.gateway.errors import ApiError

STRUCTURED_OUTPUT: Final = "response_format"
"""The worker's field for structured output, for which an API may have several fields."""


def use_callers_names(error: ApiError, name: Callable[[str], str]) -> None:
    """Replace the worker's field names in an error and its message by the caller's, which `name` returns."""
    field = error.worker_field
    if not field:
        return
    error.worker_field = None
    error.field = name(field) or None
    if error.field is None:
        return
    error.message = error.message.replace(field, error.field)
    if not field.startswith(STRUCTURED_OUTPUT):
        # A message about another field may say that it conflicts with structured output.
        error.message = error.message.replace(STRUCTURED_OUTPUT, name(STRUCTURED_OUTPUT))
