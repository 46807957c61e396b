"""The object of OpenAI's text completions, for the API's document."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, UnsetType

from services.gateway.dialects.json_model import ResponseModel, doc
from services.gateway.dialects.openai_document import Created, EndedBy, Fingerprint, FinishReason, ServiceTier, Usage


class TextLogprobs(ResponseModel):
    """Log probabilities, with one entry for each token."""

    tokens: Annotated[list[str], doc("The tokens' texts.", "متن توکن‌ها.", example=["تهران"])]
    token_logprobs: Annotated[
        list[float | None],
        doc(
            "Their log probabilities; `null` for the first token of a prompt.",
            "لگاریتم احتمال آن‌ها؛ برای نخستین توکن ورودی `null`.",
            example=[-0.02],
        ),
    ]
    top_logprobs: Annotated[
        list[dict[str, float] | None],
        doc(
            "Alternatives with their log probabilities.", "جایگزین‌ها با لگاریتم احتمالشان.", example=[{"تهران": -0.02}]
        ),
    ]
    text_offset: Annotated[
        list[int], doc("The tokens' positions in the text, in characters.", "جای توکن‌ها در متن، به نویسه.", example=[0])
    ]


class TextChoice(ResponseModel):
    """One of the continuations."""

    index: Annotated[int, doc("The number of the choice, from 0.", "شمارهٔ گزینه، از صفر.", example=0)]
    text: Annotated[str, doc("The continuation, or a part of it.", "ادامه یا تکه‌ای از آن.", example="، تهران است.")]
    logprobs: Annotated[
        TextLogprobs | None,
        doc("Log probabilities; `null` unless requested.", "لگاریتم احتمال‌ها، اگر خواسته شده باشد."),
    ]
    finish_reason: Annotated[
        FinishReason | None,
        doc("The reason for which the continuation ended.", "دلیل پایان ادامه.", example="stop"),
    ]


class Completion(ResponseModel):
    """A continuation, or an event of its stream."""

    id: Annotated[str, doc("The same in every event.", "در همهٔ رویدادها یکی است.", example="cmpl-0a1b2c3d4e5f")]
    object: Annotated[Literal["text_completion"], doc("The kind of object.", "نوع شیء.", example="text_completion")]
    created: Created
    model: Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-8b")]
    service_tier: ServiceTier
    system_fingerprint: Fingerprint
    choices: Annotated[list[TextChoice], doc("The continuations.", "ادامه‌ها.")]
    usage: Annotated[
        Usage | UnsetType | None,
        doc("Token counts; in a stream only if requested.", "تعداد توکن‌ها؛ در پاسخ استریم تنها اگر خواسته شده باشد."),
    ] = UNSET
    vilix: EndedBy = UNSET
