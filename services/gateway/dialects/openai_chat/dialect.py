"""OpenAI's chat completions as a dialect."""

from __future__ import annotations

from typing import Any, Final

import orjson

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ReadOptions, RenderedPrompt, ResponseHead, StreamEncoder
from services.gateway.dialects.openai_call import OpenAICall
from services.gateway.dialects.openai_chat.request import read_chat
from services.gateway.dialects.openai_chat.response import chat_completion
from services.gateway.dialects.openai_chat.stream import ChunkEncoder
from services.gateway.dialects.openai_dialect import OpenAIDialect
from services.gateway.dialects.openai_dry_run import dry_run_object


class OpenAIChat(OpenAIDialect):
    """POST /chat/completions."""

    id_prefix: Final = "chatcmpl"

    def read(self, body: Any, options: ReadOptions) -> OpenAICall:
        """Read a parsed body. Raises ApiError (400)."""
        return read_chat(body, options)

    def encoder(self, call: OpenAICall, head: ResponseHead) -> StreamEncoder:
        """Return the encoder of one stream."""
        return ChunkEncoder(call, head)

    def response(self, call: OpenAICall, head: ResponseHead, collected: ResponseCollector) -> bytes:
        """Return a complete generation as a JSON document."""
        return orjson.dumps(chat_completion(call, head, collected))

    def prompt(self, call: OpenAICall, prompt: RenderedPrompt) -> bytes:
        """Return the result of a dry run as a JSON document."""
        return orjson.dumps(dry_run_object("chat.completion.dry_run", call, prompt))
