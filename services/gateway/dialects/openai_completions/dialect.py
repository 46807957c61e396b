"""OpenAI's legacy text completions as a dialect."""

from __future__ import annotations

from typing import Any, Final

import orjson

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ReadOptions, RenderedPrompt, ResponseHead, StreamEncoder
from services.gateway.dialects.openai_completions.request import CompletionCall, read_completion
from services.gateway.dialects.openai_completions.response import text_completion
from services.gateway.dialects.openai_completions.stream import TextEncoder
from services.gateway.dialects.openai_dialect import OpenAIDialect
from services.gateway.dialects.openai_dry_run import dry_run_object


class OpenAICompletions(OpenAIDialect):
    """POST /completions."""

    id_prefix: Final = "cmpl-"

    def read(self, body: Any, options: ReadOptions) -> CompletionCall:
        """Read a parsed body. Raises ApiError (400)."""
        return read_completion(body, options)

    def encoder(self, call: CompletionCall, head: ResponseHead) -> StreamEncoder:
        """Return the encoder of one stream."""
        return TextEncoder(call, head)

    def response(self, call: CompletionCall, head: ResponseHead, collected: ResponseCollector) -> bytes:
        """Return a complete generation as a JSON document."""
        return orjson.dumps(text_completion(call, head, collected))

    def prompt(self, call: CompletionCall, prompt: RenderedPrompt) -> bytes:
        """Return the result of a dry run as a JSON document."""
        return orjson.dumps(dry_run_object("text_completion.dry_run", call, prompt))
