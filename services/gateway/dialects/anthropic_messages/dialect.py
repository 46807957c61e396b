"""Anthropic's Messages API as dialects: messages, and the count of a prompt's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from services.gateway.credential import BEARER, Credential, KeyHeader
from services.gateway.dialects.anthropic_messages import errors
from services.gateway.dialects.anthropic_messages.call import MessagesCall
from services.gateway.dialects.anthropic_messages.limits import limit_headers
from services.gateway.dialects.anthropic_messages.request import read_count_tokens, read_messages
from services.gateway.dialects.anthropic_messages.response import whole_message
from services.gateway.dialects.anthropic_messages.stream import MessageStream
from services.gateway.dialects.anthropic_messages.thinking import ThinkingSignatures
from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ErrorReply, ReadOptions, RenderedPrompt, ResponseHead, StreamEncoder
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits

KEY_HEADER: Final = KeyHeader("x-api-key")
_OURS: Final = "vlx_"
"""The beginning of this service's keys."""


def read_credential(headers: Mapping[str, str]) -> Credential:
    """Return the key of `x-api-key` or of `Authorization: Bearer`.

    Clients may send both, one of them with a credential of another service.
    """
    credentials = [header.read(headers) for header in (KEY_HEADER, BEARER)]
    ours = (credential for credential in credentials if credential.secret.startswith(_OURS))
    some = (credential for credential in credentials if credential.secret)
    return next(ours, None) or next(some, credentials[0])


class AnthropicDialect:
    """Base of the dialects of Anthropic's API."""

    def __init__(self, signatures: ThinkingSignatures) -> None:
        """Sign thinking, and recognize it, with `signatures`."""
        self._signatures: Final = signatures

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """Return the key, from either header."""
        return read_credential(headers)

    def error(self, error: ApiError, *, request_id: str) -> ErrorReply:
        """Render an error."""
        return errors.render(error, request_id=request_id)

    def response_headers(self, limits: RateLimits, *, request_id: str) -> dict[str, str]:
        """Return `request-id` and `anthropic-ratelimit-*`."""
        return {errors.REQUEST_ID_HEADER: request_id, **limit_headers(limits)}

    def prompt(self, call: MessagesCall, prompt: RenderedPrompt) -> bytes:
        """Return the number of a prompt's tokens as a JSON document."""
        return orjson.dumps({"input_tokens": prompt.response.prompt_tokens})


class AnthropicMessages(AnthropicDialect):
    """POST /messages."""

    id_prefix: Final = "msg_"

    def read(self, body: Any, options: ReadOptions) -> MessagesCall:
        """Read a parsed body. Raises ApiError (400)."""
        return read_messages(body, options, self._signatures)

    def encoder(self, call: MessagesCall, head: ResponseHead) -> StreamEncoder:
        """Return the encoder of one stream."""
        return MessageStream(call, head, self._signatures)

    def response(self, call: MessagesCall, head: ResponseHead, collected: ResponseCollector) -> bytes:
        """Return a complete generation as a JSON document."""
        return orjson.dumps(whole_message(call, head, collected, self._signatures))


class CountTokens(AnthropicDialect):
    """POST /messages/count_tokens."""

    def read(self, body: Any, options: ReadOptions) -> MessagesCall:
        """Read a parsed body. Raises ApiError (400)."""
        return read_count_tokens(body, options, self._signatures)
