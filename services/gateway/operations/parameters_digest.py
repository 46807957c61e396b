"""A digest of the numbers of a request, by which support sees that two requests had the same parameters."""

from __future__ import annotations

import hashlib

from vilix.inference.v1 import inference_service_pb2 as pb


def parameters_digest(request: pb.GenerateRequest) -> str:
    """Return a digest of a request's model, numbers and switches: nothing that it hashes was written by a person."""
    numbers = pb.GenerateRequest(
        model=request.model,
        n=request.n,
        sampling=request.sampling,
        reasoning=request.reasoning,
        priority=request.priority,
        prefill_only=request.prefill_only,
    )
    for field in ("stop", "stop_token_ids", "logit_bias"):
        numbers.sampling.ClearField(field)
    return hashlib.sha256(numbers.SerializeToString(deterministic=True)).hexdigest()[:16]
