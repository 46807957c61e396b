"""The objects of the Responses API, for the API's document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType

from services.gateway.dialects.json_model import ResponseModel, doc
from services.gateway.dialects.openai_document import Created, EndedBy

ResponseId = Annotated[str, doc("The response's id.", "شناسهٔ پاسخ.", example="resp_0a1b2c3d4e5f")]
Status = Annotated[
    Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"],
    doc("How far it is.", "وضعیت پیشرفت آن.", example="completed"),
]
Repeated = doc("As in the request.", "همان‌طور که در درخواست آمده.")


class InputTokensDetails(ResponseModel):
    """Details of the tokens of an input."""

    cached_tokens: Annotated[
        int, doc("Tokens that did not have to be read again.", "توکن‌هایی که دوباره خوانده نشدند.", example=0)
    ]
    cache_write_tokens: Annotated[int, doc("Always 0.", "همیشه صفر.", example=0)]


class OutputTokensDetails(ResponseModel):
    """Details of the tokens of an output."""

    reasoning_tokens: Annotated[int, doc("Tokens of reasoning.", "توکن‌های فکر.", example=0)]


class ResponseUsage(ResponseModel):
    """The tokens of a response."""

    input_tokens: Annotated[int, doc("Tokens of the prompt.", "توکن‌های پرامپت.", example=9)]
    input_tokens_details: Annotated[InputTokensDetails, doc("Details of the prompt.", "جزئیات پرامپت.")]
    output_tokens: Annotated[int, doc("Tokens of the answer, reasoning included.", "توکن‌های پاسخ، با فکر.", example=12)]
    output_tokens_details: Annotated[OutputTokensDetails, doc("Details of the answer.", "جزئیات پاسخ.")]
    total_tokens: Annotated[int, doc("The sum of both.", "جمع هر دو.", example=21)]


class IncompleteDetails(ResponseModel):
    """The reason for which a response is not complete."""

    reason: Annotated[
        Literal["max_output_tokens", "content_filter"],
        doc("What ended it.", "چه چیزی پایانش داد.", example="max_output_tokens"),
    ]


class ResponseError(ResponseModel):
    """The error of a response that has failed."""

    code: Annotated[str, doc("The kind of error.", "نوع خطا.", example="server_error")]
    message: Annotated[str, doc("What went wrong.", "چه شد.", example="Try again.")]


class OutputItem(ResponseModel):
    """A part of the output: reasoning, a message, or a call of a tool."""

    id: Annotated[str, doc("The item's id.", "شناسهٔ این بخش.", example="msg_0a1b2c3d4e5f0000")]
    type: Annotated[
        Literal["reasoning", "message", "function_call", "custom_tool_call"],
        doc("What it is.", "نوع آن.", example="message"),
    ]
    status: Annotated[
        Literal["in_progress", "completed", "incomplete"],
        doc("Whether it is complete.", "کامل است یا نه.", example="completed"),
    ]
    role: Annotated[Literal["assistant"] | UnsetType, doc("Of a message.", "در پیام.", example="assistant")] = UNSET
    content: Annotated[
        list[dict[str, Any]] | UnsetType,
        doc(
            "Of a message, its text with `annotations` and `logprobs`; of reasoning, its text.",
            "در پیام، متن آن با `annotations` و `logprobs`؛ در فکر، متن آن.",
        ),
    ] = UNSET
    summary: Annotated[
        list[dict[str, Any]] | UnsetType,
        doc("Of reasoning, if a summary was asked for.", "در فکر، اگر خلاصه خواسته شده باشد."),
    ] = UNSET
    encrypted_content: Annotated[
        str | UnsetType,
        doc(
            "Of reasoning, sealed for this key's owner and model: send it back in the next request.",
            "در فکر، رمزگذاری‌شده برای صاحب کلید و همین مدل: آن را در درخواست بعدی برگردانید.",
        ),
    ] = UNSET
    call_id: Annotated[
        str | UnsetType,
        doc("Of a call: its result refers to it.", "در فراخوانی: نتیجه به آن اشاره می‌کند.", example="call_1"),
    ] = UNSET
    name: Annotated[str | UnsetType, doc("Of a call: the tool.", "در فراخوانی: ابزار.", example="get_weather")] = UNSET
    namespace: Annotated[
        str | UnsetType, doc("Of a call: the tool's namespace.", "در فراخوانی: گروه ابزار.", example="files")
    ] = UNSET
    arguments: Annotated[
        str | UnsetType,
        doc("Of a function's call: JSON as text.", "در فراخوانی تابع: متن JSON.", example='{"city":"Tehran"}'),
    ] = UNSET
    input: Annotated[
        str | UnsetType, doc("Of a custom tool's call: its input.", "در فراخوانی ابزار `custom`: ورودی.", example="ls")
    ] = UNSET


class Response(ResponseModel):
    """A response."""

    id: ResponseId
    object: Annotated[Literal["response"], doc("The kind of object.", "نوع شیء.", example="response")]
    created_at: Created
    completed_at: Annotated[
        int | None,
        doc("Seconds since 1970; null before.", "ثانیه از آغاز ۱۹۷۰، یا null.", example=1_796_000_003),
    ]
    status: Status
    incomplete_details: Annotated[IncompleteDetails | None, doc("Why it is incomplete.", "چرا کامل نیست.")]
    model: Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-8b")]
    output: Annotated[list[OutputItem], doc("The parts of the answer.", "بخش‌های پاسخ.")]
    error: Annotated[ResponseError | None, doc("Why it has failed.", "علت شکست.")]
    usage: Annotated[ResponseUsage | None, doc("The tokens, at the end.", "توکن‌ها، در پایان.")]
    store: Annotated[bool, doc("Whether it is stored.", "ذخیره می‌شود یا نه.", example=True)]
    previous_response_id: Annotated[str | None, Repeated]
    instructions: Annotated[str | None, Repeated]
    tools: Annotated[list[dict[str, Any]], Repeated]
    tool_choice: Annotated[str | dict[str, Any], Repeated]
    truncation: Annotated[str, Repeated]
    parallel_tool_calls: Annotated[bool, Repeated]
    text: Annotated[dict[str, Any], Repeated]
    top_p: Annotated[float, Repeated]
    presence_penalty: Annotated[float, Repeated]
    frequency_penalty: Annotated[float, Repeated]
    top_logprobs: Annotated[int, Repeated]
    temperature: Annotated[float, Repeated]
    reasoning: Annotated[dict[str, Any], Repeated]
    max_output_tokens: Annotated[int | None, Repeated]
    max_tool_calls: Annotated[int | None, Repeated]
    background: Annotated[bool, Repeated]
    service_tier: Annotated[str, doc("Always `default`.", "همیشه `default`.", example="default")]
    metadata: Annotated[dict[str, Any], Repeated]
    safety_identifier: Annotated[str | None, Repeated]
    prompt_cache_key: Annotated[str | None, Repeated]
    user: Annotated[str | None, Repeated]
    vilix: EndedBy = UNSET


class ResponseEvent(ResponseModel):
    """An event of a stream. The fields depend on its type."""

    type: Annotated[str, doc("The kind of event.", "نوع رویداد.", example="response.output_text.delta")]
    sequence_number: Annotated[int, doc("The event's number, from 0.", "شمارهٔ رویداد، از صفر.", example=4)]
    response: Annotated[
        Response | UnsetType, doc("The response, of events about the whole.", "پاسخ، در رویدادهای کل آن.")
    ] = UNSET
    item: Annotated[OutputItem | UnsetType, doc("The item that begins or ends.", "موردی که شروع یا تمام می‌شود.")] = (
        UNSET
    )
    item_id: Annotated[str | UnsetType, doc("The item.", "بخش.", example="msg_0a1b2c3d4e5f0000")] = UNSET
    output_index: Annotated[int | UnsetType, doc("The item's index.", "شمارهٔ بخش.", example=0)] = UNSET
    content_index: Annotated[int | UnsetType, doc("The part's index.", "شمارهٔ تکه.", example=0)] = UNSET
    summary_index: Annotated[int | UnsetType, doc("The part's index.", "شمارهٔ تکه.", example=0)] = UNSET
    part: Annotated[dict[str, Any] | UnsetType, doc("The part that begins or ends.", "تکه.")] = UNSET
    delta: Annotated[str | UnsetType, doc("What is added.", "آنچه افزوده می‌شود.", example="تهران")] = UNSET
    text: Annotated[str | UnsetType, doc("The whole text.", "همهٔ متن.", example="تهران.")] = UNSET
    logprobs: Annotated[
        list[dict[str, Any]] | UnsetType, doc("Log probabilities, if requested.", "لگاریتم احتمال‌ها، اگر خواسته شود.")
    ] = UNSET
    name: Annotated[str | UnsetType, doc("The called function.", "تابع.", example="get_weather")] = UNSET
    arguments: Annotated[str | UnsetType, doc("The whole arguments.", "همهٔ ورودی‌ها.", example="{}")] = UNSET
    input: Annotated[str | UnsetType, doc("The whole input.", "همهٔ ورودی.", example="ls")] = UNSET
    code: Annotated[str | UnsetType, doc("Of an error.", "در خطا.", example="server_error")] = UNSET
    message: Annotated[str | UnsetType, doc("Of an error.", "در خطا.", example="Try again.")] = UNSET
    param: Annotated[str | UnsetType | None, doc("Of an error.", "در خطا.", example="input")] = UNSET


class ResponseDryRun(ResponseModel):
    """The prompt of a request."""

    object: Annotated[Literal["response.dry_run"], doc("The kind of object.", "نوع شیء.", example="response.dry_run")]
    model: Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-8b")]
    prompt: Annotated[str, doc("The prompt.", "پرامپت نهایی.", example="<|im_start|>user")]
    prompt_tokens: Annotated[int, doc("Its tokens.", "توکن‌های آن.", example=9)]
    remaining_tokens: Annotated[int, doc("Tokens left for the answer.", "توکن‌های مانده برای پاسخ.", example=40951)]
    ignored_parameters: Annotated[
        list[str], doc("Fields that would be ignored.", "فیلدهایی که نادیده گرفته می‌شوند.", example=["user"])
    ]
    worker: Annotated[str, doc("The worker that would answer.", "ورکری که پاسخ می‌داد.", example="10.0.0.7:8001")]


class InputTokenCount(ResponseModel):
    """The number of tokens of an input."""

    object: Annotated[
        Literal["response.input_tokens"], doc("The kind of object.", "نوع شیء.", example="response.input_tokens")
    ]
    input_tokens: Annotated[int, doc("The number of tokens.", "تعداد توکن‌ها.", example=9)]


class DeletedResponse(ResponseModel):
    """A response that was deleted."""

    id: ResponseId
    object: Annotated[Literal["response.deleted"], doc("The kind of object.", "نوع شیء.", example="response.deleted")]
    deleted: Annotated[bool, doc("Always true.", "همیشه true.", example=True)]


class ItemList(ResponseModel):
    """Items of an input."""

    object: Annotated[Literal["list"], doc("The kind of object.", "نوع شیء.", example="list")]
    data: Annotated[list[dict[str, Any]], doc("The items.", "بخش‌ها.")]
    first_id: Annotated[str | None, doc("The first item's id.", "شناسهٔ نخستین بخش.", example="msg_1")]
    last_id: Annotated[str | None, doc("The last item's id.", "شناسهٔ آخرین بخش.", example="msg_2")]
    has_more: Annotated[bool, doc("Whether more items follow.", "بخش‌های دیگری هست یا نه.", example=False)]
