"""OpenAI's chat completions and vLLM's tokenization in the API's document."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.dialects.openai_chat.request_model import ChatCompletionRequest
from services.gateway.dialects.openai_chat.response_model import ChatCompletion, ChatCompletionChunk, Tokens
from services.gateway.dialects.openai_chat.tokenize import TokenizeRequest
from services.gateway.dialects.openai_document import ERRORS, EXAMPLE_DRY_RUN, EXAMPLE_USAGE, HEADERS, DryRun
from services.gateway.dialects.operation_document import (
    ContentDocument,
    LocalizedText,
    OperationDocument,
    ResponseDocument,
)

_MODEL: Final = "qwen3-8b"
_QUESTION: Final = {"role": "user", "content": "پایتخت ایران کجاست؟"}
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Return the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_TOOL_CALL: Final = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Tehran"}'},
}
_REQUESTS: Final[dict[str, Any]] = {
    "conversation": {
        "model": _MODEL,
        "messages": [{"role": "system", "content": "کوتاه پاسخ بده."}, _QUESTION],
        "max_tokens": 256,
        "temperature": 0.7,
    },
    "stream": {
        "model": _MODEL,
        "messages": [_QUESTION],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "tools": {
        "model": _MODEL,
        "messages": [
            {"role": "user", "content": "هوای تهران چطور است؟"},
            {"role": "assistant", "content": None, "tool_calls": [_TOOL_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "12 °C"},
        ],
        "tools": [_TOOL],
        "tool_choice": "auto",
    },
    "structured_output": {
        "model": _MODEL,
        "messages": [_QUESTION],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "city",
                "schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            },
        },
    },
    "image": {
        "model": "qwen2.5-vl-7b",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "این تصویر چیست؟"},
                    {
                        "type": "image_url",
                        "image_url": {"url": "data:image/gif;base64,R0lGODlhAQABAAAAACw=", "detail": "low"},
                    },
                ],
            }
        ],
    },
}


def _completion(message: dict[str, Any], finish_reason: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-0a1b2c3d4e5f",
        "object": "chat.completion",
        "created": 1_796_000_000,
        "model": _MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_0a1b2c3d4e",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "refusal": None, "annotations": [], **message},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": EXAMPLE_USAGE,
    }


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-0a1b2c3d4e5f",
        "object": "chat.completion.chunk",
        "created": 1_796_000_000,
        "model": _MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_0a1b2c3d4e",
        "choices": [choice],
        "usage": None,
    }


OPERATIONS: Final = (
    OperationDocument(
        method="post",
        path="/chat/completions",
        id="createChatCompletion",
        summary=LocalizedText("Answer a conversation", "پاسخ به یک گفت‌وگو"),
        description=LocalizedText(
            "Whole, or with `stream` as Server-Sent Events of `ChatCompletionChunk`, the last of which is `[DONE]`.",
            "یک‌جا، یا با `stream` به شکل رویدادهای `ChatCompletionChunk` که آخرینشان `[DONE]` است.",
        ),
        request=ContentDocument(models=(ChatCompletionRequest,), examples=_REQUESTS),
        response=ResponseDocument(
            description=LocalizedText("The answer.", "پاسخ."),
            headers=HEADERS,
            contents=(
                ContentDocument(
                    models=(ChatCompletion, DryRun),
                    examples={
                        "answer": _completion({"content": "تهران."}, "stop"),
                        "tool_call": _completion({"content": None, "tool_calls": [_TOOL_CALL]}, "tool_calls"),
                        "dry_run": EXAMPLE_DRY_RUN,
                    },
                ),
                ContentDocument(
                    media_type="text/event-stream",
                    models=(ChatCompletionChunk,),
                    examples={
                        "first": _chunk({"role": "assistant", "content": ""}),
                        "token": _chunk({"content": "تهران"}),
                        "finish": _chunk({}, "stop"),
                        "usage": {**_chunk({}), "choices": [], "usage": EXAMPLE_USAGE},
                    },
                ),
            ),
        ),
        errors=ERRORS,
    ),
    OperationDocument(
        method="post",
        path="/tokenize",
        id="tokenize",
        summary=LocalizedText("Show the tokens of a text", "توکن‌های یک متن"),
        description=LocalizedText(
            "A text as it stands, or a conversation in the model's template.",
            "متن همان‌طور که هست، یا یک گفت‌وگو در قالب مدل.",
        ),
        request=ContentDocument(
            models=(TokenizeRequest, ChatCompletionRequest),
            examples={
                "text": {"model": _MODEL, "prompt": "سلام دنیا"},
                "conversation": {"model": _MODEL, "messages": [_QUESTION]},
            },
        ),
        response=ResponseDocument(
            description=LocalizedText(
                "The ids of the model's own tokenizer. No tokens are billed.",
                "شناسه‌ها از توکنایزر خود مدل است. از سهمیه چیزی کم نمی‌شود.",
            ),
            headers=HEADERS,
            contents=(
                ContentDocument(
                    models=(Tokens,),
                    examples={"tokens": {"count": 3, "max_model_len": 40960, "tokens": [126043, 29155, 102]}},
                ),
            ),
        ),
        errors=ERRORS,
    ),
)
