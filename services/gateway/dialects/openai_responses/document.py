"""The Responses API in the API's document."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.dialects.openai_document import ERRORS, HEADERS
from services.gateway.dialects.openai_responses.request_model import ResponsesRequest
from services.gateway.dialects.openai_responses.response_model import (
    DeletedResponse,
    InputTokenCount,
    ItemList,
    Response,
    ResponseDryRun,
    ResponseEvent,
)
from services.gateway.dialects.operation_document import (
    ContentDocument,
    LocalizedText,
    OperationDocument,
    PathParameter,
    ResponseDocument,
)

_MODEL: Final = "qwen3-8b"
_ID: Final = "resp_0a1b2c3d4e5f"
_TOOL: Final = {
    "type": "function",
    "name": "get_weather",
    "description": "Return the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
_REQUESTS: Final[dict[str, Any]] = {
    "text": {"model": _MODEL, "instructions": "کوتاه پاسخ بده.", "input": "پایتخت ایران کجاست؟"},
    "stream": {"model": _MODEL, "input": "سلام", "stream": True, "store": False},
    "tools": {
        "model": _MODEL,
        "input": [
            {"role": "user", "content": "هوای تهران چطور است؟"},
            {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"تهران"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "12 °C"},
        ],
        "tools": [_TOOL],
        "tool_choice": "auto",
    },
    "structured_output": {
        "model": _MODEL,
        "input": "پایتخت ایران؟",
        "text": {
            "format": {
                "type": "json_schema",
                "name": "city",
                "schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            }
        },
    },
}
_MESSAGE: Final = {
    "id": "msg_0a1b2c3d4e5f0000",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "تهران.", "annotations": [], "logprobs": []}],
}
_RESPONSE: Final[dict[str, Any]] = {
    "id": _ID,
    "object": "response",
    "created_at": 1_796_000_000,
    "completed_at": 1_796_000_003,
    "status": "completed",
    "incomplete_details": None,
    "model": _MODEL,
    "output": [_MESSAGE],
    "error": None,
    "usage": {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 21,
    },
    "store": True,
    "previous_response_id": None,
    "instructions": "کوتاه پاسخ بده.",
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": {"effort": None, "summary": None},
    "max_output_tokens": None,
    "max_tool_calls": None,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
    "user": None,
}
_EVENTS: Final = ContentDocument(
    media_type="text/event-stream",
    models=(ResponseEvent,),
    examples={
        "created": {
            "type": "response.created",
            "sequence_number": 0,
            "response": {**_RESPONSE, "status": "in_progress", "completed_at": None, "output": [], "usage": None},
        },
        "text": {
            "type": "response.output_text.delta",
            "sequence_number": 4,
            "item_id": _MESSAGE["id"],
            "output_index": 0,
            "content_index": 0,
            "logprobs": [],
            "delta": "تهران",
        },
        "completed": {"type": "response.completed", "sequence_number": 9, "response": _RESPONSE},
    },
)
_PARAMETER: Final = (
    PathParameter(name="id", description=LocalizedText("The response's id.", "شناسهٔ پاسخ."), example=_ID),
)


def _of_one(summary: LocalizedText, description: LocalizedText, *contents: ContentDocument, **fields: Any) -> Any:
    response = ResponseDocument(description=summary, contents=contents)
    return OperationDocument(
        summary=summary, description=description, response=response, parameters=_PARAMETER, errors=ERRORS, **fields
    )


OPERATIONS: Final = (
    OperationDocument(
        method="post",
        path="/responses",
        id="createResponse",
        summary=LocalizedText("Generate a response", "ساختن یک پاسخ"),
        description=LocalizedText(
            "Whole, or with `stream` as Server-Sent Events, each with its type as the event's name, and `[DONE]` at "
            "the end. A stored response can be continued with `previous_response_id`.",
            "یک‌جا، یا با `stream` به شکل رویدادهایی که نام هر یک نوع آن است، با `[DONE]` در پایان. پاسخ ذخیره‌شده را "
            "می‌توان با `previous_response_id` ادامه داد.",
        ),
        request=ContentDocument(models=(ResponsesRequest,), examples=_REQUESTS),
        response=ResponseDocument(
            description=LocalizedText("The response.", "پاسخ."),
            headers=HEADERS,
            contents=(
                ContentDocument(models=(Response, ResponseDryRun), examples={"response": _RESPONSE}),
                _EVENTS,
            ),
        ),
        errors=ERRORS,
    ),
    OperationDocument(
        method="post",
        path="/responses/input_tokens",
        id="countInputTokens",
        summary=LocalizedText("Count the tokens of an input", "شمردن توکن‌های ورودی"),
        description=LocalizedText("No tokens are billed.", "از سهمیه چیزی کم نمی‌شود."),
        request=ContentDocument(models=(ResponsesRequest,), examples={"text": _REQUESTS["text"]}),
        response=ResponseDocument(
            description=LocalizedText("The number of tokens.", "تعداد توکن‌ها."),
            headers=HEADERS,
            contents=(
                ContentDocument(
                    models=(InputTokenCount,),
                    examples={"count": {"object": "response.input_tokens", "input_tokens": 9}},
                ),
            ),
        ),
        errors=ERRORS,
    ),
    _of_one(
        LocalizedText("Retrieve a stored response", "خواندن پاسخ ذخیره‌شده"),
        LocalizedText(
            "With `?stream=true`, its events, from the one after `starting_after` on, until it has ended.",
            "با `?stream=true` رویدادهای آن، از پس از `starting_after`، تا پایانش.",
        ),
        ContentDocument(models=(Response,), examples={"response": _RESPONSE}),
        _EVENTS,
        method="get",
        path="/responses/{id}",
        id="retrieveResponse",
    ),
    _of_one(
        LocalizedText("Delete a stored response", "پاک کردن پاسخ ذخیره‌شده"),
        LocalizedText("One that is being generated is no longer stored.", "پاسخ در حال تولید هم دیگر ذخیره نمی‌شود."),
        ContentDocument(
            models=(DeletedResponse,), examples={"deleted": {"id": _ID, "object": "response.deleted", "deleted": True}}
        ),
        method="delete",
        path="/responses/{id}",
        id="deleteResponse",
    ),
    _of_one(
        LocalizedText("Cancel a background response", "لغو پاسخ پس‌زمینه"),
        LocalizedText("One that has ended stays as it is.", "پاسخ تمام‌شده تغییر نمی‌کند."),
        ContentDocument(
            models=(Response,),
            examples={"response": {**_RESPONSE, "status": "cancelled", "background": True, "usage": None}},
        ),
        method="post",
        path="/responses/{id}/cancel",
        id="cancelResponse",
    ),
    _of_one(
        LocalizedText("List the input of a stored response", "ورودی پاسخ ذخیره‌شده"),
        LocalizedText(
            "Its whole input, that of earlier responses included. `limit` (20, at most 100), `order` (`desc`) and "
            "`after` choose a page.",
            "همهٔ ورودی، با ورودی پاسخ‌های پیشین. `limit` (۲۰ و حداکثر ۱۰۰) و `order` (`desc`) و `after` صفحه را تعیین "
            "می‌کنند.",
        ),
        ContentDocument(
            models=(ItemList,),
            examples={
                "items": {
                    "object": "list",
                    "data": [
                        {
                            "id": "msg_in00000a1b2c3d4e5f",
                            "type": "message",
                            "status": "completed",
                            "role": "user",
                            "content": [{"type": "input_text", "text": "سلام"}],
                        }
                    ],
                    "first_id": "msg_in00000a1b2c3d4e5f",
                    "last_id": "msg_in00000a1b2c3d4e5f",
                    "has_more": False,
                }
            },
        ),
        method="get",
        path="/responses/{id}/input_items",
        id="listInputItems",
    ),
)
