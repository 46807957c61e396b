"""Embedding models on GPUs with TensorRT-LLM's encode API, which exists from version 1.3 on.

The engine was tested with stand-ins only. `bench/embeddings/gpu_smoke.py` compares it with the transformers engine on a
machine with a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorrt_llm
from numpy import float32
from numpy.typing import NDArray

from services.embeddings.triton_backend import model_files
from services.embeddings.triton_backend.contract import Description, Engine

_FIRST_WITH_ENCODE: Final = (1, 3)
_ARCHITECTURES: Final = {"qwen3": "Qwen3ForTextEmbedding"}
"""TensorRT-LLM's model classes that compute embeddings, by the checkpoint's model_type."""


class TrtllmEncoder:
    """Embeds token ids. TensorRT-LLM pools by itself; the model directory defines normalisation."""

    def __init__(self, *, model: str, **llm: Any) -> None:
        """Load the directory `model`; `llm` are further arguments of tensorrt_llm.LLM.

        Raises ValueError for a version without the encode API, and for an unsupported checkpoint.
        """
        reject_older(tensorrt_llm.__version__)
        directory = Path(model)
        self._files: Final = model_files.read(directory)
        config = model_files.read_config(directory)
        architecture = _ARCHITECTURES.get(config.get("model_type", ""))
        if architecture is None:
            known = ", ".join(_ARCHITECTURES)
            raise ValueError(f"{directory}: model_type {config.get('model_type')!r} cannot be encoded; {known} can")
        self._llm: Final = tensorrt_llm.LLM(
            model=str(directory), encode_only=True, model_kwargs={"architectures": [architecture]}, **llm
        )
        self.description = Description(
            engine="trtllm",
            version=tensorrt_llm.__version__,
            takes="token_ids",
            dimensions=int(config["hidden_size"]),
            max_input_tokens=self._files.max_input_tokens,
            normalized=self._files.normalize,
        )

    def embed(self, rows: Sequence[Sequence[int]]) -> NDArray[float32]:
        """See Engine."""
        outputs = self._llm.encode([list(row) for row in rows])
        vectors = np.stack([_numbers(output.logits) for output in outputs])
        if self._files.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def reject_older(version: str) -> None:
    """Raise ValueError for a version of TensorRT-LLM without the encode API."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < _FIRST_WITH_ENCODE:
        raise ValueError(f"TensorRT-LLM {version} cannot embed; it needs 1.3 or newer, or use the engine transformers")


def _numbers(logits: Any) -> NDArray[float32]:
    # The tensor is on the GPU, and may be of bfloat16, which numpy does not support.
    vector: NDArray[float32] = logits.float().cpu().numpy().reshape(-1)
    return vector


def create(arguments: dict[str, Any]) -> Engine:
    """Make the engine. Raises TypeError for an unknown argument."""
    return TrtllmEncoder(**arguments)
