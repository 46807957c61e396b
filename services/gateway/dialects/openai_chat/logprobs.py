"""The object `logprobs` of a choice of OpenAI's chat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_objects import logprob_entries


def logprobs_object(logprobs: Iterable[pb.TokenLogprob]) -> dict[str, Any]:
    """Return the object for these tokens."""
    return {"content": logprob_entries(logprobs), "refusal": None}
