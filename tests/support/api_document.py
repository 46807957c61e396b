"""The operations of the API's document, and checks of bodies against them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.gateway.dialects.operation_document import ContentDocument, OperationDocument
from services.gateway.openapi import OPERATIONS

BY_PATH: Final[dict[str, OperationDocument]] = {operation.path: operation for operation in OPERATIONS}


def content(operation: OperationDocument, media_type: str = "application/json") -> ContentDocument:
    """Return the content of the operation's response in one media type."""
    return next(content for content in operation.response.contents if content.media_type == media_type)


def check(value: Any, content: ContentDocument) -> None:
    """Raise AssertionError for a body that has a field too many, too few or of another type than its document."""
    problems: list[str] = []
    for model in content.models:
        try:
            msgspec.convert(value, model)
        except msgspec.ValidationError as error:
            problems.append(f"{model.__name__}: {error}")
        else:
            return
    raise AssertionError(f"{problems}: {value}")


def requests(path: str) -> dict[str, Any]:
    """Return the examples of an operation's request, by name."""
    request = BY_PATH[path].request
    assert request is not None
    return dict(request.examples)


def key_headers(path: str, key: str) -> dict[str, str]:
    """Return the header in which requests to a path carry a key."""
    header = BY_PATH[path].key_header
    return {header.name: f"{header.scheme} {key}".strip()}
