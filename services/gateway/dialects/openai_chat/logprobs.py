"""The object `logprobs` of a choice of OpenAI's chat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb


def logprobs_object(logprobs: Iterable[pb.TokenLogprob]) -> dict[str, Any]:
    """Return the object for these tokens."""
    content = [{**_token(entry), "top_logprobs": [_token(top) for top in entry.top]} for entry in logprobs]
    return {"content": content, "refusal": None}


def _token(entry: pb.TokenLogprob | pb.TopLogprob) -> dict[str, Any]:
    return {"token": entry.token, "logprob": entry.logprob, "bytes": list(entry.token_bytes)}
