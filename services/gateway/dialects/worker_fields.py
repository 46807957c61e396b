"""Replaces the worker's field names in errors by those of the caller's API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from services.gateway.errors import ApiError

STRUCTURED_OUTPUT: Final = "response_format"
"""The worker's field for structured output, for which an API may have several fields."""


def use_callers_names(error: ApiError, name: Callable[[str], str]) -> None:
    """Replace a worker's names of fields in an error by the caller's, which `name` returns for a path."""
    if not error.has_worker_fields:
        return
    error.has_worker_fields = False
    if error.message.field is not None:
        error.field = name(error.message.field) or None
    error.message = error.message.with_fields(name)


@contextmanager
def callers_names(name: Callable[[str], str]) -> Iterator[None]:
    """Replace a worker's names of fields in an ApiError that the block raises."""
    try:
        yield
    except ApiError as error:
        use_callers_names(error, name)
        raise
