"""Checks with samplers of llama.cpp which texts a grammar allows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from services.inference.triton_backend.contract import StructuredOutput
from services.inference.triton_backend.engines.llama_api import LlamaApi
from services.inference.triton_backend.engines.llama_candidates import Candidates
from services.inference.triton_backend.engines.llama_structured_output import StructuredOutputs


class TooComplexError(Exception):
    """llguidance has stopped at the grammar because it is too complex."""


class Walk:
    """A vocabulary without a model."""

    def __init__(self, gguf: Path) -> None:
        self.api = LlamaApi()
        params = self.api.lib.llama_model_default_params()
        params.vocab_only = True
        model = self.api.lib.llama_model_load_from_file(str(gguf).encode(), params)
        self.vocab = self.api.lib.llama_model_get_vocab(model)
        self.size: int = self.api.lib.llama_vocab_n_tokens(self.vocab)
        self.structured_outputs = StructuredOutputs(self.api, self.vocab, self.size)
        self._candidates = Candidates(self.api, self.size)
        self._end = next(i for i in range(self.size) if self.api.lib.llama_vocab_is_eog(self.vocab, i))

    def gbnf(self, text: str) -> Any:
        """Return llama.cpp's own sampler of a GBNF, or None if it rejects it."""
        sampler = self.api.lib.llama_sampler_init_grammar(self.vocab, text.encode(), b"root")
        return None if sampler == self.api.ffi.NULL else sampler

    def grammar(self, text: str) -> Any:
        """Return the engine's sampler of a grammar."""
        return self.structured_outputs.copy_of(StructuredOutput("grammar", text))

    def allows(self, sampler: Any, text: str) -> bool:
        """Return whether the whole text, and the end behind it, are allowed. Raises TooComplexError.

        All ways to write it in tokens are tried: where only one text can follow, llguidance allows only one way.
        """
        copy = self.api.lib.llama_sampler_clone(sampler)
        try:
            allowed = self.allowed(copy)
            if len(allowed) == self.size:
                raise TooComplexError
            if not text:
                return self._end in allowed
            for size in range(len(text), 0, -1):
                ids = self.tokens(text[:size])
                if ids[0] in allowed and (len(ids) == 1 or size == 1):
                    # A character may have several tokens.
                    for token in ids:
                        self.api.lib.llama_sampler_accept(copy, token)
                    if self.allows(copy, text[size:]):
                        return True
                    self.api.lib.llama_sampler_free(copy)
                    copy = self.api.lib.llama_sampler_clone(sampler)
            return False
        finally:
            self.api.lib.llama_sampler_free(copy)

    def allowed(self, sampler: Any) -> set[int]:
        array = self._candidates.fill(np.zeros(self.size, np.float32), [])
        self.api.lib.llama_sampler_apply(sampler, array)
        return set(np.flatnonzero(np.isfinite(self._candidates._rows["logit"])).tolist())

    def steps(self, sampler: Any, text: str) -> Iterator[float]:
        """Return the seconds of CPU time for each token of a text, up to the first one that is not allowed."""
        for token in self.tokens(text):
            began = time.thread_time()
            allowed = self.allowed(sampler)
            yield time.thread_time() - began
            if token not in allowed or len(allowed) == self.size:
                return
            self.api.lib.llama_sampler_accept(sampler, token)

    def tokens(self, text: str) -> list[int]:
        raw = text.encode()
        ids = self.api.ffi.new("llama_token[]", len(raw) + 8)
        count = self.api.lib.llama_tokenize(self.vocab, raw, len(raw), ids, len(raw) + 8, False, False)
        return list(ids[0:count])
