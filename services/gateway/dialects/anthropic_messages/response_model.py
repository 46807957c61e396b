"""The objects of Anthropic's responses, for the API's document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType

from services.gateway.dialects.json_model import ResponseModel, doc

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded"]
_REASON = doc(
    "Why it ended. `model_context_window_exceeded`: at the limit that `x-clamped-params` names.",
    "چرا پایان یافت. `model_context_window_exceeded`: در سقفی که `x-clamped-params` می‌گوید.",
    example="end_turn",
)
_SEQUENCE = doc("The stop sequence that ended it.", "رشته‌ای که پایانش داد.", example="###")
_NULL = doc("Always null.", "همیشه null.", example=None)
_INDEX = doc("The block's index.", "شمارهٔ تکه.", example=0)
_TYPE = doc("The kind of object.", "نوع شیء.")
_BUDGET = doc(
    "Present if a budget of the key ended the answer.",
    "اگر سهمیهٔ کلید پاسخ را پایان داده باشد.",
    example={"ended_by": "daily_tokens", "scope": "key"},
)


class OutputTokensDetails(ResponseModel):
    """The kinds of output tokens."""

    thinking_tokens: Annotated[int, doc("Tokens of thinking.", "توکن‌های فکر.", example=0)]


class CacheCreation(ResponseModel):
    """Tokens written into a cache on demand, which does not exist here."""

    ephemeral_5m_input_tokens: Annotated[int, doc("Always 0.", "همیشه ۰.", example=0)]
    ephemeral_1h_input_tokens: Annotated[int, doc("Always 0.", "همیشه ۰.", example=0)]


class DeltaUsage(ResponseModel):
    """The token counts at the end of a stream."""

    input_tokens: Annotated[
        int,
        doc("Tokens of the prompt that were not in the cache.", "توکن‌های پرامپت که در کش نبودند.", example=9),
    ]
    cache_creation_input_tokens: Annotated[int, doc("Always 0.", "همیشه ۰.", example=0)]
    cache_read_input_tokens: Annotated[
        int, doc("Tokens of the prompt from the cache.", "توکن‌های پرامپت که از کش آمدند.", example=0)
    ]
    output_tokens: Annotated[int, doc("Generated tokens.", "توکن‌های تولیدشده.", example=12)]
    output_tokens_details: Annotated[OutputTokensDetails, doc("Their kinds.", "نوع آن‌ها.")]
    server_tool_use: Annotated[None, _NULL]


class MessageUsage(DeltaUsage):
    """The token counts."""

    cache_creation: Annotated[CacheCreation, doc("Always zeros.", "همیشه صفر.")]
    inference_geo: Annotated[None, _NULL]
    service_tier: Annotated[Literal["standard"], doc("Always `standard`.", "همیشه `standard`.", example="standard")]


class TextContent(ResponseModel, tag_field="type", tag="text"):
    """Text."""

    text: Annotated[str, doc("The text.", "متن.", example="تهران.")]
    citations: Annotated[None, _NULL]


class ThinkingContent(ResponseModel, tag_field="type", tag="thinking"):
    """Thinking."""

    thinking: Annotated[
        str, doc("The text; empty with `display: omitted`.", "متن؛ با `display: omitted` خالی است.", example="Easy.")
    ]
    signature: Annotated[str, doc("Send it back with the thinking.", "همراه فکر بازگردانید.", example="vt3.0a1b2c")]


class ToolUseContent(ResponseModel, tag_field="type", tag="tool_use"):
    """A tool call."""

    id: Annotated[str, doc("The id of the call.", "شناسهٔ فراخوانی.", example="toolu_0a1b2c")]
    name: Annotated[str, doc("The tool's name.", "نام ابزار.", example="get_weather")]
    input: Annotated[dict[str, Any], doc("The input.", "ورودی.", example={"city": "Tehran"})]
    caller: Annotated[dict[str, str], doc("Always direct.", "همیشه direct.", example={"type": "direct"})]


class Refusal(ResponseModel):
    """The details of withheld content."""

    type: Annotated[Literal["refusal"], _TYPE]
    category: Annotated[None, _NULL]
    explanation: Annotated[None, _NULL]


class AnthropicMessage(ResponseModel):
    """A message of the model."""

    id: Annotated[str, doc("The id of the message.", "شناسهٔ پیام.", example="msg_0a1b2c3d4e5f")]
    type: Annotated[Literal["message"], _TYPE]
    role: Annotated[Literal["assistant"], doc("The author.", "نویسنده.", example="assistant")]
    model: Annotated[str, doc("The model.", "مدل.", example="qwen3-8b")]
    content: Annotated[list[TextContent | ThinkingContent | ToolUseContent], doc("The answer.", "پاسخ.")]
    stop_reason: Annotated[StopReason | None, _REASON]
    stop_sequence: Annotated[str | None, _SEQUENCE]
    stop_details: Annotated[Refusal | None, doc("Of a refusal.", "جزئیات خودداری از پاسخ.")]
    container: Annotated[None, _NULL]
    usage: Annotated[MessageUsage, doc("Token counts.", "تعداد توکن‌ها.")]
    vilix: Annotated[dict[str, str] | UnsetType, _BUDGET] = UNSET


class MessageStart(ResponseModel, tag_field="type", tag="message_start"):
    """The first event of a stream."""

    message: Annotated[AnthropicMessage, doc("The message, without content.", "پیام، بدون محتوا.")]


class Ping(ResponseModel, tag_field="type", tag="ping"):
    """Keeps a silent stream alive."""


class ContentBlockStart(ResponseModel, tag_field="type", tag="content_block_start"):
    """The beginning of a block."""

    index: Annotated[int, _INDEX]
    content_block: Annotated[
        TextContent | ThinkingContent | ToolUseContent, doc("The block, which is empty.", "بخش، که خالی است.")
    ]


class TextDelta(ResponseModel, tag_field="type", tag="text_delta"):
    """More text."""

    text: Annotated[str, doc("The text.", "متن.", example="تهران")]


class ThinkingDelta(ResponseModel, tag_field="type", tag="thinking_delta"):
    """More thinking."""

    thinking: Annotated[str, doc("The text.", "متن.", example="Easy")]


class SignatureDelta(ResponseModel, tag_field="type", tag="signature_delta"):
    """The signature of the thinking."""

    signature: Annotated[str, doc("The signature.", "امضا.", example="vt3.0a1b2c")]


class InputJsonDelta(ResponseModel, tag_field="type", tag="input_json_delta"):
    """More of the input of a tool call."""

    partial_json: Annotated[str, doc("A part of the JSON text.", "تکه‌ای از متن JSON.", example='{"city":')]


class ContentBlockDelta(ResponseModel, tag_field="type", tag="content_block_delta"):
    """A part of a block."""

    index: Annotated[int, _INDEX]
    delta: Annotated[TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta, doc("The part.", "تکه.")]


class ContentBlockStop(ResponseModel, tag_field="type", tag="content_block_stop"):
    """The end of a block."""

    index: Annotated[int, _INDEX]


class MessageEnd(ResponseModel):
    """The end of a message."""

    stop_reason: Annotated[StopReason, _REASON]
    stop_sequence: Annotated[str | None, _SEQUENCE]
    stop_details: Annotated[Refusal | None, doc("Of a refusal.", "جزئیات خودداری از پاسخ.")]
    container: Annotated[None, _NULL]


class MessageDelta(ResponseModel, tag_field="type", tag="message_delta"):
    """The end of the content."""

    delta: Annotated[MessageEnd, doc("How it ended.", "چگونه پایان یافت.")]
    usage: Annotated[DeltaUsage, doc("Token counts.", "تعداد توکن‌ها.")]
    vilix: Annotated[dict[str, str] | UnsetType, _BUDGET] = UNSET


class MessageStop(ResponseModel, tag_field="type", tag="message_stop"):
    """The last event."""


class AnthropicErrorObject(ResponseModel):
    """An error."""

    type: Annotated[str, doc("The kind of error.", "نوع خطا.", example="invalid_request_error")]
    message: Annotated[str, doc("What is wrong.", "چه چیزی نادرست است.", example="max_tokens is missing.")]
    details: Annotated[
        dict[str, str] | UnsetType,
        doc(
            "The field that is wrong, and a more precise name.",
            "فیلد نادرست و نام دقیق‌تر خطا.",
            example={"field": "max_tokens"},
        ),
    ] = UNSET


class AnthropicError(ResponseModel, tag_field="type", tag="error"):
    """The body of an error, and the event that ends a failed stream."""

    error: Annotated[AnthropicErrorObject, doc("The error.", "خطا.")]
    request_id: Annotated[str, doc("The request's id, for reports.", "شناسهٔ درخواست، برای گزارش.", example="req-0a1b")]


class TokenCount(ResponseModel):
    """The number of a prompt's tokens."""

    input_tokens: Annotated[int, doc("The number.", "تعداد توکن‌ها.", example=9)]
