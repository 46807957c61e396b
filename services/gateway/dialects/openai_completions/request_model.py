"""The fields of OpenAI's (legacy) text completion request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import msgspec

from services.gateway.dialects.json_model import NonNegative, Positive, doc
from services.gateway.dialects.openai_request import ModelId, OpenAIRequest, TokenId

DEFAULT_MAX_TOKENS: Final = 16
"""The default of OpenAI's API."""
MAX_LOGPROBS: Final = 20
Alternatives = Annotated[int, msgspec.Meta(ge=0, le=MAX_LOGPROBS)]


_TOKEN_IDS: Final = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "format": "int32"},
    "minItems": 1,
}
_TEXT: Final = {"type": "string", "minLength": 1}
_PROMPTS: Final = (
    _TEXT,
    {"type": "array", "items": _TEXT, "minItems": 1},
    _TOKEN_IDS,
    {"type": "array", "items": _TOKEN_IDS, "minItems": 1},
)


class CompletionRequest(OpenAIRequest, kw_only=True):
    """The body of POST /completions."""

    conditions: ClassVar[tuple[Mapping[str, Any], ...]] = (
        # What a stream has sent cannot be compared.
        {
            "anyOf": [
                {"required": ["stream"], "properties": {"stream": {"const": True}, "best_of": {"maximum": 1}}},
                {"properties": {"stream": {"const": False}, "stream_options": False}},
            ]
        },
        # The text of token ids comes with their log probabilities.
        {
            "anyOf": [
                {"properties": {"echo": {"const": False}}},
                {"required": ["logprobs"], "properties": {"logprobs": {"type": "integer"}}},
                {"properties": {"prompt": {"anyOf": [{"type": "string"}, {"items": {"type": "string"}}]}}},
            ]
        },
    )

    model: ModelId
    prompt: Annotated[
        str | list[str | TokenId | list[TokenId]],
        doc(
            "The text to continue, or its token ids; or a list of them, whose answers come in the list's order.",
            "متنی که ادامه می‌یابد، یا شناسهٔ توکن‌های آن؛ یا فهرستی از این‌ها که پاسخ‌هایشان به همان ترتیب می‌آید.",
            example="پایتخت ایران",
            alternatives=_PROMPTS,
        ),
    ]
    max_tokens: Annotated[
        NonNegative | None,
        doc(
            "The most tokens of the continuation; 0, which counts as one, for none, or with `echo` the prompt alone.",
            "حداکثر توکن‌های ادامه؛ `0` یعنی هیچ، مثلاً همراه `echo` برای خود متن ورودی، که یک توکن حساب می‌شود.",
            example=64,
            default=DEFAULT_MAX_TOKENS,
        ),
    ] = None
    echo: Annotated[
        bool | None,
        doc(
            "Repeat the prompt before the continuation; with `logprobs` and one answer, its tokens have them too.",
            "متن ورودی پیش از ادامه تکرار شود؛ همراه `logprobs` و یک پاسخ، توکن‌های آن نیز لگاریتم احتمال دارند.",
            example=False,
        ),
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
            "Generate so many continuations, and return the `n` most probable ones; not in a stream.",
            "این تعداد ادامه تولید می‌شود و `n` تای محتمل‌تر برمی‌گردد؛ در پاسخ استریم ممکن نیست.",
            example=1,
        ),
    ] = None
    suffix: Annotated[
        str | None,
        doc(
            "The text behind the gap that is filled, for models that were trained for it.",
            "متن پس از جای خالی که پر می‌شود، برای مدل‌هایی که این را یاد گرفته‌اند.",
            example="\n    return total",
        ),
    ] = None
