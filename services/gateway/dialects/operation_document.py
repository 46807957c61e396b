"""Operations in the API's document. Every dialect describes its own; services.gateway.openapi joins them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from services.gateway.credential import AZURE, BEARER, KeyHeader


class LocalizedText(NamedTuple):
    """A text in both languages of the document."""

    en: str
    fa: str


@dataclass(frozen=True, kw_only=True)
class HeaderDocument:
    """A header of responses."""

    component: str
    """Its name among the document's components."""
    description: LocalizedText
    schema: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ContentDocument:
    """A body in one media type."""

    models: tuple[Any, ...]
    """The types of which it has one; of a stream, the types of its events' data."""
    examples: Mapping[str, Any]
    """Bodies (of a stream: events' data), by names that say what they show."""
    media_type: str = "application/json"


@dataclass(frozen=True, kw_only=True)
class ResponseDocument:
    """A response."""

    description: LocalizedText
    contents: tuple[ContentDocument, ...]
    headers: Mapping[str, HeaderDocument] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ErrorDocument(ResponseDocument):
    """The errors of an API, which all have one shape."""

    component: str
    """Their name among the document's components."""


@dataclass(frozen=True, kw_only=True)
class PathParameter:
    """A part of the path."""

    name: str
    description: LocalizedText
    example: str


@dataclass(frozen=True, kw_only=True)
class OperationDocument:
    """An operation."""

    method: Literal["delete", "get", "post"]
    path: str
    id: str
    summary: LocalizedText
    response: ResponseDocument
    """The response of status 200."""
    errors: Mapping[str, ErrorDocument]
    """By status, such as `4XX`."""
    description: LocalizedText | None = None
    request: ContentDocument | None = None
    parameters: tuple[PathParameter, ...] = ()
    key_header: KeyHeader = BEARER
    """The header in which its requests carry the API key."""
    other_key_header: KeyHeader = AZURE
    """Another header that may carry it instead."""
