"""Writes a language model into a Triton model repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from services.worker import triton_repository

PACKAGE: Final = Path(__file__).parents[1] / "triton_backend"
NAME: Final = "services.inference.triton_backend"

_TENSORS: Final = """\
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [
  { name: "prompt_token_ids" data_type: TYPE_INT32 dims: [ -1 ] optional: true },
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] optional: true },
  { name: "params" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "images" data_type: TYPE_STRING dims: [ -1 ] optional: true }
]
output [
  { name: "token_ids" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "logprobs" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "top_token_ids" data_type: TYPE_INT32 dims: [ -1, -1 ] },
  { name: "top_logprobs" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "prompt_logprobs" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "prompt_top_token_ids" data_type: TYPE_INT32 dims: [ -1, -1 ] },
  { name: "prompt_top_logprobs" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "finish_reason" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "usage" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "description" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "step_requests" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "step_counts" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "step_top_counts" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "step_top_token_ids" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "step_top_logprobs" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "step_begins" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "step_ends" data_type: TYPE_STRING dims: [ -1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


def write_model(repository: Path, *, model_id: str, engine: str, engine_args: Mapping[str, Any]) -> Path:
    """Write `<repository>/<model_id>`, in place of an earlier one, and return it.

    `engine_args` become JSON. A Triton that reads at the same time finds the earlier model, this one or none.
    """
    return triton_repository.write_model(
        repository,
        model_id=model_id,
        package=NAME,
        source=PACKAGE,
        tensors=_TENSORS,
        engine=engine,
        engine_args=engine_args,
    )
