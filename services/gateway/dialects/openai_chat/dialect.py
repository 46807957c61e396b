"""OpenAI's chat completions as a dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ReadOptions, RenderedPrompt, ResponseHead, StreamEncoder
from services.gateway.dialects.openai_chat.request import ChatCall, read_chat
from services.gateway.dialects.openai_chat.response import chat_completion
from services.gateway.dialects.openai_chat.stream import ChunkEncoder
from services.gateway.dialects.openai_dialect import OpenAIDialect
from services.gateway.dialects.openai_dry_run import dry_run_object

REASONING_FIELDS: Final = ("reasoning_content",)


class OpenAIChat(OpenAIDialect):
    """POST /chat/completions."""

    id_prefix: Final = "chatcmpl-"

    def __init__(self, *, reasoning_fields: Sequence[str] = REASONING_FIELDS) -> None:
        """Send reasoning in each of `reasoning_fields`."""
        self._reasoning_fields: Final = tuple(reasoning_fields)

    def read(self, body: Any, options: ReadOptions) -> ChatCall:
        """Read a parsed body. Raises ApiError (400)."""
        return read_chat(body, options)

    def encoder(self, call: ChatCall, head: ResponseHead) -> StreamEncoder:
        """Return the encoder of one stream."""
        return ChunkEncoder(call, head, reasoning_fields=self._reasoning_fields)

    def response(self, call: ChatCall, head: ResponseHead, collected: ResponseCollector) -> bytes:
        """Return a complete generation as a JSON document."""
        completion = chat_completion(call, head, collected, reasoning_fields=self._reasoning_fields)
        return orjson.dumps(completion)

    def prompt(self, call: ChatCall, prompt: RenderedPrompt) -> bytes:
        """Return the result of a dry run as a JSON document."""
        return orjson.dumps(dry_run_object("chat.completion.dry_run", call, prompt))
