"""POST /tokenize: the token ids of a prompt, or of a conversation in its model's template, as vLLM returns them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ReadOptions, RenderedPrompt
from services.gateway.dialects.ignored_fields import ignored_fields
from services.gateway.dialects.json_model import REQUIRED, RequestModel, doc, read_model
from services.gateway.dialects.openai_call import OpenAICall
from services.gateway.dialects.openai_chat.request import read_chat
from services.gateway.dialects.openai_dialect import OpenAIDialect
from services.gateway.dialects.openai_request import ModelId
from services.gateway.errors import bad_request
from services.runtime.messages.message import Message


class TokenizeRequest(RequestModel):
    """The body of POST /tokenize for a prompt. For a conversation it is a ChatCompletionRequest."""

    conditions: ClassVar = ({"not": {"required": ["messages"]}},)

    model: ModelId
    prompt: Annotated[
        str | None,
        REQUIRED,
        doc("A text, without a template.", "متن، همان‌طور که هست.", example="سلام دنیا", schema={"minLength": 1}),
    ] = None


class Tokenize(OpenAIDialect):
    """POST /tokenize."""

    def read(self, body: Any, options: ReadOptions) -> OpenAICall:
        """Read a conversation as chat does, or a prompt. Raises ApiError (400)."""
        if isinstance(body, dict) and "messages" in body:
            return read_chat(body, options)
        request = read_model(TokenizeRequest, body)
        if not request.prompt:
            raise bad_request(Message("prompt_and_messages_missing", field="prompt", other_field="messages"))
        generate = pb.GenerateRequest(
            model=request.model, prompt=request.prompt, refuse_ignored_parameters=options.strict
        )
        return OpenAICall(generate=generate, ignored=ignored_fields(request, body, strict=options.strict))

    def prompt(self, call: OpenAICall, prompt: RenderedPrompt) -> bytes:
        """Return the token ids as a JSON document."""
        rendered = prompt.response
        return orjson.dumps(
            {
                "count": rendered.prompt_tokens,
                "max_model_len": rendered.prompt_tokens + rendered.remaining_tokens,
                "tokens": list(rendered.token_ids),
            }
        )
