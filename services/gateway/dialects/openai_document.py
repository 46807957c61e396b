"""Headers, errors and objects of responses that the documents of OpenAI's APIs share."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import UNSET, UnsetType

from services.gateway.dialects.json_model import ResponseModel, doc
from services.gateway.dialects.operation_document import ContentDocument, ErrorDocument, HeaderDocument, LocalizedText
from services.runtime.messages.message import Message

_MESSAGE: Final = Message("out_of_range", field="max_tokens", value=0, least=1, most=2**31 - 1).text()
FinishReason = Literal["stop", "length", "tool_calls", "function_call", "content_filter"]
Created = Annotated[int, doc("Seconds since 1970.", "ثانیه از آغاز ۱۹۷۰.", example=1_796_000_000)]


class PromptTokensDetails(ResponseModel):
    """Details of the tokens of a prompt."""

    cached_tokens: Annotated[
        int, doc("Tokens that did not have to be read again.", "توکن‌هایی که دوباره خوانده نشدند.", example=0)
    ]


class CompletionTokensDetails(ResponseModel):
    """Details of the tokens of an answer."""

    reasoning_tokens: Annotated[int, doc("Tokens of reasoning.", "توکن‌های فکر.", example=0)]


class Usage(ResponseModel):
    """The tokens of a request."""

    prompt_tokens: Annotated[int, doc("Tokens of the prompt.", "توکن‌های پرامپت.", example=9)]
    completion_tokens: Annotated[
        int, doc("Tokens of the answer, reasoning included.", "توکن‌های پاسخ، با فکر.", example=12)
    ]
    total_tokens: Annotated[int, doc("The sum of both.", "جمع هر دو.", example=21)]
    prompt_tokens_details: Annotated[
        PromptTokensDetails | UnsetType, doc("Details of the prompt.", "جزئیات پرامپت.")
    ] = UNSET
    completion_tokens_details: Annotated[
        CompletionTokensDetails | UnsetType, doc("Details of the answer.", "جزئیات پاسخ.")
    ] = UNSET


class EndedByBudget(ResponseModel):
    """The budget that ended an answer."""

    ended_by: Annotated[
        Literal["daily_tokens", "monthly_tokens", "daily_cost", "weekly_cost", "monthly_cost"],
        doc("The budget that is used up.", "سهمیه‌ای که تمام شده است.", example="daily_tokens"),
    ]
    scope: Annotated[
        Literal["key", "model"],
        doc(
            "Whether it is the budget of the whole key, or that of the key for this model.",
            "سهمیهٔ کل کلید یا سهمیهٔ کلید برای همین مدل.",
            example="key",
        ),
    ]


ServiceTier = Annotated[Literal["default"], doc("Always `default`.", "همیشه `default`.", example="default")]
Fingerprint = Annotated[
    str,
    doc(
        "It changes with the weights, the engine or the version that answer.",
        "با تغییر وزن‌ها، موتور یا نسخه‌ای که پاسخ می‌دهد عوض می‌شود.",
        example="fp_0a1b2c3d4e",
    ),
]
EndedBy = Annotated[
    EndedByBudget | UnsetType,
    doc(
        "Only present where a budget of the key ended the answer. `finish_reason` is `length` then. In a stream it is "
        "in the last events.",
        "تنها وقتی می‌آید که سهمیهٔ کلید پاسخ را پایان داده باشد؛ آنگاه `finish_reason` برابر `length` است. در پاسخ "
        "استریم در رویدادهای پایانی می‌آید.",
    ),
]


class DryRun(ResponseModel):
    """The response to a request with `dry_run`."""

    object: Annotated[
        Literal["chat.completion.dry_run", "text_completion.dry_run"],
        doc("The kind of object.", "نوع شیء.", example="chat.completion.dry_run"),
    ]
    model: Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-8b")]
    prompt: Annotated[
        str, doc("What the model would read.", "آنچه مدل می‌خواند.", example="<|im_start|>user\nسلام<|im_end|>\n")
    ]
    prompt_tokens: Annotated[
        int, doc("Its tokens, those of images included.", "توکن‌های آن، با توکن‌های تصویرها.", example=9)
    ]
    remaining_tokens: Annotated[
        int,
        doc(
            "The tokens of the context that are left for the answer.",
            "آنچه از پنجرهٔ متن مدل برای پاسخ می‌ماند.",
            example=40951,
        ),
    ]
    ignored_parameters: Annotated[
        list[str], doc("Fields that would have no influence.", "فیلدهایی که اثری نمی‌داشتند.", example=["store"])
    ]
    worker: Annotated[str, doc("The worker that would answer.", "ورکری که پاسخ می‌داد.", example="10.0.0.7:8001")]


class ErrorObject(ResponseModel):
    """An error."""

    message: Annotated[
        str,
        doc(
            "What is wrong, with the value and what to do.",
            "چه چیزی با چه مقداری نادرست بود و چه باید کرد.",
            example=_MESSAGE,
        ),
    ]
    type: Annotated[str, doc("The kind of error.", "نوع خطا.", example="invalid_request_error")]
    param: Annotated[
        str | None, doc("The path of the field that is wrong.", "فیلدی که نادرست است.", example="max_tokens")
    ]
    code: Annotated[str, doc("A more precise name of the error.", "نام دقیق‌تر خطا.", example="context_length_exceeded")]


class Error(ResponseModel):
    """The body of an error."""

    error: Annotated[ErrorObject, doc("The error.", "خطا.")]


REQUEST_ID: Final = HeaderDocument(
    component="RequestId",
    description=LocalizedText("The request's id, for reports.", "شناسهٔ درخواست، برای گزارش."),
    schema={"type": "string"},
)
HEADERS: Final = {
    "x-request-id": REQUEST_ID,
    "x-ignored-params": HeaderDocument(
        component="IgnoredParams",
        description=LocalizedText(
            "Fields of the request that had no influence. A stream whose headers were sent before they were known has "
            "them in a comment.",
            "فیلدهایی از درخواست که اثری نداشتند. اگر پس از فرستادن هدرهای پاسخ استریم معلوم شوند، در یک خط توضیح همان "
            "استریم می‌آیند.",
        ),
        schema={"type": "string"},
    ),
    "x-ratelimit-limit-requests": HeaderDocument(
        component="LimitRequests",
        description=LocalizedText(
            "The limit of requests per minute; 2147483647 if the key has none. Tokens have the same three headers.",
            "سقف درخواست در دقیقه؛ 2147483647 اگر کلید سقفی ندارد. برای توکن هم همین سه هدر هست.",
        ),
        schema={"type": "integer"},
    ),
    "x-ratelimit-remaining-requests": HeaderDocument(
        component="RemainingRequests",
        description=LocalizedText("The requests that are left of it.", "باقی‌ماندهٔ آن."),
        schema={"type": "integer"},
    ),
    "x-ratelimit-reset-requests": HeaderDocument(
        component="ResetRequests",
        description=LocalizedText(
            "The time until all of it is available again, such as `12ms` or `1m30s`.",
            "زمان تا پر شدن کامل سقف، مانند `12ms` یا `1m30s`.",
        ),
        schema={"type": "string"},
    ),
}
"""The headers of responses that have used a model."""
ERROR: Final = ErrorDocument(
    component="Error",
    description=LocalizedText(
        "The request could not be answered. Errors of every status have this form; the header `Accept-Language` (`en` "
        "or `fa`) chooses the language of `message`, and changes nothing else.",
        "درخواست ناموفق بود. خطا با هر وضعیتی همین شکل را دارد؛ زبان `message` را هدر `Accept-Language` (`en` یا `fa`) "
        "تعیین می‌کند و جز آن چیزی تغییر نمی‌کند.",
    ),
    headers={
        "content-language": HeaderDocument(
            component="ContentLanguage",
            description=LocalizedText("The language of the message.", "زبان پیام."),
            schema={"type": "string", "enum": ["en", "fa"]},
        ),
        "x-error-message-id": HeaderDocument(
            component="ErrorMessageId",
            description=LocalizedText(
                "The id of the message, which is the same in every language and however the message is worded. A "
                "stream that fails has it in a comment before the event of the error.",
                "شناسهٔ پیام خطا، که در هر زبان و با هر جمله‌بندی همین است. در پاسخ استریم، در یک خط توضیح پیش از رویداد "
                "خطا می‌آید.",
            ),
            schema={"type": "string"},
        ),
        "x-request-id": REQUEST_ID,
        "retry-after": HeaderDocument(
            component="RetryAfter",
            description=LocalizedText("Seconds to wait before the next attempt.", "ثانیه‌های صبر پیش از تلاش بعدی."),
            schema={"type": "integer"},
        ),
    },
    contents=(
        ContentDocument(
            models=(Error,),
            examples={
                "wrong_value": {
                    "error": {
                        "message": _MESSAGE,
                        "type": "invalid_request_error",
                        "param": "max_tokens",
                        "code": "integer_below_min_value",
                    }
                }
            },
        ),
    ),
)
ERRORS: Final = {"4XX": ERROR, "5XX": ERROR}
EXAMPLE_USAGE: Final = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
EXAMPLE_DRY_RUN: Final = {
    "object": "chat.completion.dry_run",
    "model": "qwen3-8b",
    "prompt": "<|im_start|>user\nسلام<|im_end|>\n<|im_start|>assistant\n",
    "prompt_tokens": 9,
    "remaining_tokens": 40951,
    "ignored_parameters": [],
    "worker": "10.0.0.7:8001",
}
