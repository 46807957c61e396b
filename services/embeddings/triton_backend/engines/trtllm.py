"""Embedding models on GPUs with TensorRT-LLM's encode API, which candidates of version 1.3 brought.

The engine was tested with stand-ins only. `bench/embeddings/gpu_smoke.py` compares it with the transformers engine on a
machine with a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorrt_llm
from numpy import float32
from numpy.typing import NDArray

from services.embeddings.triton_backend import model_files
from services.embeddings.triton_backend.contract import Description, Engine

_ARCHITECTURES: Final = {"qwen3": "Qwen3ForTextEmbedding"}
"""TensorRT-LLM's model classes that compute embeddings, by the checkpoint's model_type."""


class TrtllmEncoder:
    """Embeds token ids. TensorRT-LLM pools by itself; the model directory defines normalisation."""

    def __init__(
        self,
        *,
        model: str,
        max_batch_size: int = 64,
        max_num_tokens: int = 8192,
        max_seq_len: int | None = None,
        **llm: Any,
    ) -> None:
        """Load the directory `model`; `llm` are further arguments of tensorrt_llm.LLM.

        * `max_batch_size`: the most texts that are computed at once.
        * `max_num_tokens`: the most tokens that are computed at once, raised to `max_seq_len`.
        * `max_seq_len`: the most tokens of one text; by default as many as the checkpoint reads.

        Raises ValueError for a version without the encode API, and for an unsupported checkpoint.
        """
        reject_older(tensorrt_llm)
        directory = Path(model)
        self._files: Final = model_files.read(directory)
        config = model_files.read_config(directory)
        architecture = _ARCHITECTURES.get(config.get("model_type", ""))
        if architecture is None:
            known = ", ".join(_ARCHITECTURES)
            raise ValueError(f"{directory}: model_type {config.get('model_type')!r} cannot be encoded; {known} can")
        longest = min(max_seq_len or self._files.max_input_tokens, self._files.max_input_tokens)
        self._most_rows: Final = max_batch_size
        self._most_tokens: Final = max(max_num_tokens, longest)
        # Otherwise it would report its use to NVIDIA.
        os.environ["TRTLLM_NO_USAGE_STATS"] = "1"
        # Without these limits, those of TensorRT-LLM would reject full batches and long texts.
        self._llm: Final = tensorrt_llm.LLM(
            model=str(directory),
            encode_only=True,
            model_kwargs={"architectures": [architecture]},
            max_batch_size=self._most_rows,
            max_num_tokens=self._most_tokens,
            max_seq_len=longest,
            **llm,
        )
        self.description = Description(
            engine="trtllm",
            version=tensorrt_llm.__version__,
            takes="token_ids",
            dimensions=int(config["hidden_size"]),
            max_input_tokens=longest,
            normalized=self._files.normalize,
        )

    def embed(self, rows: Sequence[Sequence[int]]) -> NDArray[float32]:
        """See Engine."""
        outputs = [output for batch in self._batches(rows) for output in self._llm.encode(batch)]
        vectors = np.stack([_numbers(output.logits) for output in outputs])
        if self._files.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _batches(self, rows: Sequence[Sequence[int]]) -> Iterator[list[list[int]]]:
        """Divide rows into batches that TensorRT-LLM accepts. Triton joins rows without regard to their lengths."""
        batch: list[list[int]] = []
        tokens = 0
        for row in rows:
            if batch and (len(batch) >= self._most_rows or tokens + len(row) > self._most_tokens):
                yield batch
                batch, tokens = [], 0
            batch.append(list(row))
            tokens += len(row)
        yield batch


def reject_older(package: Any) -> None:
    """Raise ValueError for a version of TensorRT-LLM without the encode API, which not all candidates of 1.3 have."""
    if not hasattr(package.LLM, "encode"):
        raise ValueError(
            f"TensorRT-LLM {package.__version__} cannot embed; "
            "it needs a version with LLM.encode (1.3), or use the engine transformers"
        )


def _numbers(logits: Any) -> NDArray[float32]:
    # The tensor is on the GPU, and may be of bfloat16, which numpy does not support.
    vector: NDArray[float32] = logits.float().cpu().numpy().reshape(-1)
    return vector


def create(arguments: dict[str, Any]) -> Engine:
    """Make the engine. Raises TypeError for an unknown argument."""
    return TrtllmEncoder(**arguments)
