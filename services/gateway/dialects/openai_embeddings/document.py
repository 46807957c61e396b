"""OpenAI's embeddings in the API's document."""

from __future__ import annotations

from typing import Final

from services.gateway.dialects.openai_document import ERRORS
from services.gateway.dialects.openai_embeddings.request_model import EmbeddingRequest
from services.gateway.dialects.openai_embeddings.response_model import EmbeddingList
from services.gateway.dialects.operation_document import (
    ContentDocument,
    LocalizedText,
    OperationDocument,
    ResponseDocument,
)

_MODEL: Final = "qwen3-embedding-0.6b"

OPERATIONS: Final = (
    OperationDocument(
        method="post",
        path="/embeddings",
        id="createEmbedding",
        summary=LocalizedText("Turn texts into vectors", "تبدیل متن به بردار"),
        request=ContentDocument(
            models=(EmbeddingRequest,),
            examples={
                "texts": {"model": _MODEL, "input": ["سلام", "خداحافظ"]},
                "query": {"model": _MODEL, "input": "هوای امروز", "input_type": "query", "encoding_format": "base64"},
            },
        ),
        response=ResponseDocument(
            description=LocalizedText(
                "One vector for each text, in their order.", "برای هر متن یک بردار، به همان ترتیب."
            ),
            contents=(
                ContentDocument(
                    models=(EmbeddingList,),
                    examples={
                        "vectors": {
                            "object": "list",
                            "data": [
                                {"object": "embedding", "index": 0, "embedding": [0.01, -0.2, 0.3]},
                                {"object": "embedding", "index": 1, "embedding": [0.4, 0.05, -0.06]},
                            ],
                            "model": _MODEL,
                            "usage": {"prompt_tokens": 4, "total_tokens": 4},
                        }
                    },
                ),
            ),
        ),
        errors=ERRORS,
    ),
)
