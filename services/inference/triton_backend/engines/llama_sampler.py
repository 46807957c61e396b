"""Chooses the next token of one request from its logits, as its parameters say."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.contract import Guide, Params, RequestError, refuse_unknown_tokens
from services.inference.triton_backend.engines.llama_api import INIT_LLGUIDANCE, LlamaApi

LARK_MARK: Final = "%llguidance"
"""A `grammar` that begins with it is one of llguidance (a variant of Lark); another one is GBNF."""
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

    def single(self, token_id: int) -> Any:
        """One token alone, as llama.cpp's array."""
        self._rows["id"][0], self._rows["logit"][0] = token_id, 0.0
        self._array.data, self._array.size, self._array.selected, self._array.sorted = self._data, 1, -1, False
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


class Sampler:
    """The samplers of one request, in the order of the GPU engine: biases and penalties, temperature, truncations."""

    def __init__(self, api: LlamaApi, vocab: Any, params: Params, prompt: list[int], *, context_length: int) -> None:
        """Raises RequestError when a guide or a token id is not valid."""
        vocabulary = api.lib.llama_vocab_n_tokens(vocab)
        refuse_unknown_tokens("stop_token_ids", params.stop_token_ids, vocabulary)
        refuse_unknown_tokens("logit_bias", (token_id for token_id, _ in params.logit_bias), vocabulary)
        if params.guide is not None and params.min_tokens:
            raise RequestError(
                "INVALID_ARGUMENT",
                "min_tokens and guide exclude one another: a guide says itself when a text is complete",
            )
        self._lib = api.lib
        self._guide: Any
        self._guide, self._is_fast = _guide(api, vocab, params.guide) if params.guide else (None, True)
        self._chain = self._lib.llama_sampler_chain_init(self._lib.llama_sampler_chain_default_params())
        for sampler in _samplers(api, vocabulary, params, prompt, context_length):
            self._lib.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, candidates: Candidates, logits: npt.NDArray[np.float32], forbidden: Iterable[int] = ()) -> int:
        """The next token; it counts as chosen. Raises RequestError when the guide allows none."""
        banned = list(forbidden)
        token_id = self._choose(candidates, logits, banned, guided=self._is_fast)
        if token_id is not None and not self._is_fast and not self._allows(candidates, token_id):
            # Looking at all tokens takes GBNF tens of milliseconds, and the unguided choice mostly fits.
            token_id = self._choose(candidates, logits, banned, guided=True)
        if token_id is None:
            raise RequestError("ENGINE_FAILED", "the guide allows no further token, and the text is not complete")
        self._lib.llama_sampler_accept(self._chain, token_id)
        if self._guide is not None:
            self._lib.llama_sampler_accept(self._guide, token_id)
        return token_id

    def close(self) -> None:
        """Free the samplers."""
        self._lib.llama_sampler_free(self._chain)
        if self._guide is not None:
            self._lib.llama_sampler_free(self._guide)

    def _choose(
        self, candidates: Candidates, logits: npt.NDArray[np.float32], banned: list[int], *, guided: bool
    ) -> int | None:
        array = candidates.fill(logits, banned)
        if guided and self._guide is not None:
            self._lib.llama_sampler_apply(self._guide, array)
            if self._is_fast and candidates.allow_all():
                raise RequestError(
                    "INVALID_ARGUMENT", "the guide turned out to be too complex to be followed; make it simpler"
                )
        self._lib.llama_sampler_apply(self._chain, array)
        return candidates.selected()

    def _allows(self, candidates: Candidates, token_id: int) -> bool:
        self._lib.llama_sampler_apply(self._guide, candidates.single(token_id))
        return candidates.allowed() == 1


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
    # llama.cpp takes 32 bits, and the largest value for "any".
    seed = secrets.randbits(31) if params.seed is None else params.seed % 0xFFFF_FFFF
    yield lib.llama_sampler_init_dist(seed)


def _guide(api: LlamaApi, vocab: Any, guide: Guide) -> tuple[Any, bool]:
    """The sampler of a guide, and whether it looks at all tokens in well under a millisecond."""
    if guide.kind == "structural_tag":
        raise RequestError("UNSUPPORTED_PARAMETER", "guide.structural_tag is not supported by the engine llamacpp")
    if guide.kind == "grammar" and not guide.text.lstrip().startswith(LARK_MARK):
        sampler = api.lib.llama_sampler_init_grammar(vocab, guide.text.encode(), b"root")
        if sampler == api.ffi.NULL:
            raise _bad_guide(guide, api.last_error())
        return sampler, False
    return _llguidance(api, vocab, guide), True


def _compact(schema: str) -> str:
    """Without room for white space, of which small models would write forever."""
    try:
        value = json.loads(schema)
    except ValueError:
        return schema
    return json.dumps({"x-guidance": {"whitespace_flexible": False}, **value}) if isinstance(value, dict) else schema


def _llguidance(api: LlamaApi, vocab: Any, guide: Guide) -> Any:
    kind = {"grammar": "lark", "json_object": "json"}.get(guide.kind, guide.kind)
    text = _compact(guide.text or '{"type":"object"}') if kind == "json" else guide.text
    sampler = getattr(api.lib, INIT_LLGUIDANCE)(vocab, kind.encode(), text.encode())
    vocabulary = api.lib.llama_vocab_n_tokens(vocab)
    candidates = Candidates(api, vocabulary)
    api.lib.llama_sampler_apply(sampler, candidates.fill(np.zeros(vocabulary, np.float32), []))
    if candidates.allow_all() or not candidates.allowed():
        api.lib.llama_sampler_free(sampler)
        raise _bad_guide(guide)
    return sampler


def _bad_guide(guide: Guide, reason: str = "") -> RequestError:
    shown = guide.text if len(guide.text) <= 80 else guide.text[:77] + "..."
    return RequestError(
        "INVALID_ARGUMENT",
        f"guide.{guide.kind} is not valid, or has a part that the engine does not know: {shown}"
        + (f" ({reason})" if reason else ""),
    )
