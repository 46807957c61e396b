"""The parts that streams of OpenAI's chat and completions share: options, comments, errors and the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.gateway.dialects import openai_errors, sse
from services.gateway.dialects.json_fields import Fields
from services.gateway.errors import ApiError, bad_request

_DONE: Final = sse.event(b"[DONE]")
_KEEP_ALIVE: Final = sse.comment("keep-alive")


@dataclass(frozen=True, slots=True)
class Streaming:
    """The fields `stream` and `stream_options`."""

    stream: bool
    include_usage: bool = False
    continuous_usage: bool = False


def read_streaming(fields: Fields) -> Streaming:
    """Read `stream` and `stream_options`. Raises ApiError (400)."""
    stream = fields.boolean("stream") or False
    options = fields.object("stream_options")
    if options is None:
        return Streaming(stream)
    if not stream:
        raise bad_request("stream_options", "stream_options is only allowed when stream is true")
    include_usage = options.boolean("include_usage") or False
    continuous_usage = options.boolean("continuous_usage_stats") or False
    options.granted("include_obfuscation", False)
    return Streaming(stream, include_usage, continuous_usage)


class OpenAIStream:
    """Base of the encoders: the events that do not depend on what was sent before."""

    def end(self) -> bytes:
        """Return the event `[DONE]`."""
        return _DONE

    def error(self, error: ApiError) -> bytes:
        """Return an event with the error's JSON document."""
        return sse.event(openai_errors.body(error))

    def keep_alive(self) -> bytes:
        """Return an SSE comment."""
        return _KEEP_ALIVE

    def queued(self, position: int) -> bytes:
        """Return an SSE comment with the position in the queue."""
        return sse.comment(f"queued {position}")
