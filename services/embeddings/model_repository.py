"""Writes an embedding model into a Triton model repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from services.worker import triton_repository

PACKAGE: Final = Path(__file__).parent / "triton_backend"
NAME: Final = "services.embeddings.triton_backend"

_TENSORS: Final = """\
max_batch_size: {max_batch_size}
dynamic_batching {{ }}
input [
  {{ name: "text" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "token_ids" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "params" data_type: TYPE_STRING dims: [ 1 ] optional: true }}
]
output [
  {{ name: "embedding" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "description" data_type: TYPE_STRING dims: [ 1 ] }}
]
instance_group [ {{ kind: {kind} count: 1 }} ]
"""


def write_model(
    repository: Path,
    *,
    model_id: str,
    engine: str,
    engine_args: Mapping[str, Any],
    max_batch_size: int,
    on_gpu: bool = False,
) -> Path:
    """Write `<repository>/<model_id>`, in place of an earlier one, and return it.

    `engine_args` become JSON; `max_batch_size` is in texts.
    """
    return triton_repository.write_model(
        repository,
        model_id=model_id,
        package=NAME,
        source=PACKAGE,
        tensors=_TENSORS.format(max_batch_size=max_batch_size, kind="KIND_GPU" if on_gpu else "KIND_CPU"),
        engine=engine,
        engine_args=engine_args,
    )
