"""The fields of OpenAI's chat completion request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from services.gateway.dialects.json_model import HIDDEN, NonNegative, Positive, RequestModel, doc
from services.gateway.dialects.openai_chat.message_model import Message
from services.gateway.dialects.openai_request import Label, ModelId, OpenAIRequest

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_THINKING: Final = doc(
    "Whether a model that supports both reasons before it answers.",
    "پیش از پاسخ فکر کند یا نه، در مدلی که هر دو را می‌تواند.",
    example=True,
)


class ToolFunction(RequestModel):
    """A function that the model may call."""

    name: Annotated[str, doc("The function's name.", "نام تابع.", example="get_weather")]
    description: Annotated[
        str | None,
        doc("What the function does.", "کاری که تابع می‌کند.", example="Return the weather of a city."),
    ] = None
    parameters: Annotated[
        dict[str, Any] | None,
        doc(
            "A JSON Schema of the arguments.",
            "اسکیمای JSON ورودی‌ها.",
            example={"type": "object", "properties": {"city": {"type": "string"}}},
        ),
    ] = None
    strict: Annotated[
        bool | None,
        doc(
            "Arguments conform to the schema. Where the engine cannot do it, it is named in `x-ignored-params`.",
            "ورودی‌ها با اسکیما مطابقت دارند. اگر موتور نتواند، نامش در `x-ignored-params` می‌آید.",
            example=True,
        ),
    ] = None


class Tool(RequestModel):
    """A tool that the model may call."""

    type: Annotated[Literal["function"], doc("Always `function`.", "همیشه `function`.", example="function")]
    function: Annotated[ToolFunction, doc("The function.", "تابع.")]


class NamedFunction(RequestModel):
    """A function by its name."""

    name: Annotated[str, doc("The function's name.", "نام تابع.", example="get_weather")]


_NAMED: Final = {
    "anyOf": [
        {"required": ["function"], "properties": {"function": {"type": "object"}}},
        {"required": ["name"], "properties": {"name": {"type": "string"}}},
    ]
}
"""A schema for objects that name a function in one of the two ways."""


class AllowedTool(RequestModel):
    """A tool of `allowed_tools`."""

    conditions: ClassVar = (_NAMED,)

    type: Annotated[Literal["function"] | None, doc("Always `function`.", "همیشه `function`.", example="function")] = (
        None
    )
    function: Annotated[NamedFunction | None, doc("The function.", "تابع.")] = None
    name: Annotated[
        str | None,
        doc("The function's name, instead of `function`.", "نام تابع، به‌جای `function`.", example="get_weather"),
    ] = None


_MODE: Final = doc(
    "Whether the model must call one of the tools.", "آیا مدل باید یکی از ابزارها را فراخوانی کند.", example="auto"
)
_TOOLS: Final = doc("The tools that the model may call.", "ابزارهایی که مدل می‌تواند فراخوانی کند.")


class AllowedTools(RequestModel):
    """The tools that a model may call, of those that it knows."""

    mode: Annotated[Literal["auto", "required"] | None, _MODE] = None
    tools: Annotated[list[AllowedTool] | None, _TOOLS] = None


class ToolChoice(RequestModel):
    """One function, or the tools that are allowed."""

    conditions: ClassVar = (
        {"if": {"not": {"required": ["type"], "properties": {"type": {"const": "allowed_tools"}}}}, "then": _NAMED},
    )

    type: Annotated[
        Literal["function", "allowed_tools"] | None,
        doc("Absent: `function`.", "اگر نفرستید: `function`.", example="function"),
    ] = None
    function: Annotated[
        NamedFunction | None, doc("The function that the model must call.", "تابعی که مدل باید فراخوانی کند.")
    ] = None
    name: Annotated[
        str | None,
        doc("The function's name, instead of `function`.", "نام تابع، به‌جای `function`.", example="get_weather"),
    ] = None
    allowed_tools: Annotated[AllowedTools | None, doc("The tools that are allowed.", "ابزارهایی که مجازند.")] = None
    # Some clients send the content of `allowed_tools` beside `type`.
    mode: Annotated[Literal["auto", "required"] | None, HIDDEN] = None
    tools: Annotated[list[AllowedTool] | None, HIDDEN] = None


class ChatCompletionRequest(OpenAIRequest, kw_only=True):
    """The body of POST /chat/completions."""

    conditions: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"dependentSchemas": {"stream_options": {"required": ["stream"], "properties": {"stream": {"const": True}}}}},
        {
            "if": {"required": ["top_logprobs"], "properties": {"top_logprobs": {"minimum": 1}}},
            "then": {"required": ["logprobs"], "properties": {"logprobs": {"const": True}}},
        },
    )

    model: ModelId
    messages: Annotated[
        list[Message],
        msgspec.Meta(min_length=1),
        doc("The conversation so far.", "گفت‌وگو تا اینجا.", example=[{"role": "user", "content": "سلام"}]),
    ]
    continue_final_message: Annotated[
        bool | None,
        doc(
            "Continue the last message, which is the assistant's, instead of answering it.",
            "به‌جای پاسخی تازه، آخرین پیام ادامه یابد که باید از مدل باشد.",
            example=False,
        ),
    ] = False
    add_generation_prompt: Annotated[
        bool | None,
        doc(
            "The opposite of `continue_final_message`; any other value is reported as ignored.",
            "برعکس `continue_final_message`؛ هر مقدار دیگری نادیده گرفته و گزارش می‌شود.",
            example=True,
        ),
    ] = None
    max_tokens: Annotated[
        Positive | None,
        doc(
            "The most tokens of the answer, reasoning included. Absent: as many as the context holds.",
            "حداکثر توکن‌های پاسخ، با فکر. اگر نفرستید: تا پر شدن پنجرهٔ متن مدل.",
            example=256,
        ),
    ] = None
    logprobs: Annotated[
        bool | None,
        doc("Log probabilities of the answer's tokens.", "لگاریتم احتمال توکن‌های پاسخ.", example=True),
    ] = None
    top_logprobs: Annotated[
        NonNegative | None,
        doc(
            "The number of alternatives to each token; needs `logprobs`.",
            "چند جایگزین برای هر توکن؛ همراه `logprobs`.",
            example=2,
            schema={"maximum": 20},
        ),
    ] = None
    tools: Annotated[
        list[Tool] | None, doc("Functions that the model may call.", "تابع‌هایی که مدل می‌تواند فراخوانی کند.")
    ] = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ToolChoice | None,
        doc(
            "`none`, `auto`, `required`, a function, or `allowed_tools`.",
            "`none`، `auto`، `required`، یک تابع یا `allowed_tools`.",
            example="auto",
        ),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None,
        doc("Whether the model may make several calls at once.", "آیا چند فراخوانی با هم بیاید.", example=True),
    ] = None
    reasoning_effort: Annotated[
        Effort | None,
        doc(
            "The amount of reasoning; `none` turns it off where the model supports that.",
            "چقدر فکر کند؛ `none` فکر را خاموش می‌کند، اگر مدل بتواند.",
            example="low",
        ),
    ] = None
    enable_thinking: Annotated[bool | None, _THINKING] = None
    thinking_token_budget: Annotated[
        NonNegative | None,
        doc("The most tokens of reasoning.", "حداکثر توکن برای فکر.", example=1024),
    ] = None
    include_reasoning: Annotated[
        bool | None, doc("Whether reasoning is sent.", "آیا فکر فرستاده شود.", example=True)
    ] = True
    chat_template_kwargs: Annotated[
        dict[str, Any] | None,
        doc(
            "Variables of the model's chat template, of those that it allows; `enable_thinking` is the field above.",
            "متغیرهای قالب گفت‌وگوی مدل، آن‌هایی که اجازه می‌دهد؛ `enable_thinking` همان فیلد بالاست.",
            example={"enable_thinking": False},
            schema={"properties": {"enable_thinking": {"type": "boolean"}}},
        ),
    ] = None
    modalities: Annotated[
        list[str] | None,
        doc(
            "Only text.",
            "تنها متن.",
            example=["text"],
            schema={"items": {"type": "string", "enum": ["text"]}, "minItems": 1},
        ),
    ] = None
    metadata: Annotated[
        dict[str, Any] | None,
        doc(
            "Accepted, and not used.",
            "پذیرفته می‌شود و اثری ندارد.",
            example={"order": "17"},
            schema={
                "maxProperties": 16,
                "propertyNames": {"maxLength": 64},
                "additionalProperties": {"type": "string", "maxLength": 512},
            },
        ),
    ] = None
    safety_identifier: Label = None
    prompt_cache_key: Label = None
    store: Annotated[
        bool | None,
        doc(
            "Answers are not stored; `true` is reported as ignored.",
            "پاسخ‌ها ذخیره نمی‌شوند؛ `true` نادیده گرفته و گزارش می‌شود.",
            example=False,
            no_effect_values=(False,),
        ),
    ] = None
    service_tier: Annotated[
        str | None,
        doc(
            "There is one tier; values other than `auto` and `default` are reported as ignored.",
            "تنها یک رده هست؛ هر مقداری جز `auto` و `default` نادیده گرفته و گزارش می‌شود.",
            example="auto",
            no_effect_values=("auto", "default"),
        ),
    ] = None
    verbosity: Annotated[
        str | None,
        doc(
            "Has no influence; values other than `medium` are reported as ignored.",
            "اثری ندارد؛ هر مقداری جز `medium` نادیده گرفته و گزارش می‌شود.",
            example="medium",
            no_effect_values=("medium",),
        ),
    ] = None
    prompt_cache_retention: Annotated[
        str | None,
        doc(
            "Has no influence; values other than `in-memory` are reported as ignored.",
            "اثری ندارد؛ هر مقداری جز `in-memory` نادیده گرفته و گزارش می‌شود.",
            example="in-memory",
            no_effect_values=("in-memory", "in_memory"),
        ),
    ] = None
    audio: Annotated[Any, HIDDEN] = None
    functions: Annotated[
        list[ToolFunction] | None,
        doc(
            "Functions in OpenAI's older notation; `tools` is newer.",
            "تابع‌ها به شکل قدیمی OpenAI؛ شکل تازه `tools` است.",
        ),
    ] = None
    function_call: Annotated[
        Literal["none", "auto"] | NamedFunction | None,
        doc(
            "`none`, `auto` or a function, for `functions`.",
            "`none`، `auto` یا یک تابع، برای `functions`.",
            example="auto",
        ),
    ] = None
    web_search_options: Annotated[Any, HIDDEN] = None
