"""Compiles structured outputs into samplers of llama.cpp, and keeps them for later requests."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any, Final

import numpy as np

from services.inference.triton_backend.contract import STRUCTURED_OUTPUT, StructuredOutput
from services.inference.triton_backend.engines.llama_api import INIT_LLGUIDANCE, LlamaApi
from services.inference.triton_backend.engines.llama_candidates import Candidates
from services.inference.triton_backend.gbnf.grammar import GbnfError
from services.inference.triton_backend.gbnf.lark import as_lark
from services.worker.triton_kit.request_error import RequestError

MOST_KEPT: Final = 32
MOST_KEPT_BYTES: Final = 64 * 2**20


class StructuredOutputs:
    """The samplers of structured outputs for one vocabulary: the last MOST_KEPT stay, and each request gets a copy."""

    def __init__(self, api: LlamaApi, vocab: Any, vocabulary: int) -> None:
        """Start without samplers. `vocab` has `vocabulary` tokens."""
        self._api, self._lib, self._vocab = api, api.lib, vocab
        self._candidates = Candidates(api, vocabulary)
        self._vocabulary = vocabulary
        self._kept: Final[OrderedDict[StructuredOutput, tuple[Any, int]]] = OrderedDict()
        """The samplers, each with the bytes of memory that it takes."""
        self._lock = threading.Lock()
        self._compile_lock = threading.Lock()
        """Held to compile: the candidates are shared, and llguidance prepares a vocabulary in one thread."""

    def copy_of(self, structured_output: StructuredOutput, *, size: int = 0) -> Any:
        """Return a sampler at the beginning of a structured output, which the caller must free.

        `size` is the memory that it takes in bytes, if known. Compilation takes up to a few seconds.

        Raises RequestError for an invalid structured output.
        """
        with self._compile_lock:
            sampler = self.copy_of_kept(structured_output)
            if sampler is None:
                sampler = self._keep(structured_output, self._new_sampler(structured_output), size)
            return sampler

    def copy_of_kept(self, structured_output: StructuredOutput) -> Any | None:
        """Return a copy of a kept sampler, or None. It returns at once, and may be called from any thread."""
        with self._lock:
            return self._copy(structured_output) if structured_output in self._kept else None

    def close(self) -> None:
        """Free all kept samplers."""
        while self._kept:
            self._lib.llama_sampler_free(self._kept.popitem()[1][0])

    def _keep(self, structured_output: StructuredOutput, sampler: Any, size: int) -> Any:
        with self._lock:
            self._kept[structured_output] = sampler, size
            copy = self._copy(structured_output)
            while len(self._kept) > MOST_KEPT or (
                len(self._kept) > 1 and sum(held for _, held in self._kept.values()) > MOST_KEPT_BYTES
            ):
                self._lib.llama_sampler_free(self._kept.popitem(last=False)[1][0])
            return copy

    def _copy(self, structured_output: StructuredOutput) -> Any:
        self._kept.move_to_end(structured_output)
        return self._lib.llama_sampler_clone(self._kept[structured_output][0])

    def _new_sampler(self, structured_output: StructuredOutput) -> Any:
        if structured_output.kind == "structural_tag":
            raise RequestError(
                "UNSUPPORTED_PARAMETER",
                "structured_output_kind_not_supported",
                field=STRUCTURED_OUTPUT,
                engine="llamacpp",
            )
        kind = {"grammar": "lark", "json_object": "json"}.get(structured_output.kind, structured_output.kind)
        text = _compact(structured_output.text or '{"type":"object"}') if kind == "json" else structured_output.text
        if structured_output.kind == "grammar":
            try:
                text = as_lark(text)
            except GbnfError as error:
                raise RequestError(
                    "INVALID_ARGUMENT", error.message_id, **{"field": STRUCTURED_OUTPUT, **error.parameters}
                ) from None
        sampler = getattr(self._lib, INIT_LLGUIDANCE)(self._vocab, kind.encode(), text.encode())
        everything = self._candidates.fill(np.zeros(self._vocabulary, np.float32), [])
        self._lib.llama_sampler_apply(sampler, everything)
        if self._candidates.allow_all() or not self._candidates.allowed():
            self._lib.llama_sampler_free(sampler)
            raise _bad_structured_output(structured_output)
        return sampler


def _compact(schema: str) -> str:
    """Return a schema that allows no white space, of which small models would generate an endless amount."""
    try:
        value = json.loads(schema)
    except ValueError:
        return schema
    return json.dumps({"x-guidance": {"whitespace_flexible": False}, **value}) if isinstance(value, dict) else schema


def _bad_structured_output(structured_output: StructuredOutput) -> RequestError:
    excerpt = structured_output.text if len(structured_output.text) <= 80 else structured_output.text[:77] + "..."
    return RequestError("INVALID_ARGUMENT", "structured_output_not_valid", field=STRUCTURED_OUTPUT, reason=excerpt)
