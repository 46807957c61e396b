"""The candidates among which llama.cpp's samplers choose."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.engines.llama_api import LlamaApi

_CANDIDATE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Candidates:
    """An array of one candidate per token of the vocabulary, shared by all samplers of a thread."""

    def __init__(self, api: LlamaApi, vocabulary: int) -> None:
        """Allocate the array for `vocabulary` tokens."""
        self._data = api.ffi.new("llama_token_data[]", vocabulary)
        self._array = api.ffi.new("llama_token_data_array *")
        self._rows = np.frombuffer(api.ffi.buffer(self._data), _CANDIDATE)
        self._ids = np.arange(vocabulary, dtype=np.int32)

    def fill(self, logits: npt.NDArray[np.float32], forbidden: list[int], *, within: float = math.inf) -> Any:
        """Return llama.cpp's array with the tokens that may be chosen.

        Args:
            logits: The logits of all tokens.
            forbidden: Tokens that must not be chosen; with them, `within` has no effect.
            within: Leave out tokens whose logits are further below the largest one.
        """
        if within < math.inf and not forbidden:
            ids = np.flatnonzero(logits >= logits.max() - within)
            rows = self._rows[: len(ids)]
            rows["id"], rows["logit"] = ids, logits[ids]
        else:
            rows = self._rows
            rows["id"], rows["logit"] = self._ids, logits
            rows["logit"][forbidden] = -np.inf
        self._array.data = self._data
        self._array.size = len(rows)
        self._array.selected = -1
        self._array.sorted = False
        return self._array

    def selected(self) -> int | None:
        """Return the token that a sampler has chosen, or None if no token was allowed."""
        if not 0 <= self._array.selected < self._array.size:
            return None
        chosen = self._array.data[self._array.selected]
        return int(chosen.id) if math.isfinite(chosen.logit) else None

    def allow_all(self) -> bool:
        """Return whether all tokens are allowed: a structured output with an error also allows special tokens."""
        return self.allowed() == len(self._ids)

    def allowed(self) -> int:
        """Return the number of tokens that a structured output allows."""
        return int(np.isfinite(self._rows["logit"][: self._array.size]).sum())
