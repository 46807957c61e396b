"""OpenAI's Responses API as a dialect, and the count of a request's input tokens."""

from __future__ import annotations

from typing import Any, Final

import orjson

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ReadOptions, RenderedPrompt, ResponseHead
from services.gateway.dialects.openai_dialect import OpenAIDialect
from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.dialects.openai_responses.conversation import Recalled
from services.gateway.dialects.openai_responses.request import read_responses
from services.gateway.dialects.openai_responses.stream import ResponseEncoder


class OpenAIResponses(OpenAIDialect):
    """POST /responses."""

    id_prefix: Final = "resp"

    def __init__(self, recalled: Recalled | None = None) -> None:
        """Read requests that refer to `recalled`."""
        self._recalled: Final = recalled

    def read(self, body: Any, options: ReadOptions) -> ResponsesCall:
        """Read a parsed body. Raises ApiError (400)."""
        return read_responses(body, options, self._recalled)

    def encoder(self, call: ResponsesCall, head: ResponseHead) -> ResponseEncoder:
        """Return the encoder of one response."""
        return ResponseEncoder(call, head)

    def response(self, call: ResponsesCall, head: ResponseHead, collected: ResponseCollector) -> bytes:
        """Never called: a whole response is made by the encoder."""
        raise AssertionError

    def prompt(self, call: ResponsesCall, prompt: RenderedPrompt) -> bytes:
        """Return the result of a dry run as a JSON document."""
        return orjson.dumps(
            {
                "object": "response.dry_run",
                "model": call.generate.model,
                "prompt": prompt.response.prompt,
                "prompt_tokens": prompt.response.prompt_tokens,
                "remaining_tokens": prompt.response.remaining_tokens,
                "ignored_parameters": list(prompt.ignored),
                "worker": prompt.worker,
            }
        )


class InputTokens(OpenAIResponses):
    """POST /responses/input_tokens."""

    def prompt(self, call: ResponsesCall, prompt: RenderedPrompt) -> bytes:
        """Return the number of tokens as a JSON document."""
        count = prompt.response.prompt_tokens
        return orjson.dumps({"object": "response.input_tokens", "input_tokens": count})
