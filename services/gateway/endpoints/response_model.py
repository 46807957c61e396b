"""The responses about models and usage, as types."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, UnsetType

from services.gateway.dialects.json_model import ResponseModel, doc
from services.gateway.dialects.openai_document import Created
from services.gateway.endpoints.money_fields import Currency, Decimals


class Engine(ResponseModel):
    """The program that runs a model."""

    name: Annotated[str, doc("Its name.", "نام آن.", example="trtllm")]
    version: Annotated[str | UnsetType, doc("Its version.", "نسخهٔ آن.", example="1.1.0")] = UNSET


class Model(ResponseModel):
    """A model. A model that is not available has only the first five fields."""

    id: Annotated[
        str, doc("The model's id, for the field `model`.", "شناسهٔ مدل، برای فیلد `model`.", example="qwen3-8b")
    ]
    object: Annotated[Literal["model"], doc("The kind of object.", "نوع شیء.", example="model")]
    created: Created
    owned_by: Annotated[str, doc("The owner of the model.", "صاحب مدل.", example="Qwen")]
    available: Annotated[
        bool, doc("Whether the model can answer at the moment.", "آیا همین حالا پاسخ می‌دهد.", example=True)
    ]
    alias_of: Annotated[
        str | UnsetType,
        doc("For an alias: the id of its model.", "در نام مستعار، شناسهٔ مدل آن.", example="qwen3-8b"),
    ] = UNSET
    context_length: Annotated[
        int | UnsetType,
        doc(
            "The most tokens of conversation and answer together; for an embedding model, of one text.",
            "حداکثر توکن‌های گفت‌وگو و پاسخ با هم؛ در مدل بردار، حداکثر توکن‌های یک متن.",
            example=40960,
        ),
    ] = UNSET
    capabilities: Annotated[
        dict[str, bool | int] | UnsetType,
        doc("What the model can do.", "آنچه مدل می‌تواند.", example={"chat": True, "tools": True}),
    ] = UNSET
    supported_parameters: Annotated[
        list[str] | UnsetType,
        doc("The parameters that the model supports.", "پارامترهایی که مدل رعایت می‌کند.", example=["temperature"]),
    ] = UNSET
    dimensions: Annotated[
        int | UnsetType,
        doc("For an embedding model: the length of its vectors.", "در مدل بردار، طول بردارها.", example=1024),
    ] = UNSET
    supports_dimensions: Annotated[
        bool | UnsetType,
        doc(
            "For an embedding model: whether it supports shorter vectors.",
            "در مدل بردار، آیا بردار کوتاه‌تر می‌دهد.",
            example=True,
        ),
    ] = UNSET
    normalized: Annotated[
        bool | UnsetType,
        doc(
            "For an embedding model: whether vectors have length 1.",
            "در مدل بردار، آیا طول هر بردار ۱ است.",
            example=True,
        ),
    ] = UNSET
    default_input_type: Annotated[
        str | UnsetType,
        doc(
            "For an embedding model: the role of texts without `input_type`.",
            "در مدل بردار، نقش متن وقتی `input_type` نیامده باشد.",
            example="passage",
        ),
    ] = UNSET
    token_input: Annotated[
        str | UnsetType,
        doc(
            "For an embedding model: the vocabulary of token ids in `input`.",
            "در مدل بردار، واژگان شناسه‌های توکن در `input`.",
            example="cl100k_base",
        ),
    ] = UNSET
    text_normalization: Annotated[
        dict[str, str] | UnsetType,
        doc(
            "For an embedding model: how the spelling of texts is unified without `text_normalization`, and the "
            "version of that spelling. Vectors of different versions must not be mixed in one index.",
            "در مدل بردار، یکسان‌سازی املا وقتی `text_normalization` نیامده باشد، و نسخهٔ آن. بردارهای نسخه‌های "
            "متفاوت را در یک ایندکس با هم نیاورید.",
            example={"default": "auto", "version": "persian-1"},
        ),
    ] = UNSET
    engine: Annotated[Engine | UnsetType, doc("The program that runs the model.", "برنامه‌ای که مدل را اجرا می‌کند.")] = (
        UNSET
    )
    checkpoint: Annotated[str | UnsetType, doc("The weights.", "وزن‌ها.", example="Qwen/Qwen3-8B")] = UNSET
    descriptions: Annotated[
        dict[str, str] | UnsetType,
        doc("Descriptions by language.", "توضیح به تفکیک زبان.", example={"en": "A model for chat."}),
    ] = UNSET


class ModelList(ResponseModel):
    """All models."""

    object: Annotated[Literal["list"], doc("The kind of object.", "نوع شیء.", example="list")]
    data: Annotated[list[Model], doc("The models.", "مدل‌ها.")]


class UsedTokens(ResponseModel):
    """Numbers of requests and tokens."""

    requests: Annotated[int, doc("Requests that have ended.", "درخواست‌هایی که تمام شده‌اند.", example=120)]
    prompt_tokens: Annotated[int, doc("Tokens of prompts.", "توکن‌های پرامپت‌ها.", example=48_000)]
    completion_tokens: Annotated[int, doc("Tokens of answers.", "توکن‌های پاسخ‌ها.", example=21_000)]
    cached_tokens: Annotated[
        int,
        doc("Tokens of prompts that did not have to be read again.", "توکن‌هایی که دوباره خوانده نشدند.", example=9_000),
    ]
    reasoning_tokens: Annotated[int, doc("Tokens of reasoning.", "توکن‌های فکر.", example=5_000)]
    cost: Annotated[
        int | UnsetType,
        doc(
            "What they cost, in the smallest unit of the currency, if models have prices.",
            "هزینهٔ آن‌ها با کوچک‌ترین واحد پول، اگر مدل‌ها قیمت دارند.",
            example=18_600,
        ),
    ] = UNSET


class Week(ResponseModel):
    """The money spent in a week."""

    period: Annotated[str, doc("Its Monday, UTC.", "دوشنبهٔ آن به وقت UTC.", example="2026-11-30")]
    ends: Annotated[str, doc("When the next one begins.", "زمان آغاز دوبارهٔ آن.", example="2026-12-07T00:00:00Z")]
    cost: Annotated[int, doc("In the smallest unit of the currency.", "با کوچک‌ترین واحد پول.", example=18_600)]


class Period(UsedTokens, kw_only=True):
    """The use in a period."""

    period: Annotated[
        str,
        doc(
            "A day (2026-11-30) or a month (2026-11), UTC.",
            "یک روز (2026-11-30) یا یک ماه (2026-11) به وقت UTC.",
            example="2026-11-30",
        ),
    ]
    ends: Annotated[str, doc("When the next one begins.", "زمان آغاز دوبارهٔ آن.", example="2026-12-01T00:00:00Z")]
    models: Annotated[dict[str, UsedTokens], doc("The same by model.", "همین‌ها به تفکیک مدل.")]


class KeyLimits(ResponseModel):
    """Limits of a key."""

    rpm: Annotated[int | None, doc("Requests per minute.", "درخواست در دقیقه.", example=60)]
    tpm: Annotated[int | None, doc("Tokens per minute.", "توکن در دقیقه.", example=100_000)]
    concurrency: Annotated[int | None, doc("Requests at the same time.", "درخواست هم‌زمان.", example=8)]
    daily_tokens: Annotated[int | None, doc("Tokens per day.", "توکن روزانه.", example=1_000_000)]
    monthly_tokens: Annotated[int | None, doc("Tokens per month.", "توکن ماهانه.", example=None)]
    daily_cost: Annotated[int | UnsetType | None, doc("Money per day.", "هزینهٔ روزانه.", example=5_000_000)] = UNSET
    weekly_cost: Annotated[int | UnsetType | None, doc("Money per week.", "هزینهٔ هفتگی.", example=None)] = UNSET
    monthly_cost: Annotated[int | UnsetType | None, doc("Money per month.", "هزینهٔ ماهانه.", example=None)] = UNSET


class KeyDescription(ResponseModel):
    """A key."""

    id: Annotated[str, doc("The key's id.", "شناسهٔ کلید.", example="k_7f3a")]
    name: Annotated[str, doc("The key's name.", "نام کلید.", example="shop")]
    expires: Annotated[int | None, doc("Seconds since 1970.", "ثانیه از آغاز ۱۹۷۰.", example=1_830_000_000)]
    tier: Annotated[str | None, doc("The key's tier.", "ردهٔ کلید.", example="standard")]


class KeyUsage(ResponseModel):
    """The use of a key."""

    object: Annotated[Literal["usage"], doc("The kind of object.", "نوع شیء.", example="usage")]
    key: Annotated[KeyDescription, doc("The key that asks.", "کلیدی که می‌پرسد.")]
    today: Annotated[Period, doc("Today, UTC.", "امروز به وقت UTC.")]
    month: Annotated[Period, doc("This month, UTC.", "این ماه به وقت UTC.")]
    limits: Annotated[KeyLimits, doc("Its limits; `null` is no limit.", "سقف‌ها؛ `null` یعنی بدون سقف.")]
    remaining: Annotated[KeyLimits, doc("What is left of them.", "باقی‌ماندهٔ آن‌ها.")]
    model_limits: Annotated[
        dict[str, KeyLimits], doc("Stricter limits of single models.", "سقف‌های سخت‌گیرانه‌تر برای تک‌مدل‌ها.")
    ]
    running: Annotated[int, doc("Requests at this moment.", "درخواست‌های همین لحظه.", example=2)]
    reserved_tokens: Annotated[
        int,
        doc(
            "Tokens that running requests have reserved.",
            "توکن‌هایی که درخواست‌های در جریان رزرو کرده‌اند.",
            example=1_200,
        ),
    ]
    week: Annotated[Week | UnsetType, doc("This week, if models have prices.", "این هفته، اگر مدل‌ها قیمت دارند.")] = (
        UNSET
    )
    reserved_cost: Annotated[
        int | UnsetType,
        doc(
            "The money that running requests have reserved.",
            "پولی که درخواست‌های در جریان رزرو کرده‌اند.",
            example=900,
        ),
    ] = UNSET
    currency: Currency = UNSET
    decimals: Decimals = UNSET
