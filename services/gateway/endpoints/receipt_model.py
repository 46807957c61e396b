"""The receipt of a request, as a type."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, UnsetType

from services.gateway.dialects.json_model import ResponseModel, doc
from services.gateway.endpoints.money_fields import Currency, Decimals


class StageTimes(ResponseModel):
    """Milliseconds from the arrival of a request. A stage that was not reached is absent."""

    settled: Annotated[float, doc("What it used was billed.", "مصرف آن ثبت شد.", example=1204.9)]
    authenticated: Annotated[float | UnsetType, doc("The key was known.", "کلید شناخته شد.", example=0.4)] = UNSET
    queued: Annotated[
        float | UnsetType,
        doc("The request began to wait for a slot of its key.", "درخواست در صف کلید خود ماند.", example=1.2),
    ] = UNSET
    admitted: Annotated[
        float | UnsetType, doc("The key's limits allowed the request.", "سقف‌های کلید اجازه دادند.", example=1.6)
    ] = UNSET
    worker_called: Annotated[
        float | UnsetType, doc("The last worker was called.", "آخرین ورکر صدا شد.", example=1.8)
    ] = UNSET
    first_token: Annotated[float | UnsetType, doc("The first token arrived.", "نخستین توکن رسید.", example=96.2)] = (
        UNSET
    )
    last_token: Annotated[
        float | UnsetType,
        doc("The last token or the vectors arrived.", "آخرین توکن یا بردارها رسیدند.", example=1204.7),
    ] = UNSET


class WorkerTimes(ResponseModel):
    """Milliseconds that the phases took in the worker, as far as it has measured them."""

    render: Annotated[
        float | UnsetType,
        doc("To check the request and to tokenize its prompt.", "بررسی درخواست و ساختن توکن‌های پرامپت.", example=4.2),
    ] = UNSET
    queued: Annotated[
        float | UnsetType, doc("The wait for a slot in the engine.", "انتظار برای جا در موتور.", example=3.1)
    ] = UNSET
    prefill: Annotated[
        float | UnsetType, doc("The engine read the prompt.", "خواندن پرامپت در موتور.", example=81.0)
    ] = UNSET
    decode: Annotated[
        float | UnsetType, doc("The engine generated the answer.", "ساختن پاسخ در موتور.", example=1108.3)
    ] = UNSET
    first_token: Annotated[
        float | UnsetType,
        doc("From the arrival at the worker to the first token.", "از رسیدن به ورکر تا نخستین توکن.", example=92.5),
    ] = UNSET
    embed: Annotated[
        float | UnsetType, doc("The engine made the vectors.", "ساختن بردارها در موتور.", example=12.0)
    ] = UNSET


class BilledTokens(ResponseModel):
    """The tokens that were billed."""

    prompt_tokens: Annotated[int, doc("Tokens of the prompt.", "توکن‌های پرامپت.", example=812)]
    completion_tokens: Annotated[int, doc("Tokens of the answer.", "توکن‌های پاسخ.", example=96)]
    cached_tokens: Annotated[
        int, doc("Tokens of the prompt that came from the cache.", "توکن‌های پرامپت که از کش آمدند.", example=640)
    ]
    reasoning_tokens: Annotated[int, doc("Tokens of reasoning.", "توکن‌های فکر.", example=0)]


class Receipt(ResponseModel):
    """The receipt of a request. That of a request whose server has died has only the fields that are required."""

    object: Annotated[Literal["request"], doc("The kind of object.", "نوع شیء.", example="request")]
    id: Annotated[str, doc("The request's id.", "شناسهٔ درخواست.", example="req-1f2e3d4c5b6a798012345678")]
    created: Annotated[
        float, doc("When it arrived, in seconds since 1970.", "زمان رسیدن، ثانیه از آغاز ۱۹۷۰.", example=1796000000.125)
    ]
    model: Annotated[
        str | None, doc("The model; null if it is unknown.", "مدل؛ اگر ناشناخته باشد null.", example="qwen3-8b")
    ]
    outcome: Annotated[
        Literal[
            "complete",
            "rejected",
            "failed",
            "client gone",
            "budget",
            "broken off",
            "silent",
            "drained",
            "stopped",
            "lost",
        ],
        doc("How it ended.", "چگونه تمام شد.", example="complete"),
    ]
    usage: Annotated[BilledTokens, doc("What it has used.", "آنچه مصرف کرد.")]
    cost: Annotated[
        int | UnsetType,
        doc(
            "What it cost, in the smallest unit of the currency, if the model has a price.",
            "هزینهٔ آن با کوچک‌ترین واحد پول، اگر مدل قیمت دارد.",
            example=180,
        ),
    ] = UNSET
    currency: Currency = UNSET
    decimals: Decimals = UNSET
    endpoint: Annotated[str | UnsetType, doc("The path.", "مسیر.", example="/v1/chat/completions")] = UNSET
    background: Annotated[
        bool | UnsetType, doc("Whether it went on without its client.", "آیا بدون برنامه ادامه یافت.", example=False)
    ] = UNSET
    stream: Annotated[
        bool | UnsetType | None, doc("Whether it asked for a stream.", "آیا پاسخ استریم خواست.", example=True)
    ] = UNSET
    alias: Annotated[
        str | UnsetType | None,
        doc("The alias that it named instead of the model.", "نام مستعاری که به جای مدل آمد.", example=None),
    ] = UNSET
    status: Annotated[
        int | UnsetType | None, doc("The HTTP status; null if there was none.", "وضعیت HTTP.", example=200)
    ] = UNSET
    error: Annotated[
        str | UnsetType | None,
        doc("The id of the message of the error that it got.", "شناسهٔ پیام خطایی که گرفت.", example=None),
    ] = UNSET
    finish_reasons: Annotated[
        list[str] | UnsetType,
        doc("The different reasons for which its choices ended.", "دلیل‌های تمام شدن پاسخ‌هایش.", example=["stop"]),
    ] = UNSET
    timings_ms: Annotated[StageTimes | UnsetType, doc("When each stage was reached.", "زمان رسیدن به هر مرحله.")] = (
        UNSET
    )
    worker_ms: Annotated[
        WorkerTimes | UnsetType, doc("How long the worker's phases took.", "مدت هر مرحله در ورکر.")
    ] = UNSET
    worker: Annotated[
        str | UnsetType | None, doc("The worker that served it.", "ورکری که آن را انجام داد.", example="vilix-0")
    ] = UNSET
    engine: Annotated[str | UnsetType | None, doc("The engine that ran the model.", "موتور مدل.", example="trtllm")] = (
        UNSET
    )
    engine_version: Annotated[str | UnsetType | None, doc("Its version.", "نسخهٔ آن.", example="1.2.1")] = UNSET
    retries: Annotated[
        int | UnsetType,
        doc("How often another worker had to be called.", "چند بار ورکر دیگری صدا شد.", example=0),
    ] = UNSET
    parameters: Annotated[
        str | UnsetType | None,
        doc(
            "A digest of its numbers, such as the temperature: equal for requests with equal parameters. No text of "
            "the request is part of it.",
            "چکیدهٔ عددهای درخواست، مانند temperature: برای پارامترهای یکسان، یکسان است. متنی از درخواست در آن نیست.",
            example="5f0c0a8e1b2d3c4f",
        ),
    ] = UNSET
