"""Estimates the tokens of a request before a worker has counted them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

BYTES_PER_TOKEN: Final = 4
"""Bytes of UTF-8 per token, a rough estimate that is used until the worker has counted the prompt."""
TOKENS_PER_IMAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """The token estimate of one request."""

    model: str
    prompt: int
    """The estimated tokens of the prompt."""
    output: int
    """The output tokens that are reserved at admission."""
    max_output: int | None
    """The most output tokens; None if only the model limits them."""


def estimate_of(request: pb.GenerateRequest, *, reserve_output: int) -> TokenEstimate:
    """Return the estimate of a request. At most `reserve_output` tokens are reserved for each choice."""
    images = [part.image.data for message in request.messages for part in message.content if part.HasField("image")]
    ids = request.prompt_token_ids
    text_bytes = request.ByteSize() - sum(len(image) for image in images)
    if ids:
        text_bytes -= pb.GenerateRequest(prompt_token_ids=ids).ByteSize()
    further_ids = [further.token_ids for further in request.further_prompts if further.HasField("token_ids")]
    text_bytes -= sum(token_ids.ByteSize() for token_ids in further_ids)
    choices = max(1, request.n) * (1 + len(request.further_prompts))
    limit = request.sampling.max_tokens if request.sampling.HasField("max_tokens") else None
    return TokenEstimate(
        model=request.model,
        prompt=len(ids)
        + sum(len(further.ids) for further in further_ids)
        + text_bytes // BYTES_PER_TOKEN
        + 1
        + TOKENS_PER_IMAGE * len(images),
        output=choices * (reserve_output if limit is None else min(limit, reserve_output)),
        max_output=None if limit is None else choices * limit,
    )


def estimate_of_embedding(request: embeddings_pb.EmbedRequest) -> TokenEstimate:
    """Return the estimate of a request for embeddings, which has no output tokens."""
    text_bytes = sum(len(text.encode()) for text in request.texts)
    ids = sum(len(tokens.ids) for tokens in request.token_ids)
    return TokenEstimate(model=request.model, prompt=ids + text_bytes // BYTES_PER_TOKEN + 1, output=0, max_output=0)
