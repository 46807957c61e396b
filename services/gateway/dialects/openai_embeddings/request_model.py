"""The fields of OpenAI's embeddings request."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from services.gateway.dialects.json_model import Positive, RequestModel, doc
from services.gateway.dialects.openai_request import Label

TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class EmbeddingRequest(RequestModel):
    """The body of POST /embeddings."""

    model: Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-embedding-0.6b")]
    input: Annotated[
        str | list[str | TokenId | list[TokenId]],
        doc(
            "One text or several; or token ids, which some client libraries send.",
            "یک متن یا چند متن؛ یا شناسهٔ توکن‌ها، که بعضی کتابخانه‌ها می‌فرستند.",
            example=["سلام", "خداحافظ"],
            schema={
                "minLength": 1,
                "minItems": 1,
                "maxItems": 2048,
                "allOf": [
                    {
                        "anyOf": [
                            {"items": {"type": "string", "minLength": 1}},
                            {"items": {"type": "integer"}},
                            {"items": {"type": "array", "minItems": 1}},
                        ]
                    }
                ],
            },
        ),
    ]
    dimensions: Annotated[
        Positive | None,
        doc(
            "The length of shorter vectors, where the model supports them.",
            "بردار کوتاه‌تر، اگر مدل بتواند.",
            example=256,
        ),
    ] = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        doc(
            "Vectors as numbers, or as base64 of little-endian floats of 32 bits.",
            "بردار به شکل عدد، یا base64 عددهای اعشاری ۳۲ بیتی little-endian.",
            example="float",
        ),
    ] = "float"
    input_type: Annotated[
        Literal["query", "passage"] | None,
        doc(
            "The role of the texts in a search. Absent: the model's default.",
            "نقش متن‌ها در جست‌وجو. اگر نفرستید: پیش‌فرض مدل.",
            example="query",
        ),
    ] = None
    truncate: Annotated[
        bool | None,
        doc(
            "Cut the end of a text that is too long, instead of rejecting it.",
            "انتهای متن بلندتر از پنجرهٔ متن مدل بریده شود، به‌جای خطا.",
            example=False,
        ),
    ] = False
    text_normalization: Annotated[
        Literal["persian", "none", "auto"] | None,
        doc(
            "Unify the spelling of all texts as Persian, of none, or (`auto`) of those that are Persian: Arabic "
            "letters and digits, tatweel, vowel signs. Absent: the model's default.",
            "یکسان‌سازی املای همهٔ متن‌ها به فارسی، هیچ‌کدام، یا (`auto`) متن‌های فارسی: حروف و رقم‌های عربی، "
            "کشیده و اعراب. اگر نفرستید: پیش‌فرض مدل.",
            example="auto",
        ),
    ] = None
    user: Label = None
