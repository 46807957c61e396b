"""What llama.cpp's samplers choose from."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.engines.llama_api import LlamaApi

_CANDIDATE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Candidates:
    """Room for one candidate per token of the vocabulary, shared by all samplers of a thread."""

    def __init__(self, api: LlamaApi, vocabulary: int) -> None:
        self._data = api.ffi.new("llama_token_data[]", vocabulary)
        self._array = api.ffi.new("llama_token_data_array *")
        self._rows = np.frombuffer(api.ffi.buffer(self._data), _CANDIDATE)
        self._ids = np.arange(vocabulary, dtype=np.int32)

    def fill(self, logits: npt.NDArray[np.float32], forbidden: list[int]) -> Any:
        """All tokens but `forbidden` ones, as llama.cpp's array."""
        self._rows["id"] = self._ids
        self._rows["logit"] = logits
        if forbidden:
            self._rows["logit"][forbidden] = -np.inf
        self._array.data = self._data
        self._array.size = len(self._ids)
        self._array.selected = -1
        self._array.sorted = False
        return self._array

    def selected(self) -> int | None:
        """The token that a sampler chose; None when none was allowed."""
        if not 0 <= self._array.selected < self._array.size:
            return None
        chosen = self._array.data[self._array.selected]
        return int(chosen.id) if math.isfinite(chosen.logit) else None

    def allow_all(self) -> bool:
        """Whether a guide has left all. One with an error does, special tokens included, which no valid one allows."""
        return self.allowed() == len(self._ids)

    def allowed(self) -> int:
        """How many candidates a guide has left."""
        return int(np.isfinite(self._rows["logit"][: self._array.size]).sum())
