"""What a request needs of its key's limits before anything of it was counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

BYTES_PER_TOKEN: Final = 4
"""Of UTF-8. An estimate, which holds until the worker has counted the prompt."""
TOKENS_PER_IMAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """Tokens of one request."""

    model: str
    prompt: int
    """An estimate."""
    output: int
    """What is reserved for the answer at first."""
    max_output: int | None
    """The most that the answer may have; None for no limit but the model's."""


def estimate_of(request: pb.GenerateRequest, *, reserve_output: int) -> TokenEstimate:
    """The demand of a request; at most `reserve_output` tokens are reserved for each choice of its answer."""
    images = [part.image.data for message in request.messages for part in message.content if part.HasField("image")]
    ids = request.prompt_token_ids
    text_bytes = request.ByteSize() - sum(len(image) for image in images)
    if ids:
        text_bytes -= pb.GenerateRequest(prompt_token_ids=ids).ByteSize()
    choices = max(1, request.n)
    limit = request.sampling.max_tokens if request.sampling.HasField("max_tokens") else None
    return TokenEstimate(
        model=request.model,
        prompt=len(ids) + text_bytes // BYTES_PER_TOKEN + 1 + TOKENS_PER_IMAGE * len(images),
        output=choices * (reserve_output if limit is None else min(limit, reserve_output)),
        max_output=None if limit is None else choices * limit,
    )


def estimate_of_embedding(request: embeddings_pb.EmbedRequest) -> TokenEstimate:
    """The demand of texts that become vectors, which has no output."""
    text_bytes = sum(len(text.encode()) for text in request.texts)
    ids = sum(len(tokens.ids) for tokens in request.token_ids)
    return TokenEstimate(model=request.model, prompt=ids + text_bytes // BYTES_PER_TOKEN + 1, output=0, max_output=0)
