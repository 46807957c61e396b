"""The fields of Anthropic's Messages requests."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from services.gateway.dialects.anthropic_messages.content_model import CacheControl, MessageParam, PlainTextBlock
from services.gateway.dialects.json_model import HIDDEN, REQUIRED, NonNegative, RequestModel, doc

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_DISPLAY: Final = doc(
    "`omitted` sends only the signature, which carries the thinking to the next turn. Any other value, such as "
    "`summarized`, sends the thinking.",
    "با `omitted` فقط امضا می‌آید که فکر را به نوبت بعد می‌رساند. با هر مقدار دیگر، مانند `summarized`، فکر می‌آید.",
    example="summarized",
)


class Tool(RequestModel):
    """A tool that the model may call."""

    # Anthropic's own tools have a known schema.
    conditions: ClassVar = (
        {
            "anyOf": [
                {"required": ["type"], "properties": {"type": {"not": {"const": "custom"}}}},
                {"required": ["input_schema"]},
            ]
        },
    )

    name: Annotated[
        str, REQUIRED, doc("The tool's name.", "نام ابزار.", example="get_weather", schema={"minLength": 1})
    ] = ""
    type: Annotated[
        str | None,
        doc(
            "`custom`, or one of Anthropic's tools that the client runs, such as `bash_20250124`. Tools that its "
            "servers run are left out, and named in `x-ignored-params`.",
            "`custom`، یا یکی از ابزارهای Anthropic که برنامهٔ شما اجرا می‌کند، مانند `bash_20250124`. ابزارهایی که "
            "سرورهای Anthropic اجرا می‌کنند کنار گذاشته و در `x-ignored-params` نام برده می‌شوند.",
            example="custom",
        ),
    ] = None
    description: Annotated[
        str | None, doc("What the tool does.", "کاری که ابزار می‌کند.", example="Return the weather of a city.")
    ] = None
    input_schema: Annotated[
        dict[str, Any] | None, doc("A JSON Schema of the input.", "اسکیمای JSON ورودی.", example=_SCHEMA)
    ] = None
    strict: Annotated[
        bool | None,
        doc(
            "Arguments conform to the schema. Where the engine cannot do it, it is named in `x-ignored-params`.",
            "ورودی‌ها با اسکیما مطابقت دارند. اگر موتور نتواند، نامش در `x-ignored-params` می‌آید.",
            example=True,
        ),
    ] = None
    cache_control: CacheControl = None
    eager_input_streaming: Annotated[Any, HIDDEN] = None


class ToolChoice(RequestModel):
    """Whether the model must call tools."""

    conditions: ClassVar = (
        {
            "anyOf": [
                {"properties": {"type": {"enum": ["auto", "any", "none"]}}},
                {"required": ["name"], "properties": {"name": {"minLength": 1}}},
            ]
        },
    )

    type: Annotated[
        Literal["auto", "any", "tool", "none"],
        doc(
            "The model decides, must call some tool, must call `name`, or calls none.",
            "مدل خودش تصمیم می‌گیرد، باید ابزاری را فراخوانی کند، باید `name` را فراخوانی کند، یا هیچ فراخوانی ندارد.",
            example="auto",
        ),
    ]
    name: Annotated[str | None, doc("With `tool`, its name.", "با `tool`، نام آن.", example="get_weather")] = None
    disable_parallel_tool_use: Annotated[
        bool | None, doc("At most one call.", "بیش از یک فراخوانی نباشد.", example=True)
    ] = None


class ThinkingEnabled(RequestModel, tag_field="type", tag="enabled"):
    """The model thinks before it answers."""

    budget_tokens: Annotated[
        NonNegative | None, doc("The most tokens of thinking.", "حداکثر توکن‌های فکر.", example=1024)
    ] = None
    display: Annotated[str | None, _DISPLAY] = None


class ThinkingAdaptive(RequestModel, tag_field="type", tag="adaptive"):
    """The model thinks if it can."""

    display: Annotated[str | None, _DISPLAY] = None


class ThinkingDisabled(RequestModel, tag_field="type", tag="disabled"):
    """The model does not think, if it can do without."""


class ThinkingBetweenTools(RequestModel, tag_field="type", tag="between_tools"):
    """The model thinks only about the results of tools."""


class JsonOutputFormat(RequestModel):
    """JSON that conforms to a schema."""

    type: Annotated[Literal["json_schema"], doc("Always `json_schema`.", "همیشه `json_schema`.", example="json_schema")]
    schema: Annotated[dict[str, Any], doc("A JSON Schema.", "یک اسکیمای JSON.", example=_SCHEMA)]


class OutputConfig(RequestModel):
    """The form of the answer."""

    effort: Annotated[
        Effort | None,
        doc(
            "How much the model thinks. Models without degrees report it in `x-ignored-params`.",
            "میزان فکر. اگر مدل درجه نداشته باشد، در `x-ignored-params` گزارش می‌شود.",
            example="high",
        ),
    ] = None
    format: Annotated[JsonOutputFormat | None, doc("Structured output.", "خروجی ساختاریافته.")] = None


class CountTokensRequest(RequestModel, kw_only=True):
    """The body of POST /messages/count_tokens."""

    conditions: ClassVar = (
        {
            "not": {
                "required": ["output_format", "output_config"],
                "properties": {
                    "output_format": {"type": "object"},
                    "output_config": {"required": ["format"], "properties": {"format": {"type": "object"}}},
                },
            }
        },
    )

    model: Annotated[str, doc("The model's id, or an alias.", "شناسهٔ مدل یا نام مستعار آن.", example="qwen3-8b")]
    messages: Annotated[list[MessageParam], msgspec.Meta(min_length=1), doc("The conversation.", "گفت‌وگو.")]
    system: Annotated[
        str | list[PlainTextBlock] | None, doc("The system prompt.", "پیام سیستم.", example="کوتاه پاسخ بده.")
    ] = None
    tools: Annotated[list[Tool] | None, doc("The tools.", "ابزارها.")] = None
    tool_choice: Annotated[
        ToolChoice | None, doc("Whether the model must call tools.", "آیا مدل باید ابزاری فراخوانی کند.")
    ] = None
    thinking: Annotated[
        ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | ThinkingBetweenTools | None,
        doc("Absent: a model that can do without does not think.", "اگر نفرستید: مدلی که بتواند، فکر نمی‌کند."),
    ] = None
    output_config: Annotated[OutputConfig | None, doc("The form of the answer.", "شکل پاسخ.")] = None
    output_format: Annotated[
        JsonOutputFormat | None, doc("An older name of `output_config.format`.", "نام قدیمی `output_config.format`.")
    ] = None
    cache_control: CacheControl = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """The body of POST /messages."""

    max_tokens: Annotated[
        NonNegative,
        doc(
            "The most tokens to generate. What the context does not hold is cut off, and `x-clamped-params` says so; 0 "
            "only reads the prompt into the cache.",
            "حداکثر توکن‌های پاسخ. آنچه در پنجرهٔ مدل جا نشود بریده و در `x-clamped-params` گزارش می‌شود؛ ۰ فقط پرامپت "
            "را کش می‌کند.",
            example=1024,
        ),
    ]
    stream: Annotated[
        bool | None, doc("Send the answer while it is generated.", "پاسخ هم‌زمان با تولید فرستاده شود.", example=True)
    ] = False
    stop_sequences: Annotated[
        list[str] | None,
        doc(
            "Strings that end the answer.",
            "رشته‌هایی که پاسخ را پایان می‌دهند.",
            example=["###"],
            schema={"maxItems": 64},
        ),
    ] = None
    temperature: Annotated[
        float | None,
        doc(
            "0 always chooses the most probable token.",
            "با ۰ همیشه محتمل‌ترین توکن.",
            example=0.7,
            schema={"minimum": 0, "maximum": 2},
        ),
    ] = None
    top_p: Annotated[
        float | None,
        doc(
            "Nucleus sampling.",
            "نمونه‌گیری هسته‌ای (nucleus sampling).",
            example=0.9,
            schema={"minimum": 0, "maximum": 1},
        ),
    ] = None
    top_k: Annotated[
        NonNegative | None,
        doc("Sample from so many tokens; 0 means all.", "انتخاب از این تعداد توکن؛ ۰ یعنی همه.", example=20),
    ] = None
    metadata: Annotated[
        dict[str, Any] | None,
        doc("Accepted, and not used.", "پذیرفته می‌شود و اثری ندارد.", example={"user_id": "user-123"}),
    ] = None
    service_tier: Annotated[
        str | None,
        doc("Accepted: there is one tier.", "پذیرفته می‌شود؛ یک رده بیشتر نیست.", example="auto"),
    ] = None
