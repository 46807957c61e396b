"""The parts that streams of OpenAI's chat and completions share: options, comments, errors and the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.gateway.dialects import openai_errors, sse
from services.gateway.dialects.error_text import MESSAGE_ID_HEADER
from services.gateway.dialects.openai_request import OpenAIRequest
from services.gateway.errors import ApiError, bad_request
from services.runtime.messages.message import Message

_DONE: Final = sse.event(b"[DONE]")
_KEEP_ALIVE: Final = sse.comment("keep-alive")


@dataclass(frozen=True, slots=True)
class Streaming:
    """The fields `stream` and `stream_options`."""

    stream: bool
    include_usage: bool = False
    continuous_usage: bool = False


def read_streaming(request: OpenAIRequest) -> Streaming:
    """Return whether and how to stream. Raises ApiError for options without a stream."""
    stream, options = request.stream or False, request.stream_options
    if options is None:
        return Streaming(stream)
    if not stream:
        raise bad_request(Message("stream_options_without_stream", field="stream_options", other_field="stream"))
    return Streaming(stream, options.include_usage or False, options.continuous_usage_stats or False)


class OpenAIStream:
    """Base of the encoders: the events that do not depend on what was sent before."""

    def end(self) -> bytes:
        """Return the event `[DONE]`."""
        return _DONE

    def error(self, error: ApiError) -> bytes:
        """Return an event with the error's JSON document, after a comment with the id of its message."""
        return sse.comment(f"{MESSAGE_ID_HEADER} {error.message.id}") + sse.event(openai_errors.body(error))

    def keep_alive(self) -> bytes:
        """Return an SSE comment."""
        return _KEEP_ALIVE

    def queued(self, position: int) -> bytes:
        """Return an SSE comment with the position in the queue."""
        return sse.comment(f"queued {position}")
