"""OpenAI's chat completions as a dialect."""

from __future__ import annotations

from typing import Any, Final

import orjson

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ReadOptions, RenderedPrompt, ResponseHead, StreamEncoder
from services.gateway.dialects.openai_call import OpenAICall
from services.gateway.dialects.openai_chat.request import read_chat
from services.gateway.dialects.openai_chat.stream import ChunkEncoder
from services.gateway.dialects.openai_chat.whole import chat_completion
from services.gateway.dialects.openai_dialect import OpenAIDialect
from services.gateway.dialects.openai_dry_run import dry_run_object


class OpenAIChat(OpenAIDialect):
    """POST /chat/completions."""

    id_prefix: Final = "chatcmpl"

    def read(self, body: Any, options: ReadOptions) -> OpenAICall:
        """Read a parsed body. Raises ApiError."""
        return read_chat(body, options)

    def encoder(self, call: OpenAICall, head: ResponseHead) -> StreamEncoder:
        """Return the encoder of one streamed answer."""
        return ChunkEncoder(call, head)

    def whole(self, call: OpenAICall, head: ResponseHead, answer: ResponseCollector) -> bytes:
        """Return the JSON document of a whole answer."""
        return orjson.dumps(chat_completion(call, head, answer))

    def prompt(self, call: OpenAICall, prompt: RenderedPrompt) -> bytes:
        """Return the JSON document of a dry run."""
        return orjson.dumps(dry_run_object("chat.completion.dry_run", call, prompt))
