"""Likelihoods by llama.cpp's C API alone: each text is read in one call, with llama.cpp's own tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.engines.llama_api import LlamaApi

_LONGEST = 512
"""The most tokens of a text."""


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of a text behind another one, for a model."""

    log_probability: float
    lead: float
    """The least difference of a token's log probability to the largest of all others; negative if one is larger."""


class LlamaLikelihoods:
    """A loaded GGUF file. It is never unloaded: a test process has one."""

    def __init__(self, path: Path, *, threads: int) -> None:
        api = LlamaApi()
        self._lib, self._ffi = api.lib, api.ffi
        model = self._lib.llama_model_load_from_file(str(path).encode(), self._lib.llama_model_default_params())
        self._vocab = self._lib.llama_model_get_vocab(model)
        self._vocabulary: int = self._lib.llama_vocab_n_tokens(self._vocab)
        params = self._lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = _LONGEST
        params.n_threads = params.n_threads_batch = threads
        self._context = self._lib.llama_init_from_model(model, params)
        self._batch = self._lib.llama_batch_init(_LONGEST, 0, 1)

    def read(self, context: str, continuation: str) -> Likelihood:
        """Return what the model makes of a continuation."""
        tokens, first = self._tokenize(context + continuation), len(self._tokenize(context))
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            self._batch.token[index], self._batch.pos[index] = token, index
            self._batch.n_seq_id[index], self._batch.seq_id[index][0] = 1, 0
            self._batch.logits[index] = index >= first - 1
        assert self._lib.llama_decode(self._context, self._batch) == 0
        steps = [_step(self._logits(index - 1), tokens[index]) for index in range(first, len(tokens))]
        return Likelihood(sum(step.log_probability for step in steps), min(step.lead for step in steps))

    def _tokenize(self, text: str) -> list[int]:
        raw = text.encode()
        ids = self._ffi.new("llama_token[]", _LONGEST)
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), ids, _LONGEST, True, False)
        assert 0 < count <= _LONGEST
        return list(ids[0:count])

    def _logits(self, index: int) -> npt.NDArray[np.float64]:
        pointer = self._lib.llama_get_logits_ith(self._context, index)
        return np.frombuffer(self._ffi.buffer(pointer, self._vocabulary * 4), np.float32).astype(np.float64)


def _step(logits: npt.NDArray[np.float64], token: int) -> Likelihood:
    others = np.delete(logits, token)
    return Likelihood(float(logits[token] - np.logaddexp.reduce(logits)), float(logits[token] - others.max()))
