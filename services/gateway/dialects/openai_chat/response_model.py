"""The objects of OpenAI's chat responses, for the API's document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType

from services.gateway.dialects.json_model import ResponseModel, doc
from services.gateway.dialects.openai_document import Created, EndedBy, Fingerprint, FinishReason, ServiceTier, Usage


class MadeFunction(ResponseModel):
    """The function of a tool call."""

    name: Annotated[str, doc("The function's name.", "نام تابع.", example="get_weather")]
    arguments: Annotated[str, doc("JSON as text.", "متن JSON.", example='{"city":"Tehran"}')]


class MadeToolCall(ResponseModel):
    """A tool call of an answer."""

    id: Annotated[
        str, doc("The id, to which the result refers.", "شناسه‌ای که نتیجه به آن اشاره می‌کند.", example="call_1")
    ]
    type: Annotated[Literal["function"], doc("Always `function`.", "همیشه `function`.", example="function")]
    function: Annotated[MadeFunction, doc("The function and its arguments.", "تابع و ورودی‌های آن.")]


class AnswerMessage(ResponseModel):
    """The message of an answer."""

    role: Annotated[Literal["assistant"], doc("Always `assistant`.", "همیشه `assistant`.", example="assistant")]
    content: Annotated[
        str | None,
        doc(
            "The answer; `null` where there are only calls.",
            "پاسخ؛ وقتی فقط فراخوانی باشد `null` است.",
            example="سلام! چه کمکی می‌توانم بکنم؟",
        ),
    ]
    refusal: Annotated[None, doc("Always null.", "همیشه null است.")]
    annotations: Annotated[list[dict[str, Any]], doc("Always empty.", "همیشه خالی است.", example=[])]
    reasoning_content: Annotated[str | UnsetType, doc("The reasoning.", "فکرها.", example="The user greets me.")] = (
        UNSET
    )
    reasoning: Annotated[
        str | UnsetType,
        doc(
            "The same, if the operator has switched it on.",
            "همان، اگر مدیر سامانه روشنش کرده باشد.",
            example="The user greets me.",
        ),
    ] = UNSET
    tool_calls: Annotated[
        list[MadeToolCall] | UnsetType, doc("The calls that the model makes.", "فراخوانی‌هایی که مدل انجام می‌دهد.")
    ] = UNSET
    function_call: Annotated[
        MadeFunction | UnsetType, doc("The call, for `functions`.", "فراخوانی، برای `functions`.")
    ] = UNSET


class LikelyToken(ResponseModel):
    """A token with its log probability."""

    token: Annotated[str, doc("The token's text.", "متن توکن.", example="سلام")]
    logprob: Annotated[float, doc("Its log probability.", "لگاریتم احتمال آن.", example=-0.02)]
    bytes: Annotated[list[int] | None, doc("Its bytes in UTF-8.", "بایت‌های آن در UTF-8.", example=[216, 179])]


class TokenLogprob(LikelyToken):
    """A token of the answer with its log probability."""

    top_logprobs: Annotated[list[LikelyToken], doc("The alternatives to it.", "جایگزین‌های آن.")]


class ChatLogprobs(ResponseModel):
    """Log probabilities."""

    content: Annotated[list[TokenLogprob], doc("One entry for each token.", "برای هر توکن یک عضو.")]
    refusal: Annotated[None, doc("Always null.", "همیشه null است.")]


Index = Annotated[int, doc("The number of the choice, from 0.", "شمارهٔ گزینه، از صفر.", example=0)]
Reason = doc("The reason for which the answer ended.", "دلیل پایان پاسخ.", example="stop")
Logprobs = Annotated[
    ChatLogprobs | None, doc("Log probabilities; `null` unless requested.", "لگاریتم احتمال‌ها، اگر خواسته شده باشد.")
]


class ChatChoice(ResponseModel):
    """One of the answers."""

    index: Index
    message: Annotated[AnswerMessage, doc("The answer.", "پاسخ.")]
    logprobs: Logprobs
    finish_reason: Annotated[FinishReason, Reason]


class ChatCompletion(ResponseModel):
    """A whole answer."""

    id: Annotated[str, doc("The answer's id.", "شناسهٔ پاسخ.", example="chatcmpl-0a1b2c3d4e5f")]
    object: Annotated[Literal["chat.completion"], doc("The kind of object.", "نوع شیء.", example="chat.completion")]
    created: Created
    model: Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-8b")]
    service_tier: ServiceTier
    system_fingerprint: Fingerprint
    choices: Annotated[list[ChatChoice], doc("The answers.", "پاسخ‌ها.")]
    usage: Annotated[Usage, doc("The tokens of the request.", "توکن‌های درخواست.")]
    vilix: EndedBy = UNSET


class Delta(ResponseModel):
    """The part that an event adds to a message."""

    role: Annotated[str | UnsetType, doc("In the first event.", "در نخستین رویداد.", example="assistant")] = UNSET
    content: Annotated[
        str | UnsetType | None,
        doc(
            "A part of the answer; `null` in the first event if the model may call tools.",
            "تکه‌ای از پاسخ؛ اگر مدل بتواند ابزاری فراخوانی کند، در نخستین رویداد `null` است.",
            example="سلام",
        ),
    ] = UNSET
    reasoning_content: Annotated[
        str | UnsetType, doc("A part of the reasoning.", "تکه‌ای از فکر.", example="The user")
    ] = UNSET
    reasoning: Annotated[
        str | UnsetType,
        doc(
            "The same, if the operator has switched it on.",
            "همان، اگر مدیر سامانه روشنش کرده باشد.",
            example="The user",
        ),
    ] = UNSET
    tool_calls: Annotated[
        list[dict[str, Any]] | UnsetType,
        doc("Parts of tool calls, each with its `index`.", "تکه‌هایی از فراخوانی‌ها، هر یک با `index`."),
    ] = UNSET
    function_call: Annotated[
        dict[str, str] | UnsetType, doc("A part of the call, for `functions`.", "تکه‌ای از فراخوانی، برای `functions`.")
    ] = UNSET


class ChunkChoice(ResponseModel):
    """The part that an event adds to one of the answers."""

    index: Index
    delta: Annotated[Delta, doc("What the event adds.", "آنچه رویداد می‌افزاید.")]
    logprobs: Logprobs
    finish_reason: Annotated[FinishReason | None, Reason]


class ChatCompletionChunk(ResponseModel):
    """An event of a stream."""

    id: Annotated[str, doc("The same in every event.", "در همهٔ رویدادها یکی است.", example="chatcmpl-0a1b2c3d4e5f")]
    object: Annotated[
        Literal["chat.completion.chunk"], doc("The kind of object.", "نوع شیء.", example="chat.completion.chunk")
    ]
    created: Created
    model: Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-8b")]
    service_tier: ServiceTier
    system_fingerprint: Fingerprint
    choices: Annotated[
        list[ChunkChoice], doc("One choice; none in the event of usage.", "یک گزینه؛ در رویداد تعداد توکن‌ها هیچ.")
    ]
    usage: Annotated[
        Usage | UnsetType | None,
        doc("Token counts, if `stream_options` asks for them.", "تعداد توکن‌ها، اگر `stream_options` بخواهد."),
    ] = UNSET
    vilix: EndedBy = UNSET


class Tokens(ResponseModel):
    """The tokens of a prompt."""

    count: Annotated[int, doc("The number of tokens.", "تعداد توکن‌ها.", example=3)]
    max_model_len: Annotated[
        int,
        doc("The most tokens of prompt and answer together.", "حداکثر توکن‌های پرامپت و پاسخ با هم.", example=40960),
    ]
    tokens: Annotated[list[int], doc("The ids of the tokens.", "شناسهٔ توکن‌ها.", example=[126043, 29155, 102])]
