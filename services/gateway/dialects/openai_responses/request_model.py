"""The fields of a request of OpenAI's Responses API. Items of the input and tools are in item_models.py."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from services.gateway.dialects.json_model import HIDDEN, NULLABLE, Positive, RequestModel, doc
from services.gateway.dialects.openai_request import ModelId
from services.gateway.dialects.openai_responses.item_schemas import ITEM, TOOL, TOOL_CHOICES

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Alternatives = Annotated[int, msgspec.Meta(ge=0, le=20)]
_UNUSED: Final = doc("Accepted, and not used.", "پذیرفته می‌شود و اثری ندارد.")


class StreamOptions(RequestModel):
    """The field `stream_options`."""

    include_obfuscation: Annotated[
        bool | None,
        doc(
            "Padding of events is not available; `true` is reported as ignored.",
            "پر کردن رویدادها (padding) پشتیبانی نمی‌شود؛ `true` نادیده گرفته و گزارش می‌شود.",
            example=False,
            no_effect_values=(False,),
        ),
    ] = None


class Reasoning(RequestModel):
    """The field `reasoning`."""

    effort: Annotated[
        Effort | None,
        doc(
            "The amount of reasoning; `none` turns it off where the model supports that.",
            "چقدر فکر کند؛ `none` فکر را خاموش می‌کند، اگر مدل بتواند.",
            example="low",
        ),
    ] = None
    summary: Annotated[
        Literal["auto", "concise", "detailed"] | None,
        doc(
            "With any value, the whole reasoning is sent in the place of its summary; without one, as it is.",
            "با هر مقداری همهٔ فکر به‌جای خلاصه‌اش می‌آید؛ بدون آن، خود فکر.",
            example="auto",
        ),
    ] = None
    generate_summary: Annotated[Any, HIDDEN] = None


class TextFormat(RequestModel, tag_field="type", tag="text"):
    """Free text."""


class JsonObjectFormat(RequestModel, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(RequestModel, tag_field="type", tag="json_schema"):
    """JSON that conforms to a schema."""

    schema: Annotated[
        dict[str, Any],
        doc(
            "A JSON Schema.",
            "یک اسکیمای JSON.",
            example={"type": "object", "properties": {"name": {"type": "string"}}},
        ),
    ]
    name: Annotated[
        str | None,
        doc("A name for the schema.", "نام اسکیما.", example="person", schema={"pattern": "^[A-Za-z0-9_-]{0,64}$"}),
    ] = None
    description: Annotated[str | None, doc("Has no influence.", "اثری ندارد.", example="A person.")] = None
    strict: Annotated[
        bool | None,
        doc("The answer conforms either way.", "در هر دو حال پاسخ با اسکیما مطابقت دارد.", example=True),
    ] = None


class TextOptions(RequestModel):
    """The field `text`."""

    format: Annotated[
        TextFormat | JsonObjectFormat | JsonSchemaFormat | None,
        doc("The structure of the answer.", "قالب پاسخ."),
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


class ResponsesRequest(RequestModel, kw_only=True):
    """The body of POST /responses."""

    conditions: ClassVar = (
        {
            "anyOf": [
                {"required": ["input"], "properties": {"input": {"type": ["string", "array"]}}},
                {"required": ["previous_response_id"], "properties": {"previous_response_id": {"type": "string"}}},
            ]
        },
        {
            "not": {
                "required": ["background", "store"],
                "properties": {"background": {"const": True}, "store": {"const": False}},
            }
        },
    )

    model: ModelId
    input: Annotated[
        str | list[dict[str, Any]] | None,
        doc(
            "The user's message as text, or items: messages, reasoning, calls of functions and their results.",
            "پیام کاربر به شکل متن، یا فهرستی از پیام‌ها، فکرها، فراخوانی تابع‌ها و نتیجه‌های آن‌ها.",
            example="پایتخت ایران کجاست؟",
            alternatives=({"type": "string"}, {"type": "array", "items": ITEM, "minItems": 1}),
        ),
    ] = None
    instructions: Annotated[
        str | None,
        NULLABLE,
        doc(
            "A system message before the input, of this request only.",
            "پیام سیستم پیش از ورودی، تنها برای همین درخواست.",
            example="کوتاه پاسخ بده.",
        ),
    ] = None
    previous_response_id: Annotated[
        str | None,
        NULLABLE,
        doc(
            "A stored response, which this request continues: its input and output come before the input here.",
            "پاسخ ذخیره‌شده‌ای که این درخواست ادامهٔ آن است: ورودی و خروجی آن پیش از ورودی اینجا می‌آید.",
            example="resp_0a1b2c3d4e5f",
        ),
    ] = None
    store: Annotated[
        bool | None,
        doc(
            "Whether the response is stored, to be retrieved and continued. Absent: it is, if the operator allows it "
            "and there is space.",
            "پاسخ ذخیره شود تا بتوان آن را خواند و ادامه داد. اگر نفرستید: اگر مدیر سامانه اجازه داده باشد و جا باشد.",
            example=False,
        ),
    ] = None
    background: Annotated[
        bool | None,
        doc(
            "Answer at once, and generate without the client. The response must be stored.",
            "پاسخ HTTP فوراً بیاید و تولید در پس‌زمینه ادامه یابد. پاسخ باید ذخیره شود.",
            example=False,
        ),
    ] = False
    stream: Annotated[
        bool | None,
        doc("Send the answer as it is generated.", "پاسخ همان‌طور که نوشته می‌شود فرستاده شود.", example=True),
    ] = False
    stream_options: Annotated[StreamOptions | None, doc("Options of a stream.", "تنظیم‌های پاسخ استریم.")] = None
    tools: Annotated[
        list[dict[str, Any]] | None,
        doc(
            "Tools that the model may call: `function`, `custom`, and `namespace` with such tools. Tools that OpenAI "
            "runs itself, such as `web_search`, are accepted, not offered, and reported as ignored.",
            "ابزارهایی که مدل می‌تواند فراخوانی کند: `function` و `custom` و گروه آن‌ها در `namespace`. ابزارهایی که "
            "خود OpenAI اجرا می‌کند، مانند `web_search`، نادیده گرفته و گزارش می‌شوند.",
            example=[
                {"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": False},
            ],
            schema={"items": TOOL},
        ),
    ] = None
    tool_choice: Annotated[
        str | dict[str, Any] | None,
        doc(
            "`none`, `auto`, `required`, a tool by its type and name, or `allowed_tools`, which is a hard limit.",
            "`none`، `auto`، `required`، یک ابزار با نوع و نامش، یا `allowed_tools` که محدودیتی قطعی است.",
            example="auto",
            alternatives=TOOL_CHOICES,
        ),
    ] = None
    parallel_tool_calls: Annotated[
        bool | None,
        doc("Whether the model may make several calls at once.", "آیا چند فراخوانی با هم بیاید.", example=True),
    ] = None
    max_tool_calls: Annotated[
        Positive | None,
        NULLABLE,
        doc("The most calls in the response; further ones are left out.", "حداکثر تعداد فراخوانی در پاسخ.", example=4),
    ] = None
    max_output_tokens: Annotated[
        Positive | None,
        NULLABLE,
        doc(
            "The most tokens of the answer, reasoning included. Absent: as many as the context holds.",
            "حداکثر توکن‌های پاسخ، با فکر. اگر نفرستید: تا پر شدن پنجرهٔ متن مدل.",
            example=256,
        ),
    ] = None
    reasoning: Annotated[Reasoning | None, NULLABLE, doc("Options of reasoning.", "تنظیم‌های فکر کردن.")] = None
    text: Annotated[TextOptions | None, doc("Options of the answer's text.", "تنظیم‌های متن پاسخ.")] = None
    temperature: Annotated[
        float | None,
        NULLABLE,
        doc(
            "Randomness of the choice of tokens; 0 for the steadiest answers.",
            "میزان تصادفی بودن انتخاب توکن‌ها؛ صفر برای ثابت‌ترین پاسخ.",
            example=0.7,
            schema={"minimum": 0, "maximum": 2},
        ),
    ] = None
    top_p: Annotated[
        float | None,
        NULLABLE,
        doc(
            "Only the likeliest tokens up to this sum of probability.",
            "انتخاب فقط از محتمل‌ترین توکن‌ها، تا این مجموع احتمال.",
            example=0.95,
            schema={"minimum": 0, "maximum": 1},
        ),
    ] = None
    presence_penalty: Annotated[
        float | None,
        doc(
            "Penalty on repetition, by whether a token was used.",
            "جریمهٔ تکرار، با یک بار آمدن توکن.",
            example=0.5,
            schema={"minimum": -2, "maximum": 2},
        ),
    ] = None
    frequency_penalty: Annotated[
        float | None,
        doc(
            "Penalty on repetition, by how often a token was used.",
            "جریمهٔ تکرار، متناسب با دفعات آمدن هر توکن.",
            example=0.5,
            schema={"minimum": -2, "maximum": 2},
        ),
    ] = None
    top_logprobs: Annotated[
        Alternatives | None,
        doc(
            "The number of alternatives to each token, with `message.output_text.logprobs` in `include`.",
            "چند جایگزین برای هر توکن، همراه `message.output_text.logprobs` در `include`.",
            example=2,
        ),
    ] = None
    truncation: Annotated[
        Literal["disabled", "auto"] | None,
        NULLABLE,
        doc(
            "With `auto`, the oldest items are left out until the prompt fits the model; otherwise a prompt that is "
            "too long is rejected.",
            "با `auto` قدیمی‌ترین موردها حذف می‌شوند تا ورودی در مدل جا شود؛ وگرنه ورودی بلند رد می‌شود.",
            example="disabled",
        ),
    ] = None
    include: Annotated[
        list[str] | None,
        NULLABLE,
        doc(
            "`reasoning.encrypted_content` and `message.output_text.logprobs` have an effect.",
            "`reasoning.encrypted_content` و `message.output_text.logprobs` اثر دارند.",
            example=["reasoning.encrypted_content"],
        ),
    ] = None
    metadata: Annotated[
        dict[str, Any] | None,
        NULLABLE,
        doc(
            "Returned with the response.",
            "همراه پاسخ برمی‌گردد.",
            example={"order": "17"},
            schema={
                "maxProperties": 16,
                "propertyNames": {"maxLength": 64},
                "additionalProperties": {"type": "string", "maxLength": 512},
            },
        ),
    ] = None
    prompt_cache_key: Annotated[
        str | None,
        NULLABLE,
        doc(
            "A name for requests that begin with the same text, which may then go to the same worker.",
            "نامی برای درخواست‌هایی که ابتدایشان یکی است تا بتوانند به یک ورکر برسند.",
            example="session-17",
        ),
    ] = None
    safety_identifier: Annotated[str | None, NULLABLE, _UNUSED] = None
    user: Annotated[str | None, NULLABLE, _UNUSED] = None
    client_metadata: Annotated[dict[str, Any] | None, HIDDEN] = None
    service_tier: Annotated[
        str | None,
        doc(
            "There is one tier; values other than `auto` and `default` are reported as ignored.",
            "تنها یک رده هست؛ هر مقداری جز `auto` و `default` نادیده گرفته و گزارش می‌شود.",
            example="auto",
            no_effect_values=("auto", "default"),
        ),
    ] = None
    dry_run: Annotated[
        bool | None,
        doc("Only show the prompt.", "فقط پرامپت نهایی نشان داده شود.", example=False),
    ] = False
    conversation: Annotated[Any, HIDDEN] = None
    prompt: Annotated[Any, HIDDEN] = None
