"""Anthropic's Messages API in the API's document."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.credential import BEARER
from services.gateway.dialects.anthropic_messages.dialect import KEY_HEADER
from services.gateway.dialects.anthropic_messages.request_model import CountTokensRequest, MessagesRequest
from services.gateway.dialects.anthropic_messages.response_model import (
    AnthropicError,
    AnthropicMessage,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    TokenCount,
)
from services.gateway.dialects.operation_document import (
    ContentDocument,
    ErrorDocument,
    HeaderDocument,
    LocalizedText,
    OperationDocument,
    ResponseDocument,
)

_MODEL: Final = "qwen3-8b"
_QUESTION: Final = {"role": "user", "content": "پایتخت ایران کجاست؟"}
_TOOL: Final = {
    "name": "get_weather",
    "description": "Return the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_CALL: Final = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Tehran"}}
_RESULT: Final = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "12 °C"}
_PICTURE: Final = {"type": "base64", "media_type": "image/gif", "data": "R0lGODlhAQABAAAAACw="}
_REQUESTS: Final[dict[str, Any]] = {
    "conversation": {
        "model": _MODEL,
        "max_tokens": 256,
        "system": "کوتاه پاسخ بده.",
        "messages": [_QUESTION],
    },
    "stream": {
        "model": _MODEL,
        "max_tokens": 4096,
        "messages": [_QUESTION],
        "thinking": {"type": "adaptive"},
        "stream": True,
    },
    "tools": {
        "model": _MODEL,
        "max_tokens": 256,
        "messages": [
            {"role": "user", "content": "هوای تهران چطور است؟"},
            {"role": "assistant", "content": [_CALL]},
            {"role": "user", "content": [_RESULT]},
        ],
        "tools": [_TOOL],
        "tool_choice": {"type": "auto"},
    },
    "image": {
        "model": "qwen2.5-vl-7b",
        "max_tokens": 256,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": _PICTURE},
                    {"type": "text", "text": "این تصویر چیست؟"},
                ],
            }
        ],
    },
}
_DELTA_USAGE: Final = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 12,
    "output_tokens_details": {"thinking_tokens": 0},
    "server_tool_use": None,
}
_USAGE: Final = {
    **_DELTA_USAGE,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "inference_geo": None,
    "service_tier": "standard",
}
_END: Final = {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None, "container": None}


def _message(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_0a1b2c3d4e5f",
        "type": "message",
        "role": "assistant",
        "model": _MODEL,
        "content": list(content),
        **_END,
        **fields,
        "usage": _USAGE,
    }


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "citations": None}


_REQUEST_ID: Final = HeaderDocument(
    component="AnthropicRequestId",
    description=LocalizedText("The request's id, for reports.", "شناسهٔ درخواست، برای گزارش."),
    schema={"type": "string"},
)
_HEADERS: Final = {
    "request-id": _REQUEST_ID,
    "x-clamped-params": HeaderDocument(
        component="ClampedParams",
        description=LocalizedText(
            "`max_tokens=N` if the model's context limited it to N.",
            "`max_tokens=N` اگر پنجرهٔ مدل آن را به N محدود کرده باشد.",
        ),
        schema={"type": "string"},
    ),
    "x-omitted-blocks": HeaderDocument(
        component="OmittedBlocks",
        description=LocalizedText(
            "A first system block with Claude Code's version, which is not part of the prompt.",
            "نخستین بخش پیام سیستم با نسخهٔ Claude Code که در پرامپت نمی‌آید.",
        ),
        schema={"type": "string"},
    ),
    "anthropic-ratelimit-requests-limit": HeaderDocument(
        component="AnthropicLimitRequests",
        description=LocalizedText(
            "The limit of requests per minute, if the key has one; `-remaining` and `-reset` follow. Tokens have the "
            "same three headers.",
            "سقف درخواست در دقیقه، اگر کلید سقفی داشته باشد؛ `-remaining` و `-reset` هم هست. برای توکن هم همین سه هدر.",
        ),
        schema={"type": "integer"},
    ),
}
_ERROR: Final = ErrorDocument(
    component="AnthropicError",
    description=LocalizedText(
        "The request could not be answered. A stream that has begun ends with the same object as the event `error`.",
        "درخواست ناموفق بود. پاسخ استریمی که آغاز شده با همین شیء در رویداد `error` پایان می‌یابد.",
    ),
    headers={"request-id": _REQUEST_ID},
    contents=(
        ContentDocument(
            models=(AnthropicError,),
            examples={
                "missing_field": {
                    "type": "error",
                    "error": {
                        "type": "invalid_request_error",
                        "message": "max_tokens is missing; it must be an integer.",
                        "details": {"field": "max_tokens"},
                    },
                    "request_id": "req-0a1b2c3d4e5f",
                }
            },
        ),
    ),
)
_ERRORS: Final = {"4XX": _ERROR, "5XX": _ERROR}

OPERATIONS: Final = (
    OperationDocument(
        method="post",
        path="/messages",
        id="createMessage",
        key_header=KEY_HEADER,
        other_key_header=BEARER,
        summary=LocalizedText("Answer a conversation (Anthropic's API)", "پاسخ به یک گفت‌وگو (API شرکت Anthropic)"),
        description=LocalizedText(
            "Anthropic's Messages API, for Claude Code and other clients of it. The key may also be in `Authorization: "
            "Bearer KEY`. Whole, or with `stream` as named events.",
            "Messages API شرکت Anthropic، برای Claude Code و برنامه‌های دیگر. کلید در `Authorization: Bearer KEY` هم "
            "پذیرفته می‌شود. یک‌جا، یا با `stream` به شکل رویدادهای نام‌دار.",
        ),
        request=ContentDocument(models=(MessagesRequest,), examples=_REQUESTS),
        response=ResponseDocument(
            description=LocalizedText("The answer.", "پاسخ."),
            headers=_HEADERS,
            contents=(
                ContentDocument(
                    models=(AnthropicMessage,),
                    examples={
                        "answer": _message(_text("تهران.")),
                        "tool_call": _message({**_CALL, "caller": {"type": "direct"}}, stop_reason="tool_use"),
                    },
                ),
                ContentDocument(
                    media_type="text/event-stream",
                    models=(
                        MessageStart,
                        Ping,
                        ContentBlockStart,
                        ContentBlockDelta,
                        ContentBlockStop,
                        MessageDelta,
                        MessageStop,
                        AnthropicError,
                    ),
                    examples={
                        "first": {"type": "message_start", "message": _message(stop_reason=None)},
                        "block": {"type": "content_block_start", "index": 0, "content_block": _text("")},
                        "token": {
                            "type": "content_block_delta",
                            "index": 0,
                            "delta": {"type": "text_delta", "text": "تهران"},
                        },
                        "block_end": {"type": "content_block_stop", "index": 0},
                        "end": {"type": "message_delta", "delta": _END, "usage": _DELTA_USAGE},
                        "last": {"type": "message_stop"},
                    },
                ),
            ),
        ),
        errors=_ERRORS,
    ),
    OperationDocument(
        method="post",
        path="/messages/count_tokens",
        id="countMessageTokens",
        key_header=KEY_HEADER,
        other_key_header=BEARER,
        summary=LocalizedText("Count the tokens of a conversation", "شمردن توکن‌های یک گفت‌وگو"),
        request=ContentDocument(
            models=(CountTokensRequest,), examples={"conversation": {"model": _MODEL, "messages": [_QUESTION]}}
        ),
        response=ResponseDocument(
            description=LocalizedText("The number. No tokens are billed.", "تعداد توکن‌ها. از سهمیه چیزی کم نمی‌شود."),
            headers={"request-id": _REQUEST_ID},
            contents=(ContentDocument(models=(TokenCount,), examples={"count": {"input_tokens": 9}}),),
        ),
        errors=_ERRORS,
    ),
)
