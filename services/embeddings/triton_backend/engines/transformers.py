"""Any encoder that transformers supports (Qwen3-Embedding, BERT and similar), on PyTorch, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from numpy import float32
from numpy.typing import NDArray

from services.embeddings.triton_backend import model_files
from services.embeddings.triton_backend.contract import Description, Engine
from services.embeddings.triton_backend.row_groups import groups_of_similar_length
from services.worker.triton_kit.request_error import RequestError


class TransformersEncoder:
    """Embeds token ids; the model directory defines pooling, normalisation and padding."""

    def __init__(
        self,
        *,
        model: str,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        batch_tokens: int = 32768,
    ) -> None:
        """Load the directory `model` on `device` (cuda, cuda:1, cpu; auto: a GPU if there is one).

        `dtype` is PyTorch's name of a floating-point type; auto: the checkpoint's own on a GPU, float32 on a CPU.
        `batch_tokens` is the most tokens that are computed at once, padding included; a longer text is computed alone.
        Raises OSError or ValueError for a directory that is not understood.
        """
        directory = Path(model)
        self._files: Final = model_files.read(directory)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if threads is not None:
            torch.set_num_threads(threads)
        self._device: Final = torch.device(device)
        if dtype == "auto" and self._device.type == "cpu":
            dtype = "float32"
        # No file is downloaded, and no code of the checkpoint is run.
        loaded = transformers.AutoModel.from_pretrained(directory, dtype=dtype, local_files_only=True)
        self._model: Final = loaded.to(self._device).eval()
        self._padding_id: Final = int(self._model.config.pad_token_id or 0)
        self._batch_tokens: Final = batch_tokens
        self._description: Final = Description(
            engine="transformers",
            version=transformers.__version__,
            takes="token_ids",
            dimensions=int(self._model.config.hidden_size),
            max_input_tokens=self._files.max_input_tokens,
            normalized=self._files.normalize,
        )

    @property
    def description(self) -> Description:
        """See Engine. After some errors of CUDA, everything fails until the process ends."""
        if self._device.type == "cuda":
            try:
                torch.cuda.synchronize(self._device)
            except RuntimeError as error:
                problem = f"it must be restarted: {str(error).splitlines()[0]}"
                raise RequestError("ENGINE_FAILED", "engine_failed", reason=problem) from error
        return self._description

    def embed(self, rows: Sequence[Sequence[int]]) -> NDArray[float32]:
        """See Engine."""
        self._check(rows)
        vectors = np.empty((len(rows), self._description.dimensions), float32)
        for group in groups_of_similar_length(list(map(len, rows)), most_tokens=self._batch_tokens):
            vectors[group] = self._vectors([rows[index] for index in group])
        return vectors

    def _vectors(self, rows: Sequence[Sequence[int]]) -> NDArray[float32]:
        ids, mask = self._padded(rows)
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            vectors = pooled(states.float(), mask, self._files.pooling)
            if self._files.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
        result: NDArray[float32] = vectors.cpu().numpy()
        return result

    def _check(self, rows: Sequence[Sequence[int]]) -> None:
        size = self._model.config.vocab_size
        for row in rows:
            if not row or not 0 <= min(row) <= max(row) < size:
                problem = f"a text has no token ids, or some that are not 0 to {size - 1}"
                raise RequestError("INVALID_ARGUMENT", "engine_parameters_not_valid", reason=problem)

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, rows))
        ids = np.full((len(rows), width), self._padding_id, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for index, row in enumerate(rows):
            columns = slice(width - len(row), width) if self._files.padding_side == "left" else slice(len(row))
            ids[index, columns] = row
            mask[index, columns] = 1
        return torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)


def pooled(states: torch.Tensor, mask: torch.Tensor, pooling: model_files.Pooling) -> torch.Tensor:
    """Return one vector per row of `states` [rows, tokens, numbers]. `mask` [rows, tokens] is 0 at padding."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
    positions = torch.arange(mask.shape[1], device=mask.device)
    if pooling == "last":
        chosen = torch.where(mask.bool(), positions, -1).argmax(dim=1)
    else:
        chosen = torch.where(mask.bool(), positions, mask.shape[1]).argmin(dim=1)
    return states[torch.arange(states.shape[0], device=states.device), chosen]


def create(arguments: dict[str, Any]) -> Engine:
    """Make the engine. Raises TypeError for an unknown argument."""
    return TransformersEncoder(**arguments)
