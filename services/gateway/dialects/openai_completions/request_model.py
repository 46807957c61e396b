"""The fields of OpenAI's (legacy) text completion request."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from services.gateway.dialects.json_model import HIDDEN, Positive, doc
from services.gateway.dialects.openai_request import ModelId, OpenAIRequest, TokenId

DEFAULT_MAX_TOKENS: Final = 16
"""The default of OpenAI's API."""
MAX_LOGPROBS: Final = 20
Alternatives = Annotated[int, msgspec.Meta(ge=0, le=MAX_LOGPROBS)]


class CompletionRequest(OpenAIRequest, kw_only=True):
    """The body of POST /completions."""

    model: ModelId
    prompt: Annotated[
        str | list[str | TokenId | list[TokenId]],
        doc(
            "The text to continue, or its token ids. One per request.",
            "متنی که ادامه می‌یابد، یا شناسهٔ توکن‌های آن. در هر درخواست یکی.",
            example="پایتخت ایران",
        ),
    ]
    max_tokens: Annotated[
        Positive | None,
        doc(
            "The most tokens of the continuation.",
            "بیشترین طول ادامه.",
            example=64,
            default=DEFAULT_MAX_TOKENS,
        ),
    ] = None
    echo: Annotated[
        bool | None,
        doc("Repeat the prompt before the continuation.", "متن ورودی پیش از آن تکرار شود.", example=False),
    ] = None
    logprobs: Annotated[
        Alternatives | None,
        doc(
            "Log probabilities of the tokens, with so many alternatives to each.",
            "لگاریتم احتمال توکن‌ها، با این تعداد جایگزین برای هر یک.",
            example=2,
        ),
    ] = None
    best_of: Annotated[
        Positive | None,
        doc(
            "Only the value of `n`: all continuations are returned.",
            "تنها برابر `n`: همهٔ ادامه‌ها برگردانده می‌شوند.",
            example=1,
        ),
    ] = None
    suffix: Annotated[str | None, HIDDEN] = None
