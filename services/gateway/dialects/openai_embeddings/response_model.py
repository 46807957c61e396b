"""The objects of OpenAI's embeddings, for the API's document."""

from __future__ import annotations

from typing import Annotated, Literal

from services.gateway.dialects.json_model import ResponseModel, doc


class EmbeddingUsage(ResponseModel):
    """The tokens of a request for embeddings."""

    prompt_tokens: Annotated[int, doc("Tokens of the texts.", "توکن‌های متن‌ها.", example=4)]
    total_tokens: Annotated[int, doc("The same number.", "همان عدد.", example=4)]


class Embedding(ResponseModel):
    """A vector."""

    object: Annotated[Literal["embedding"], doc("The kind of object.", "نوع شیء.", example="embedding")]
    index: Annotated[int, doc("The number of the text, from 0.", "شمارهٔ متن، از صفر.", example=0)]
    embedding: Annotated[
        list[float] | str,
        doc(
            "The vector, or its base64 if `encoding_format` is `base64`.",
            "بردار، یا base64 آن اگر `encoding_format` برابر `base64` باشد.",
            example=[0.01, -0.2],
        ),
    ]


class EmbeddingList(ResponseModel):
    """The vectors of a request."""

    object: Annotated[Literal["list"], doc("The kind of object.", "نوع شیء.", example="list")]
    data: Annotated[list[Embedding], doc("The vectors.", "بردارها.")]
    model: Annotated[str, doc("The model's id.", "شناسهٔ مدل.", example="qwen3-embedding-0.6b")]
    usage: Annotated[EmbeddingUsage, doc("The tokens of the request.", "توکن‌های درخواست.")]
