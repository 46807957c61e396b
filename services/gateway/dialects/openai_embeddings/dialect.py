"""OpenAI's embeddings as a dialect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.openai_dialect import OpenAIDialect
from services.gateway.dialects.openai_embeddings.request import OpenAIEmbedCall, read_embeddings
from services.gateway.dialects.openai_embeddings.response import is_small, segments


class OpenAIEmbeddings(OpenAIDialect):
    """POST /embeddings."""

    def read(self, body: Any, *, strict: bool) -> OpenAIEmbedCall:
        """Read a parsed body. Raises ApiError (400)."""
        return read_embeddings(body, strict=strict)

    def segments(self, call: OpenAIEmbedCall, response: pb.EmbedResponse) -> Iterator[bytes]:
        """Yield the JSON document of a response in segments that take about a millisecond each to encode."""
        return segments(response, model=call.embed.model, in_base64=call.in_base64)

    def is_small(self, response: pb.EmbedResponse) -> bool:
        """Return whether a response is one segment."""
        return is_small(response)
