"""Chooses the next token of one request from its logits, by its parameters."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.contract import STRUCTURED_OUTPUT, Params, reject_unknown_tokens
from services.inference.triton_backend.engines.llama_api import LlamaApi
from services.inference.triton_backend.engines.llama_candidates import Candidates
from services.inference.triton_backend.engines.llama_structured_output import StructuredOutputs
from services.inference.triton_backend.trial import Trials
from services.worker.triton_kit.request_error import RequestError

STRUCTURED_OUTPUT_STEP_SECONDS: Final = 0.03
"""The CPU time that a structured output may take per token. Usual ones take a few milliseconds."""
STRUCTURED_OUTPUT_DEBT_SECONDS: Final = 0.15
"""The CPU time that a structured output may take in addition, in all."""
NEGLIGIBLE: Final = 30.0
"""Tokens whose logits are so far below the largest one, after temperature, are left out of sampling.

Their probability is less than e^-30 = 1e-13 each, and that of 150,000 such tokens together less than the precision of
the sum of all probabilities in single precision. Samplers are several times faster without them.
"""


class NoTokenAllowedError(RequestError):
    """A structured output allows no further token, although the text is not complete."""

    def __init__(self) -> None:
        """Make the error."""
        super().__init__("INVALID_ARGUMENT", "structured_output_dead_end", field=STRUCTURED_OUTPUT)


class Sampler:
    """The samplers of one request, in the order of the GPU engine: biases and penalties, temperature, truncation."""

    def __init__(
        self,
        api: LlamaApi,
        params: Params,
        prompt: list[int],
        *,
        structured_outputs: StructuredOutputs,
        vocabulary: int,
        context_length: int,
    ) -> None:
        """Create the samplers of `params`.

        Raises RequestError for an invalid token id, or for a parameter that structured output excludes.
        """
        reject_unknown_tokens("stop_token_ids", params.stop_token_ids, vocabulary)
        reject_unknown_tokens("logit_bias", (token_id for token_id, _ in params.logit_bias), vocabulary)
        if params.structured_output is not None and params.min_tokens:
            raise RequestError("INVALID_ARGUMENT", "structured_output_with_min_tokens", field="min_tokens")
        self._lib = api.lib
        self._structured_outputs = structured_outputs
        self._wanted = params.structured_output
        self._structured_output: Any = params.structured_output and structured_outputs.copy_of_kept(
            params.structured_output
        )
        self._lock = threading.Lock()
        """Held to set or free the structured output's sampler, which may be compiled while the request ends."""
        self._closed = False
        self._structured_output_debt = 0.0
        """Seconds of CPU time that the structured output has taken in addition to STRUCTURED_OUTPUT_STEP_SECONDS."""
        shifts = params.logit_bias or params.frequency_penalty or params.presence_penalty or self._wanted
        unshifted = not shifts and params.repetition_penalty == 1
        self._within = NEGLIGIBLE * params.temperature if unshifted else math.inf
        """The distance below the largest logit in which a token may be chosen, before anything changes logits."""
        self._chain = self._lib.llama_sampler_chain_init(self._lib.llama_sampler_chain_default_params())
        for sampler in _samplers(api, vocabulary, params, prompt, context_length):
            self._lib.llama_sampler_chain_add(self._chain, sampler)

    @property
    def lacks_structured_output(self) -> bool:
        """Whether `make_structured_output` must be called before `sample`."""
        return self._wanted is not None and self._structured_output is None

    def make_structured_output(self, trials: Trials) -> None:
        """Compile the structured output after a trial, which may take long. Raises RequestError if it is invalid."""
        wanted = self._wanted
        assert wanted is not None  # noqa: S101 - called only if it lacks one
        sampler = self._structured_outputs.copy_of_kept(wanted)
        if sampler is None:
            sampler = self._structured_outputs.copy_of(wanted, size=trials.check(wanted))
        with self._lock:
            if self._closed:
                self._lib.llama_sampler_free(sampler)
            else:
                self._structured_output = sampler

    def sample(self, candidates: Candidates, logits: npt.NDArray[np.float32], forbidden: Iterable[int] = ()) -> int:
        """Choose and return the next token. Raises RequestError if the structured output allows none."""
        array = candidates.fill(logits, list(forbidden), within=self._within)
        if self._structured_output is not None:
            began = time.thread_time()
            self._lib.llama_sampler_apply(self._structured_output, array)
            self._note_structured_output_work(time.thread_time() - began)
            if candidates.allow_all():
                raise _too_complex()
            if not candidates.allowed():
                raise NoTokenAllowedError
        self._lib.llama_sampler_apply(self._chain, array)
        token_id = candidates.selected()
        if token_id is None:
            raise RequestError("ENGINE_FAILED", "engine_failed", reason="the sampler chose no token")
        self._lib.llama_sampler_accept(self._chain, token_id)
        if self._structured_output is not None:
            self._lib.llama_sampler_accept(self._structured_output, token_id)
        return token_id

    def _note_structured_output_work(self, seconds: float) -> None:
        """Raise RequestError if the structured output blocks the engine's thread for too long: other requests wait."""
        self._structured_output_debt = max(0.0, self._structured_output_debt + seconds - STRUCTURED_OUTPUT_STEP_SECONDS)
        if self._structured_output_debt > STRUCTURED_OUTPUT_DEBT_SECONDS:
            raise _too_complex()

    def close(self) -> None:
        """Free the samplers."""
        self._lib.llama_sampler_free(self._chain)
        with self._lock:
            self._closed = True
            if self._structured_output is not None:
                self._lib.llama_sampler_free(self._structured_output)


def _too_complex() -> RequestError:
    return RequestError("INVALID_ARGUMENT", "structured_output_too_complex", field=STRUCTURED_OUTPUT)


def _samplers(api: LlamaApi, vocabulary: int, params: Params, prompt: list[int], context_length: int) -> Iterable[Any]:
    lib = api.lib
    if params.logit_bias:
        biases = api.ffi.new("llama_logit_bias[]", [{"token": i, "bias": bias} for i, bias in params.logit_bias])
        yield lib.llama_sampler_init_logit_bias(vocabulary, len(params.logit_bias), biases)
    if params.repetition_penalty != 1:
        repetition = lib.llama_sampler_init_penalties(vocabulary, context_length, params.repetition_penalty, 0.0, 0.0)
        for token_id in prompt:
            lib.llama_sampler_accept(repetition, token_id)
        yield repetition
    if params.frequency_penalty or params.presence_penalty:
        yield lib.llama_sampler_init_penalties(
            vocabulary, context_length, 1.0, params.frequency_penalty, params.presence_penalty
        )
    if params.temperature == 0:
        yield lib.llama_sampler_init_greedy()
        return
    yield lib.llama_sampler_init_temp(params.temperature)
    if params.top_k:
        yield lib.llama_sampler_init_top_k(params.top_k)
    if params.top_p < 1:
        yield lib.llama_sampler_init_top_p(params.top_p, 1)
    if params.min_p:
        yield lib.llama_sampler_init_min_p(params.min_p, 1)
    # llama.cpp's seed has 32 bits, and its largest value means a random seed.
    seed = secrets.randbits(31) if params.seed is None else params.seed % 0xFFFF_FFFF
    yield lib.llama_sampler_init_dist(seed)
