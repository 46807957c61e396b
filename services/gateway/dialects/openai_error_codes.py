"""The field `code` of errors in OpenAI's format. Every error has one: its own, that of its message, or of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.gateway.errors import ApiError, ErrorKind
from services.runtime.messages.message import Message, Parameter

_BY_MESSAGE: Final = {
    "body_not_json": "invalid_json",
    "body_not_object": "invalid_type",
    "wrong_type": "invalid_type",
    "not_like_first_entry": "invalid_type",
    "field_missing": "missing_required_parameter",
    "choice_missing": "missing_required_parameter",
    "content_missing": "missing_required_parameter",
    "prompt_missing": "missing_required_parameter",
    "conversation_empty": "missing_required_parameter",
    "prompt_and_messages_missing": "missing_required_parameter",
    "ignored_fields_rejected": "unknown_parameter",
    "list_empty": "empty_array",
    "text_empty": "empty_string",
    "part_empty": "empty_string",
    "text_too_long": "string_above_max_length",
    "too_many_entries": "array_above_max_length",
    "image_format_unknown": "invalid_image_format",
    "image_not_data_url": "invalid_image_url",
    "images_not_fetched": "invalid_image_url",
    "url_not_valid": "invalid_image_url",
    "url_not_https": "invalid_image_url",
    "url_not_printable": "invalid_image_url",
    "url_host_not_allowed": "invalid_image_url",
    "image_not_base64": "invalid_base64_image",
    "base64_not_valid": "invalid_base64_image",
    "image_over_bytes": "image_file_too_large",
    "images_over_bytes": "image_file_too_large",
    "fetched_images_over_bytes": "image_file_too_large",
    "image_truncated": "image_parse_error",
    "image_damaged": "image_parse_error",
    "image_part_damaged": "image_parse_error",
}
"""OpenAI's codes."""
_BY_KIND: Final = {
    ErrorKind.INVALID_REQUEST: "invalid_request",
    ErrorKind.AUTHENTICATION: "invalid_api_key",
    ErrorKind.PERMISSION: "permission_denied",
    ErrorKind.NOT_FOUND: "not_found",
    ErrorKind.CONFLICT: "conflict",
    ErrorKind.TOO_LARGE: "request_too_large",
    ErrorKind.RATE_LIMIT: "rate_limit_exceeded",
    ErrorKind.QUOTA: "insufficient_quota",
    ErrorKind.UNAVAILABLE: "service_unavailable",
    ErrorKind.TIMEOUT: "timeout",
    ErrorKind.SERVER_ERROR: "server_error",
}


def code_of(error: ApiError) -> str:
    """Return the code of an error."""
    message = error.message
    if error.code is not None:
        return error.code
    if error.kind is not ErrorKind.INVALID_REQUEST:
        return _BY_KIND[error.kind]
    if message.id in _BY_MESSAGE:
        return _BY_MESSAGE[message.id]
    return _code_of_range(message) or ("invalid_value" if message.field else _BY_KIND[error.kind])


def _code_of_range(message: Message) -> str | None:
    """Return OpenAI's code of a number that is too large or too small, or None for another message."""
    value, least, most = (_number(message.parameters, name) for name in ("value", "least", "most"))
    if message.id != "out_of_range" or value is None:
        return None
    kind = "integer" if value.is_integer() else "decimal"
    if most is not None and value > most:
        return f"{kind}_above_max_value"
    return f"{kind}_below_min_value" if least is not None and value < least else None


def _number(parameters: Mapping[str, Parameter], name: str) -> float | None:
    try:
        return float(parameters[name])
    except (KeyError, ValueError):
        return None
