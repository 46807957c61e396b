"""The fields that OpenAI's chat completions and text completions share, with those of other servers (vLLM, SGLang)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import msgspec

from services.gateway.dialects.json_model import REQUIRED, NonNegative, Positive, RequestModel, doc

ModelId = Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-8b")]
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# Some clients write -1 for "all".
TopK = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
IMAGE_URL_PATTERN: Final = "^(data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}|https://.+)$"
_LABEL: Final = doc("Accepted, and not used.", "پذیرفته می‌شود و اثری ندارد.", example="user-123")
Label = Annotated[str | None, _LABEL]
Schema = Annotated[dict[str, Any] | str | None, doc("A JSON Schema.", "یک اسکیمای JSON.", example={"type": "object"})]
Regex = Annotated[str | None, doc("A regular expression.", "یک عبارت منظم (regex).", example="[0-9]{4}")]
Choice = Annotated[
    list[str] | None,
    doc(
        "The strings of which the answer is one.",
        "پاسخ یکی از این‌هاست.",
        example=["yes", "no"],
        schema={"items": {"type": "string", "minLength": 1}, "minItems": 1},
    ),
]
Grammar = Annotated[
    str | None,
    doc(
        "A grammar: GBNF, or llguidance's Lark if it begins with %llguidance.",
        "یک گرامر: GBNF، یا Lark در نگارش llguidance اگر با %llguidance شروع شود.",
        example='root ::= "yes" | "no"',
    ),
]


class StreamOptions(RequestModel):
    """The field `stream_options`."""

    include_usage: Annotated[
        bool | None,
        doc("End with an event of token counts.", "در پایان رویدادی با تعداد توکن‌ها بیاید.", example=True),
    ] = None
    continuous_usage_stats: Annotated[
        bool | None, doc("Send token counts in every event.", "تعداد توکن‌ها در هر رویداد.", example=False)
    ] = None
    include_obfuscation: Annotated[
        bool | None,
        doc(
            "Padding of events is not available; `true` is reported as ignored.",
            "پر کردن رویدادها (padding) پشتیبانی نمی‌شود؛ `true` نادیده گرفته و گزارش می‌شود.",
            example=False,
            no_effect_values=(False,),
        ),
    ] = None


class TextFormat(RequestModel, tag_field="type", tag="text"):
    """Free text."""

    # It has no influence without `json_schema`.


class JsonObjectFormat(RequestModel, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchema(RequestModel):
    """A schema with its name."""

    name: Annotated[
        str | None,
        REQUIRED,
        doc("A name for the schema.", "نام اسکیما.", example="person", schema={"pattern": "^[A-Za-z0-9_-]{0,64}$"}),
    ] = None
    schema: Annotated[
        dict[str, Any] | None,
        REQUIRED,
        doc(
            "A JSON Schema.",
            "یک اسکیمای JSON.",
            example={"type": "object", "properties": {"name": {"type": "string"}}},
        ),
    ] = None
    description: Annotated[str | None, doc("Has no influence.", "اثری ندارد.", example="A person.")] = None
    strict: Annotated[
        bool | None,
        doc("The answer conforms either way.", "در هر دو حال پاسخ با اسکیما مطابقت دارد.", example=True),
    ] = None


class JsonSchemaFormat(RequestModel, tag_field="type", tag="json_schema"):
    """JSON that conforms to a schema."""

    json_schema: Annotated[JsonSchema, doc("The schema.", "اسکیما.")]


def at_most_one_of(*names: str) -> dict[str, Any]:
    """Return a schema for objects that have at most one of these fields."""
    return {"not": {"anyOf": [{"required": list(pair)} for pair in itertools.combinations(names, 2)]}}


class StructuredOutputs(RequestModel):
    """The field `structured_outputs`."""

    conditions: ClassVar = (at_most_one_of("json", "regex", "choice", "grammar", "json_object", "structural_tag"),)

    json: Schema = None
    regex: Regex = None
    choice: Choice = None
    grammar: Grammar = None
    json_object: Annotated[bool | None, doc("Any JSON object.", "هر شیء JSON.", example=True)] = None
    structural_tag: Annotated[
        dict[str, Any] | str | None,
        doc(
            "Structured parts within free text, where the engine supports it.",
            "بخش‌های قالب‌دار در متنی آزاد، اگر موتور بتواند.",
        ),
    ] = None


class OpenAIRequest(RequestModel):
    """Base of both requests: how tokens are chosen, when generation stops, and how the answer is sent."""

    conditions: ClassVar[tuple[Mapping[str, Any], ...]] = (
        at_most_one_of(
            *("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice"),
            "guided_grammar",
        ),
    )

    n: Annotated[Positive | None, doc("How many answers to generate.", "چند پاسخ.", example=1)] = 1
    stream: Annotated[
        bool | None,
        doc("Send the answer as it is generated.", "پاسخ همان‌طور که نوشته می‌شود فرستاده شود.", example=True),
    ] = False
    stream_options: Annotated[
        StreamOptions | None,
        doc("Options of a stream; only with `stream`.", "تنظیم‌های پاسخ استریم؛ تنها همراه `stream`."),
    ] = None
    max_tokens: Positive | None = None
    max_completion_tokens: Annotated[
        Positive | None,
        doc(
            "The newer name of `max_tokens`; if both are given, this one applies.",
            "نام تازهٔ `max_tokens`؛ اگر هر دو بیایند این یکی اعتبار دارد.",
            example=256,
        ),
    ] = None
    min_tokens: Annotated[
        NonNegative | None,
        doc(
            "The model does not end the answer before so many tokens.",
            "پاسخ پیش از این تعداد توکن خودبه‌خود تمام نمی‌شود.",
            example=0,
        ),
    ] = None
    temperature: Annotated[
        float | None,
        doc(
            "Randomness of the choice of tokens; 0 for the steadiest answers.",
            "میزان تصادفی بودن انتخاب توکن‌ها؛ صفر برای ثابت‌ترین پاسخ.",
            example=0.7,
            schema={"minimum": 0, "maximum": 2},
        ),
    ] = None
    top_p: Annotated[
        float | None,
        doc(
            "Only the likeliest tokens up to this sum of probability.",
            "انتخاب فقط از محتمل‌ترین توکن‌ها، تا این مجموع احتمال.",
            example=0.95,
            schema={"minimum": 0, "maximum": 1},
        ),
    ] = None
    top_k: Annotated[
        TopK | None,
        doc(
            "Only so many of the likeliest tokens; 0 and -1 stand for all.",
            "انتخاب فقط از این تعداد توکن محتمل‌تر؛ `0` و `-1` یعنی همه.",
            example=40,
        ),
    ] = None
    min_p: Annotated[
        float | None,
        doc(
            "Only tokens of at least this share of the likeliest token's probability.",
            "انتخاب فقط از توکن‌هایی با دست‌کم این نسبت از احتمال محتمل‌ترین توکن.",
            example=0.05,
            schema={"minimum": 0, "maximum": 1},
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
    presence_penalty: Annotated[
        float | None,
        doc(
            "Penalty on repetition, by whether a token was used.",
            "جریمهٔ تکرار، با یک بار آمدن توکن.",
            example=0.5,
            schema={"minimum": -2, "maximum": 2},
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        doc(
            "Penalty on repetition, as a factor; 1 does nothing.",
            "جریمهٔ تکرار به شکل ضریب؛ ۱ بی‌اثر است.",
            example=1.1,
            schema={"minimum": 0.01, "maximum": 2},
        ),
    ] = None
    seed: Annotated[Seed | None, doc("Makes answers more repeatable.", "برای پاسخ تکرارپذیرتر.", example=7)] = None
    stop: Annotated[
        str | list[str] | None,
        doc(
            "The answer ends before one of these strings. They have no effect within reasoning.",
            "پاسخ پیش از یکی از این‌ها تمام می‌شود. در فکرها اثری ندارند.",
            example=["\n\n"],
            schema={"maxItems": 64},
        ),
    ] = None
    stop_token_ids: Annotated[
        list[TokenId] | None,
        doc(
            "The answer ends at one of these tokens.",
            "پاسخ با رسیدن به یکی از این توکن‌ها تمام می‌شود.",
            example=[151645],
            schema={"maxItems": 64},
        ),
    ] = None
    ignore_eos: Annotated[
        bool | None,
        doc(
            "Continue past the model's own end, up to the limit; for measurements.",
            "پاسخ پس از توکن پایان مدل هم تا سقف طول ادامه یابد؛ برای بنچمارک.",
            example=False,
            default=False,
        ),
    ] = None
    skip_special_tokens: Annotated[
        bool | None,
        doc(
            "Leave the model's special tokens out of the text.",
            "توکن‌های ویژهٔ مدل در متن نیایند.",
            example=True,
            default=True,
        ),
    ] = None
    logit_bias: Annotated[
        dict[str, Any] | None,
        doc(
            "Makes tokens more or less likely, by token id.",
            "احتمال توکن‌ها را با شناسهٔ توکن کم و زیاد می‌کند.",
            example={"1734": -100},
            schema={
                "propertyNames": {"pattern": "^[0-9]{1,9}$"},
                "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            },
        ),
    ] = None
    response_format: Annotated[
        TextFormat | JsonObjectFormat | JsonSchemaFormat | None,
        doc(
            "`text`, `json_object`, or `json_schema` with a schema to which the answer conforms. With tools that the "
            "model may call, the answer is either calls or in this format.",
            "`text` یا `json_object` یا `json_schema` با اسکیمایی که پاسخ با آن مطابقت دارد. اگر مدل بتواند "
            "ابزاری فراخوانی کند، پاسخ یا فراخوانی است یا در این قالب.",
            example={"type": "json_object"},
        ),
    ] = None
    structured_outputs: Annotated[
        StructuredOutputs | None,
        doc(
            "Structured output, in vLLM's notation: one of these.",
            "قالب پاسخ با نام‌های vLLM: یکی از این‌ها.",
            example={"choice": ["yes", "no"]},
        ),
    ] = None
    guided_json: Schema = None
    guided_regex: Regex = None
    guided_choice: Choice = None
    guided_grammar: Grammar = None
    user: Label = None
    dry_run: Annotated[
        bool | None,
        doc(
            "Return what would become of the request, a `DryRun`, instead of an answer.",
            "به‌جای پاسخ، نتیجهٔ اجرای آزمایشی: یک `DryRun`.",
            example=False,
        ),
    ] = False
